//! Files that say what the records of a stream are made of: Avro schemas.
//!
//! Enters: the keys of a schema file, and the bytes of the files that they name. Leaves: a [`Format`], or diagnostics;
//! and one for each column that the records do not have, as far as that can be known here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::avro::AvroSchema;
use super::load::FOLDER;
use super::{Column, Format};
use crate::config::Origin;
use crate::diagnostic::{codes, nearest};
use crate::toml_walk::{Section, Walk};

/// What the files hold that schema files name, or why they cannot be read, by their paths below the root.
pub(crate) type Attached = BTreeMap<PathBuf, Result<Vec<u8>, String>>;

/// Keys of a schema file that name a file of the project.
const FILE_KEYS: &[&str] = &["schema"];

/// The files that schema files name, as far as they can be made out and lie in the project.
pub(crate) fn files_named(sources: &BTreeMap<PathBuf, String>) -> BTreeSet<PathBuf> {
    let schemas = sources.iter().filter(|(file, _)| file.starts_with(FOLDER));
    let streams = schemas.filter(|(file, _)| file.extension().is_some_and(|extension| extension == "toml"));
    let mut named = BTreeSet::new();
    for (_, text) in streams {
        let (table, _) = DeTable::parse_recoverable(text);
        let values = FILE_KEYS.iter().filter_map(|key| table.get_ref().get(*key));
        named.extend(values.filter_map(|value| inside(value.get_ref().as_str()?)));
    }
    named
}

/// A path that does not leave the folder that it is relative to.
fn inside(path: &str) -> Option<PathBuf> {
    let stays = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let path = Path::new(path);
    let is_inside = path.components().all(|part| stays(&part)) && path.file_name().is_some();
    // Without the dots, so that one file has one name.
    is_inside.then(|| path.components().filter(|part| *part != Component::CurDir).collect())
}

/// The format of a stream of Avro, whose schema is in a file or in a registry.
pub(super) fn read_avro(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    connection: Option<&(String, Origin)>,
    attached: &Attached,
) -> Option<Format> {
    needs_kafka(walk, section, connection, "avro")?;
    if section.table.get("schema").is_some() {
        let (bytes, span) = read_attached(walk, section, "schema", attached)?;
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned());
        return match text.and_then(|text| AvroSchema::parse(&[text])) {
            Ok(schema) => Some(Format::Avro(Some(Arc::new(schema)))),
            Err(reason) => {
                let message = format!("the \"schema\" of {} is not an Avro schema: {reason}", section.label);
                walk.error(codes::RECORD_SCHEMA, span, message)
                    .help("write the schema of the topic's records, as JSON, into the file");
                None
            }
        };
    }
    if let Some((name, Origin::Kafka { has_registry: false })) = connection {
        let place = section.table.get("format").map(|value| walk.at(value.span()));
        let message = format!("{} is avro, but nothing says where its schemas are", section.label);
        walk.error(codes::RECORD_SCHEMA, place, message).help(format!(
            "add registry = \"http://HOST:8081\" to [connection.{name}] in tagflow.toml, or schema = \"schemas/FILE.avsc\" here"
        ));
        return None;
    }
    Some(Format::Avro(None))
}

/// Binary records are a topic's: the lines of a file cannot hold them, and the generator makes none.
fn needs_kafka(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    connection: Option<&(String, Origin)>,
    format: &str,
) -> Option<()> {
    let kind = match connection {
        Some((_, Origin::File)) => "file",
        Some((_, Origin::Generator)) => "generator",
        _ => return Some(()),
    };
    let place = section.table.get("format").map(|value| walk.at(value.span()));
    let message = format!("{} is {format}, but its connection is of type \"{kind}\"", section.label);
    walk.error(codes::BAD_VALUE, place, message).help("read it from a connection of type \"kafka\"");
    None
}

/// The bytes of the file under `key`, and where it is named.
fn read_attached<'f>(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    key: &str,
    attached: &'f Attached,
) -> Option<(&'f [u8], Range<usize>)> {
    let text = walk.text(section, key)?;
    let Some(path) = inside(&text.raw) else {
        let message = format!("\"{key}\" in {} leaves the project's folder", section.label);
        walk.error(codes::PATH_OUTSIDE, text.span, message)
            .help("write a path below the folder of tagflow.toml, without \"..\"");
        return None;
    };
    match attached.get(&path) {
        Some(Ok(bytes)) => Some((bytes, text.span)),
        Some(Err(reason)) => {
            let message = format!("cannot read the file \"{}\": {reason}", text.raw);
            walk.error(codes::RECORD_SCHEMA, text.span, message).help("the path begins in the folder of tagflow.toml");
            None
        }
        // Only files of TOML that could be parsed name others.
        None => None,
    }
}

/// Refuses columns that no record can have.
pub(super) fn check_fields(walk: &mut Walk<'_>, section: &Section<'_>, format: &Format, columns: &[Column]) {
    let Format::Avro(Some(schema)) = format else { return };
    for column in columns {
        let mut places = vec![schema.root()];
        for (depth, name) in column.path.iter().enumerate() {
            let found = schema.below(&places, name);
            if found.is_empty() {
                let names = schema.names(&places);
                no_such_field(walk, section, column, &column.path[..depth], name, &names);
                break;
            }
            places = found;
        }
    }
}

fn no_such_field(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    column: &Column,
    path: &[String],
    name: &str,
    known: &[&str],
) {
    let written = section.table.get("columns").and_then(|columns| columns.get_ref().as_table());
    let entry = written.and_then(|columns| columns.get_key_value(column.name.as_str()));
    let path_value = entry.and_then(|(_, value)| value.get_ref().as_table()?.get("path"));
    let span = path_value.map(|value| value.span()).or_else(|| entry.map(|(key, _)| key.span()));
    let span = span.map(|span| walk.at(span));
    let place = match path {
        [] => format!("the records of {}", section.label),
        path => format!("\"$.{}\" in the records of {}", path.join("."), section.label),
    };
    let help = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if known.is_empty() => "end the path there: it holds no fields".to_owned(),
        None => format!("fields there: {}", known.join(", ")),
    };
    let message = format!("the column \"{}\": no field \"{name}\" in {place}", column.name);
    walk.error(codes::NO_SUCH_FIELD, span, message).help(help);
}
