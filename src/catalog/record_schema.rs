//! Files that say what the records of a stream are made of: Avro schemas and Protobuf descriptors.
//!
//! Enters: the keys of a schema file, and the bytes of the files that they name. Leaves: a [`Format`], or diagnostics;
//! and one for each column that the records do not have, as far as that can be known here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::DeTable;

use super::avro::AvroSchema;
use super::load::FOLDER;
use super::protobuf::{Descriptor, Framing, ProtoKind, ProtobufFormat};
use super::{Column, Format};
use crate::config::Origin;
use crate::diagnostic::{codes, nearest};
use crate::inside::inside;
use crate::toml_walk::{Section, Walk};

/// What the files hold that schema files name, or why they cannot be read, by their paths below the root.
pub(crate) type Attached = BTreeMap<PathBuf, Result<Vec<u8>, String>>;

/// Keys of a schema file that name a file of the project.
const FILE_KEYS: &[&str] = &["schema", "descriptor"];

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

/// The format of a stream of Protobuf.
pub(super) fn read_protobuf(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    connection: Option<&(String, Origin)>,
    attached: &Attached,
) -> Option<Format> {
    needs_kafka(walk, section, connection, "protobuf")?;
    for (key, example) in [
        ("descriptor", "descriptor = \"schemas/shop.desc\" (protoc --include_imports --descriptor_set_out=…)"),
        ("message", "message = \"shop.Order\""),
    ] {
        if section.table.get(key).is_none() {
            walk.missing(section, key, example);
        }
    }
    let framing = match section.table.get("framing") {
        Some(_) => walk.word(section, "framing", &[("none", Framing::None), ("confluent", Framing::Confluent)]),
        None => Some(Framing::default()),
    };
    let name = walk.text(section, "message");
    let (bytes, span) = read_attached(walk, section, "descriptor", attached)?;
    let descriptor = match Descriptor::parse(bytes) {
        Ok(descriptor) => descriptor,
        Err(reason) => {
            let message = format!("the \"descriptor\" of {} cannot be used: {reason}", section.label);
            walk.error(codes::RECORD_SCHEMA, span, message)
                .help("write it by: protoc --include_imports --descriptor_set_out=FILE …");
            return None;
        }
    };
    let name = name?;
    let Some(message) = descriptor.message(&name.raw) else {
        let names = descriptor.messages.iter().filter(|message| !message.is_entry);
        let names: Vec<&str> = names.map(|message| message.name.as_str()).collect();
        let help = match nearest(&name.raw, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("messages there: {}", names.join(", ")),
        };
        let message = format!("the descriptor of {} has no message \"{}\"", section.label, name.raw);
        walk.error(codes::RECORD_SCHEMA, name.span, message).help(help);
        return None;
    };
    Some(Format::Protobuf(Arc::new(ProtobufFormat { descriptor: Arc::new(descriptor), message, framing: framing? })))
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
    for column in columns {
        let missing = match format {
            Format::Avro(Some(schema)) => missing_in_avro(schema, &column.path),
            Format::Protobuf(format) => missing_in_protobuf(format, &column.path),
            _ => None,
        };
        if let Some((depth, known)) = missing {
            no_such_field(walk, section, column, &column.path[..depth], &column.path[depth], &known);
        }
    }
}

/// How much of a path there is, and the fields that may follow it; `None` when there is all of it.
fn missing_in_avro<'s>(schema: &'s AvroSchema, path: &[String]) -> Option<(usize, Vec<&'s str>)> {
    let mut places = vec![schema.root()];
    for (depth, name) in path.iter().enumerate() {
        let found = schema.below(&places, name);
        if found.is_empty() {
            return Some((depth, schema.names(&places)));
        }
        places = found;
    }
    None
}

fn missing_in_protobuf<'s>(format: &'s ProtobufFormat, path: &[String]) -> Option<(usize, Vec<&'s str>)> {
    let messages = &format.descriptor.messages;
    let mut at = Some(format.message);
    for (depth, name) in path.iter().enumerate() {
        let Some(message) = at.map(|at| &messages[at]) else { return Some((depth, Vec::new())) };
        // Any key may be in a map.
        let name = if message.is_entry { "value" } else { name };
        let Some(field) = message.field(name) else {
            return Some((depth, message.fields.iter().map(|field| field.name.as_str()).collect()));
        };
        at = match field.kind {
            ProtoKind::Message(of) | ProtoKind::Group(of) if !field.is_repeated || messages[of].is_entry => Some(of),
            _ => None,
        };
    }
    None
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
        None if known.is_empty() => "end the path before it: what stands there holds no fields of its own".to_owned(),
        None => format!("fields there: {}", known.join(", ")),
    };
    let message = format!("the column \"{}\": no field \"{name}\" in {place}", column.name);
    walk.error(codes::NO_SUCH_FIELD, span, message).help(help);
}
