//! Reads `schemas/`: `*.toml` are streams, `*.sql` are views.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use toml::de::{DeTable, DeValue};

use super::columns::read_columns;
use super::history::{check_archives, read_archive, read_history};
use super::kind::{check_connection, check_key_formats, read_file_format, read_kind, read_table};
use super::record_schema::{Attached, check_fields, read_avro, read_protobuf};
use super::{Catalog, Column, EventTime, Format, Kind, OnLost, Start, Stream, Unique, View};
use crate::config::{Origin, Outline};
use crate::diagnostic::{Diagnostic, Levels, codes, nearest};
use crate::inside::inside;
use crate::sql_header;
use crate::toml_walk::{Section, Walk};

/// The folder of schema files.
pub(crate) const FOLDER: &str = "schemas";

const KEYS: &[&str] = &[
    "title",
    "kind",
    "connection",
    "topic",
    "format",
    "schema",
    "descriptor",
    "message",
    "framing",
    "time",
    "start",
    "history",
    "archive",
    "key",
    "truncates",
    "unique",
    "on_error",
    "on_lost",
    "columns",
];
const FILE_KEYS: &[&str] = &["title", "kind", "connection", "path", "format", "key", "columns"];
const MYSQL_KEYS: &[&str] = &["title", "kind", "connection", "table", "key", "changes", "resync", "columns"];

/// Reads every schema file among `sources` (text by path below the root), and adds what is wrong to `diagnostics`.
/// `attached` are the files that they name. Gives the streams and views that are sound.
pub(crate) fn load(
    sources: &BTreeMap<PathBuf, String>,
    attached: &Attached,
    outline: &Outline,
    diagnostics: &mut Vec<Diagnostic>,
) -> Catalog {
    let mut catalog = Catalog::default();
    let mut first_file: BTreeMap<String, &Path> = BTreeMap::new();
    for (file, text) in sources.iter().filter(|(file, _)| file.starts_with(FOLDER)) {
        let is_view = file.extension().is_some_and(|extension| extension == "sql");
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if file.components().count() > 2 {
            let message = format!("\"{name}\" lies in a subfolder of schemas/, and is not read");
            diagnostics.push(
                Diagnostic::error(codes::SCHEMA_PLACE, file, None, message)
                    .help("move it: schema files lie directly in schemas/"),
            );
            continue;
        }
        if !is_stream_name(&name) {
            let message = format!("\"{name}\" cannot be the name of a stream or view");
            diagnostics.push(
                Diagnostic::error(codes::STREAM_NAME, file, None, message)
                    .help("rename the file: a lower-case letter, then lower-case letters, digits and _; at most 63"),
            );
        }
        if let Some(first) = first_file.get(&name) {
            let message = format!("the name \"{name}\" is taken by {}", first.display());
            diagnostics.push(
                Diagnostic::error(codes::DUPLICATE_STREAM, file, None, message)
                    .help("rename one of the files: SQL calls streams and views by one name each"),
            );
            continue;
        }
        first_file.insert(name.clone(), file);
        if is_view {
            catalog.views.extend(read_view(&name, file, text, diagnostics).map(|view| (name, Arc::new(view))));
        } else {
            let stream = read_stream(&name, file, text, attached, outline, diagnostics);
            catalog.streams.extend(stream.map(|stream| (name, Arc::new(stream))));
        }
    }
    check_archives(&catalog.streams, sources, diagnostics);
    catalog
}

/// The connections that streams name, as far as their files can be made out.
pub(crate) fn connections_named(sources: &BTreeMap<PathBuf, String>) -> BTreeSet<String> {
    let schemas = sources.iter().filter(|(file, _)| file.starts_with(FOLDER));
    let streams = schemas.filter(|(file, _)| file.extension().is_some_and(|extension| extension == "toml"));
    streams
        .filter_map(|(_, text)| {
            let (table, _) = DeTable::parse_recoverable(text);
            Some(table.get_ref().get("connection")?.get_ref().as_str()?.to_owned())
        })
        .collect()
}

/// Where a schema file declares a column.
pub(crate) fn place_of_column(file: &Path, text: &str, column: &str) -> Option<std::ops::Range<usize>> {
    let mut walk = Walk::new(file, text);
    let table = walk.parse(0..text.len())?;
    let columns = walk.section(&Section::root("the stream", &table), "columns", "[columns]")?;
    columns.table.keys().find(|name| name.get_ref() == column).map(|name| walk.at(name.span()))
}

/// The value of a key of a schema file.
pub(crate) fn place_of_key(file: &Path, text: &str, key: &str) -> Option<std::ops::Range<usize>> {
    let mut walk = Walk::new(file, text);
    let table = walk.parse(0..text.len())?;
    table.get(key).map(|value| walk.at(value.span()))
}

/// True where a file of this name can be a stream's or view's.
pub(crate) fn is_stream_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn read_view(name: &str, file: &Path, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<View> {
    let parts = match sql_header::cut(file, text, "view") {
        Ok(parts) => parts,
        Err(problem) => {
            diagnostics.push(problem);
            return None;
        }
    };
    let mut walk = Walk::new(file, text);
    let (mut title, mut lints) = (None, Levels::new());
    if let Some(table) = parts.toml.and_then(|range| walk.parse(range)) {
        let header = Section::root("the view header", &table);
        walk.check_keys(&header, &["title", "description", "owner", "lints"]);
        title = walk.string(&header, "title");
        lints = walk.lints(&header);
        for key in ["description", "owner"] {
            walk.string(&header, key);
        }
    }
    if parts.is_blank {
        walk.error(codes::NO_SQL, None, format!("the view \"{name}\" has no query"))
            .help("write a SELECT after the header");
    }
    let sound = walk.diagnostics.is_empty();
    diagnostics.append(&mut walk.diagnostics);
    sound.then(|| View { name: name.to_owned(), file: file.to_owned(), sql: text.to_owned(), title, lints })
}

fn read_stream(
    name: &str,
    file: &Path,
    text: &str,
    attached: &Attached,
    outline: &Outline,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Stream> {
    let mut walk = Walk::new(file, text);
    let table = walk.parse(0..text.len());
    let stream = table.and_then(|table| {
        let section = Section::root(&format!("the stream \"{name}\""), &table);
        let kind = read_kind(&mut walk, &section);
        let keys = match &kind {
            Some(Kind::File) => FILE_KEYS,
            Some(Kind::Mysql { .. }) => MYSQL_KEYS,
            _ => KEYS,
        };
        walk.check_keys(&section, keys);
        let connection = read_connection(&mut walk, &section, outline);
        let origin = connection.as_ref().map_or(Origin::Unknown, |(_, origin)| *origin);
        let (format, topic) = match kind.as_ref().unwrap_or(&Kind::Records) {
            Kind::Records | Kind::Upserts => {
                let format = read_format(&mut walk, &section, connection.as_ref(), attached);
                let example = "topic = \"shop.orders\" (for a file connection: the file or folder)";
                (format, read_place(&mut walk, &section, "topic", example, origin == Origin::File))
            }
            Kind::File => {
                let topic = read_place(&mut walk, &section, "path", "path = \"levels.csv\"", true);
                (read_file_format(&mut walk, &section), topic)
            }
            Kind::Mysql { .. } => (Some(Format::Json), read_table(&mut walk, &section)),
        };
        if let Some(kind) = &kind {
            check_connection(&mut walk, &section, kind, origin);
        }
        let known_format = format.as_ref().unwrap_or(&Format::Json);
        let mut columns = read_columns(&mut walk, &section, known_format, outline.timezone);
        check_fields(&mut walk, &section, known_format, &columns);
        if kind == Some(Kind::Upserts) && known_format.is_changes() {
            let span = section.table.get("kind").map(|value| walk.at(value.span()));
            let message =
                format!("{} is of kind \"kafka-upsert\", but its format tells changes already", section.label);
            walk.error(codes::BAD_VALUE, span, message).help("remove \"kind\"");
        }
        let is_table = known_format.is_changes() || kind.as_ref().is_some_and(|kind| *kind != Kind::Records);
        let key = read_key(&mut walk, &section, is_table, &mut columns);
        if kind.as_ref().is_some_and(Kind::is_outside) {
            check_key_formats(&mut walk, &section, &key, &columns);
        }
        let truncates = walk.boolean(&section, "truncates").unwrap_or(false);
        if truncates && !known_format.is_changes() {
            let span = section.table.get("truncates").map(|value| walk.at(value.span()));
            walk.error(codes::BAD_VALUE, span, format!("the format of {} knows no TRUNCATE", section.label))
                .help("remove \"truncates\"; it goes with a format of changes, such as \"debezium-json\"");
        }
        let time = read_time(&mut walk, &section, &columns);
        let unique = read_unique(&mut walk, &section, is_table, &columns);
        let start = read_start(&mut walk, &section);
        let history = read_history(&mut walk, &section, origin, is_table, start);
        let archive = read_archive(&mut walk, &section, origin, is_table, start, &columns);
        let on_lost = read_on_lost(&mut walk, &section, origin);
        Some(Stream {
            name: name.to_owned(),
            file: file.to_owned(),
            title: walk.string(&section, "title"),
            connection: connection?.0,
            topic: topic?,
            format: format?,
            kind: kind?,
            timezone: outline.timezone,
            start: start?,
            history,
            archive,
            time,
            key,
            truncates,
            unique,
            on_lost: on_lost?,
            columns,
        })
    });
    let sound = walk.diagnostics.is_empty();
    diagnostics.append(&mut walk.diagnostics);
    stream.filter(|_| sound)
}

fn read_format(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    connection: Option<&(String, Origin)>,
    attached: &Attached,
) -> Option<Format> {
    if section.table.get("format").is_none() {
        walk.missing(section, "format", "format = \"json\" (or \"csv\")");
        return None;
    }
    let text = walk.text(section, "format")?;
    match text.raw.as_str() {
        "avro" => {
            refuse_keys(walk, section, "avro", PROTOBUF_KEYS);
            read_avro(walk, section, connection, attached)
        }
        "protobuf" => {
            refuse_keys(walk, section, "protobuf", AVRO_KEYS);
            read_protobuf(walk, section, connection, attached)
        }
        plain => match PLAIN_FORMATS.iter().find(|(name, _)| *name == plain) {
            Some((_, format)) => {
                refuse_keys(walk, section, plain, AVRO_KEYS);
                refuse_keys(walk, section, plain, PROTOBUF_KEYS);
                Some(format.clone())
            }
            None => {
                let names: Vec<&str> =
                    PLAIN_FORMATS.iter().map(|(name, _)| *name).chain(["avro", "protobuf"]).collect();
                walk.not_among(section, "format", &text, &names);
                None
            }
        },
    }
}

/// Formats that need nothing but their name.
const PLAIN_FORMATS: &[(&str, Format)] = &[
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("debezium-json", Format::Debezium),
    ("canal-json", Format::Canal),
    ("maxwell-json", Format::Maxwell),
];

/// Keys that go with one format alone.
const AVRO_KEYS: &[&str] = &["schema"];
const PROTOBUF_KEYS: &[&str] = &["descriptor", "message", "framing"];

/// Keys that mean nothing with this format.
fn refuse_keys(walk: &mut Walk<'_>, section: &Section<'_>, format: &str, keys: &[&str]) {
    for key in keys {
        if let Some((name, _)) = section.table.get_key_value(*key) {
            let span = walk.at(name.span());
            walk.error(
                codes::BAD_VALUE,
                span,
                format!("{} has a \"{key}\", but its format is {format}", section.label),
            )
            .help("remove it");
        }
    }
}

/// The primary key of a table that records describe. Its columns are never NULL, all others may be: a delete may tell the key alone.
fn read_key(walk: &mut Walk<'_>, section: &Section<'_>, is_table: bool, columns: &mut [Column]) -> Vec<String> {
    let Some(value) = section.table.get("key") else {
        if is_table {
            walk.missing(section, "key", "key = [\"id\"], the primary key of the table");
        }
        return Vec::new();
    };
    let span = walk.at(value.span());
    if !is_table {
        walk.error(codes::BAD_VALUE, span, format!("{} has a \"key\", but its records are events", section.label))
            .help("remove it, or write kind = \"kafka-upsert\"; formats of changes, such as \"debezium-json\", have a key too");
        return Vec::new();
    }
    let mut key = Vec::new();
    for name in read_names(walk, section, ("key", "the key column"), columns).unwrap_or_default() {
        match columns.iter().find(|column| column.name == name) {
            Some(column) if column.path != [name.clone()] => {
                let message = format!("the key column \"{name}\" of {} has a path", section.label);
                walk.error(codes::BAD_VALUE, span.clone(), message).help("name the column as the table does");
            }
            _ => key.push(name),
        }
    }
    for column in columns {
        column.nullable = !key.contains(&column.name);
    }
    key
}

/// The columns that a list names, as they are declared; `what` they are called in messages. `None` where it is no list
/// of names or empty.
fn read_names(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    (key, what): (&str, &str),
    columns: &[Column],
) -> Option<Vec<String>> {
    let value = section.table.get(key)?;
    let names: Option<Vec<String>> = value.get_ref().as_array().map(|names| {
        let texts = names.iter().map(|name| name.get_ref().as_str().map(str::to_string));
        texts.collect::<Option<Vec<_>>>().unwrap_or_default()
    });
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        walk.wrong_type(&section.label, key, value, "a list of columns, [\"id\"]");
        return None;
    };
    let span = walk.at(value.span());
    let mut found = Vec::new();
    for name in names {
        let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        match columns.iter().find(|column| column.name.eq_ignore_ascii_case(&name)) {
            Some(column) => found.push(column.name.clone()),
            None => {
                let help = match nearest(&name, known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("declared columns: {}", known.join(", ")),
                };
                let message = format!("{what} \"{name}\" is not among the declared columns");
                walk.error(codes::BAD_VALUE, span.clone(), message).help(help);
            }
        }
    }
    Some(found)
}

/// What tells an event that was sent again.
fn read_unique(walk: &mut Walk<'_>, stream: &Section<'_>, is_table: bool, columns: &[Column]) -> Option<Unique> {
    const EXAMPLE: &str = "unique = { columns = [\"order_id\"], within = \"1d\" }";
    let section = walk.section(stream, "unique", format!("\"unique\" of {}", stream.label))?;
    walk.check_keys(&section, &["columns", "within"]);
    for key in ["columns", "within"] {
        if section.table.get(key).is_none() {
            walk.missing(&section, key, EXAMPLE);
        }
    }
    if is_table {
        let message = format!("{} has a \"unique\", but its records are changes of a table", stream.label);
        walk.error(codes::BAD_VALUE, section.span.clone(), message)
            .help("remove it: changes that come twice are one already");
        return None;
    }
    if stream.table.get("time").is_none() {
        let message = format!("{} has a \"unique\", but no \"time\"", stream.label);
        walk.error(codes::EVENT_TIME, section.span.clone(), message)
            .help("say when an event happened: time = { column = \"order_time\", lateness = \"10s\" }");
    }
    let within = walk.duration(&section, "within", Duration::ZERO);
    let columns = read_names(walk, &section, ("columns", "the unique column"), columns);
    Some(Unique { columns: columns?, within: within? })
}

/// The connection's name, and what streams must know of it.
fn read_connection(walk: &mut Walk<'_>, section: &Section<'_>, outline: &Outline) -> Option<(String, Origin)> {
    if section.table.get("connection").is_none() {
        walk.missing(section, "connection", "connection = \"shop\" (a [connection.shop] of tagflow.toml)");
        return None;
    }
    let text = walk.text(section, "connection")?;
    let name = text.value?;
    let Some(connections) = &outline.connections else { return Some((name, Origin::Unknown)) };
    if let Some(origin) = connections.get(&name) {
        return Some((name, *origin));
    }
    let names: Vec<&str> = connections.keys().map(String::as_str).collect();
    let help = match nearest(&name, names.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if names.is_empty() => format!("declare it in tagflow.toml: [connection.{name}]"),
        None => format!("declared connections: {}", names.join(", ")),
    };
    walk.error(codes::UNKNOWN_CONNECTION, text.span, format!("there is no connection \"{name}\" in tagflow.toml"))
        .help(help);
    None
}

/// A topic, or a file below its connection's folder.
fn read_place(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, example: &str, is_file: bool) -> Option<String> {
    if section.table.get(key).is_none() {
        walk.missing(section, key, example);
        return None;
    }
    let text = walk.text(section, key)?;
    let topic = text.value?;
    if topic.trim().is_empty() {
        walk.error(codes::BAD_VALUE, text.span, format!("\"{key}\" in {} is empty", section.label));
        return None;
    }
    if is_file && inside(&topic).is_none() {
        walk.error(
            codes::PATH_OUTSIDE,
            text.span,
            format!("\"{key}\" in {} leaves its connection's folder", section.label),
        )
        .help("write the name of a file or folder in it, without \"..\"");
        return None;
    }
    Some(topic)
}

/// When a partition counts as idle where the schema does not say.
const IDLE: Duration = Duration::from_secs(60);

fn read_time(walk: &mut Walk<'_>, section: &Section<'_>, columns: &[Column]) -> Option<EventTime> {
    if let Some(value) = section.table.get("time")
        && let Some(column) = value.get_ref().as_str()
    {
        let span = walk.at(value.span());
        walk.error(codes::WRONG_TYPE, span, format!("\"time\" in {} must be a table, not a string", section.label))
            .help(format!("write time = {{ column = \"{column}\", lateness = \"10s\" }}"));
        return None;
    }
    let time = walk.section(section, "time", format!("\"time\" of {}", section.label))?;
    walk.check_keys(&time, &["column", "lateness", "idle"]);
    if time.table.get("column").is_none() {
        walk.missing(&time, "column", "time = { column = \"order_time\", lateness = \"10s\" }");
    }
    let lateness = walk.duration(&time, "lateness", Duration::ZERO).unwrap_or(Duration::ZERO);
    let idle = walk.duration(&time, "idle", Duration::from_millis(100)).unwrap_or(IDLE);
    let text = walk.text(&time, "column")?;
    let name = text.value?;
    let declared = section.table.get("columns").and_then(|columns| columns.get_ref().as_table());
    let is_declared =
        declared.is_some_and(|declared| declared.keys().any(|key| key.get_ref().eq_ignore_ascii_case(&name)));
    match columns.iter().find(|column| column.name.eq_ignore_ascii_case(&name)) {
        Some(column) if matches!(column.data_type, DataType::Timestamp(..)) => {
            Some(EventTime { column: column.name.clone(), lateness, idle })
        }
        Some(_) => {
            let message = format!("the event time \"{name}\" of {} is not a TIMESTAMP", section.label);
            walk.error(codes::EVENT_TIME, text.span, message)
                .help(format!("declare it so: {name} = {{ type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }}"));
            None
        }
        // It is declared, and what is wrong with it is said already.
        None if is_declared => None,
        None => {
            let help = match nearest(&name, columns.iter().map(|column| column.name.as_str())) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "name a TIMESTAMP among the columns of the stream".to_owned(),
            };
            let message = format!("the event time \"{name}\" is not among the columns of {}", section.label);
            walk.error(codes::EVENT_TIME, text.span, message).help(help);
            None
        }
    }
}

/// Where reading starts; `None` when that cannot be made out.
/// What becomes of the stream when records are lost, which only a broker does.
fn read_on_lost(walk: &mut Walk<'_>, section: &Section<'_>, origin: Origin) -> Option<OnLost> {
    let Some(value) = section.table.get("on_lost") else { return Some(OnLost::default()) };
    if !matches!(origin, Origin::Kafka { .. } | Origin::Unknown) {
        let span = walk.at(value.span());
        walk.error(codes::BAD_VALUE, span, format!("{} has \"on_lost\", but does not come from Kafka", section.label))
            .help("remove it");
        return None;
    }
    walk.word(section, "on_lost", &[("stop", OnLost::Stop), ("skip", OnLost::Skip)])
}

fn read_start(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Start> {
    let Some(value) = section.table.get("start") else { return Some(Start::default()) };
    let written = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        _ => {
            walk.wrong_type(&section.label, "start", value, "\"earliest\", \"latest\" or a moment");
            return None;
        }
    };
    match written.as_str() {
        "earliest" => return Some(Start::Earliest),
        "latest" => return Some(Start::Latest),
        _ => {}
    }
    if let Ok(moment) = chrono::DateTime::parse_from_rfc3339(&written) {
        return Some(Start::Timestamp(moment.timestamp_millis()));
    }
    let help = match nearest(&written, ["earliest", "latest"]) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "write \"earliest\", \"latest\", or a moment with its offset: \"2026-01-31T00:00:00+08:00\"".to_owned(),
    };
    let span = walk.at(value.span());
    walk.error(codes::BAD_VALUE, span, format!("\"{written}\" is not where a stream can start")).help(help);
    None
}
