//! `kind` of a schema file, and what goes with each.

use std::time::Duration;

use super::{Column, Format, Kind, Polls, TimestampFormat};
use crate::config::Origin;
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Walk};

/// How often changed rows are asked for, unless the schema says otherwise.
const POLL: Duration = Duration::from_secs(5);
/// How often a whole table is read, unless the schema says otherwise.
const RESYNC: Duration = Duration::from_secs(600);

/// What the records are to each other.
pub(super) fn read_kind(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Kind> {
    if section.table.get("kind").is_none() {
        return Some(Kind::default());
    }
    let mut kind = walk.text(section, "kind")?;
    let known = [Kind::Upserts, Kind::File, Kind::Mysql { polls: None, resync: RESYNC }];
    let Some(found) = known.iter().find(|known| Some(known.word()) == kind.value.as_deref()) else {
        kind.value = None;
        walk.not_among(section, "kind", &kind, &known.each_ref().map(Kind::word));
        return None;
    };
    if !matches!(found, Kind::Mysql { .. }) {
        return Some(found.clone());
    }
    let polls = match walk.section(section, "changes", format!("\"changes\" of {}", section.label)) {
        None => None,
        Some(changes) => {
            walk.check_keys(&changes, &["column", "every"]);
            if changes.table.get("column").is_none() {
                walk.missing(&changes, "column", "changes = { column = \"updated_at\", every = \"5s\" }");
            }
            let every = walk.duration(&changes, "every", Duration::from_millis(100)).unwrap_or(POLL);
            walk.string(&changes, "column").map(|column| Polls { column, every })
        }
    };
    let resync = walk.duration(section, "resync", Duration::from_secs(1)).unwrap_or(RESYNC);
    Some(Kind::Mysql { polls, resync })
}

/// Not everything can be had from everywhere.
pub(super) fn check_connection(walk: &mut Walk<'_>, section: &Section<'_>, kind: &Kind, origin: Origin) {
    let (reason, wanted) = match (kind, origin) {
        (Kind::Upserts, Origin::File) => ("lines of a file have no keys", "kafka"),
        (Kind::File, Origin::Kafka { .. } | Origin::Mysql | Origin::Generator) => {
            ("its connection has no files", "file")
        }
        (Kind::Mysql { .. }, Origin::Kafka { .. } | Origin::File | Origin::Generator) => {
            ("its connection has no tables", "mysql")
        }
        (Kind::Records | Kind::Upserts, Origin::Mysql) => ("a database has no topics", "kafka"),
        _ => return,
    };
    let span = section.table.get("connection").map(|value| walk.at(value.span()));
    let what = match kind {
        Kind::Records => format!("{} is of records", section.label),
        kind => format!("{} is of kind \"{}\"", section.label, kind.word()),
    };
    let help = match origin {
        Origin::Mysql => "write kind = \"mysql\", or name a connection of type \"kafka\"".to_string(),
        _ => format!("name a connection of type \"{wanted}\""),
    };
    walk.error(codes::BAD_VALUE, span, format!("{what}, but {reason}")).help(help);
}

/// How a table's file is written.
pub(super) fn read_file_format(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Format> {
    if section.table.get("format").is_none() {
        walk.missing(section, "format", "format = \"csv\" (or \"json\", \"parquet\")");
        return None;
    }
    let formats = [("csv", Format::Csv), ("json", Format::Json), ("parquet", Format::Parquet)];
    let names = formats.each_ref().map(|(name, format)| (*name, format));
    walk.word(section, "format", &names).cloned()
}

/// A table of a database, alone or with the database's name before it.
pub(super) fn read_table(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    if section.table.get("table").is_none() {
        walk.missing(section, "table", "table = \"crm.users\"");
        return None;
    }
    let text = walk.text(section, "table")?;
    let table = text.value?;
    if table.split('.').count() > 2 || table.split('.').any(|part| part.trim().is_empty()) {
        walk.error(codes::BAD_VALUE, text.span, format!("\"{}\" is not the name of a table", text.raw))
            .help("write the table, or the database and the table: \"crm.users\"");
        return None;
    }
    Some(table)
}

/// The key of a table outside is written down when its row goes: a time as its text, and never as a number.
pub(super) fn check_key_formats(walk: &mut Walk<'_>, section: &Section<'_>, key: &[String], columns: &[Column]) {
    let numbered = |column: &&Column| column.timestamp_format != TimestampFormat::Iso && key.contains(&column.name);
    for column in columns.iter().filter(numbered) {
        let span = section.table.get("key").map(|value| walk.at(value.span()));
        let message = format!("the key column \"{}\" of {} has a \"format\"", column.name, section.label);
        walk.error(codes::BAD_VALUE, span, message).help("declare it as BIGINT, and make a time of it in SQL");
    }
}
