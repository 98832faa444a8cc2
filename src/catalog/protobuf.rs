//! Protobuf descriptors: a `FileDescriptorSet` → messages and enums that name each other by number.
//!
//! Enters: what `protoc --include_imports --descriptor_set_out=FILE` writes. Leaves: a [`Descriptor`] whose types are
//! all known, or what is wrong. The set is read by hand: it is Protobuf itself, and little of it is wanted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::place_of_name;
use crate::byte_cursor::{Cursor, Malformed, text};

/// How records of Protobuf are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtobufFormat {
    /// The types.
    pub descriptor: Arc<Descriptor>,
    /// The message that a record is.
    pub message: usize,
    /// What stands before it.
    pub framing: Framing,
}

/// What stands before the message of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Nothing.
    #[default]
    None,
    /// What Confluent's serializers write: a zero byte, the id of the schema, the message's place in its file.
    Confluent,
}

/// The messages and enums of a descriptor set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// All messages, those within others too.
    pub messages: Vec<ProtoMessage>,
    /// Names of each enum's values, by their numbers; where several share one, the first.
    pub enums: Vec<BTreeMap<i32, String>>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtoMessage {
    /// Its name with its package, without a dot before it.
    pub name: String,
    /// Its place in its file: of the message, of one within that, and so on.
    pub place: Vec<i64>,
    /// In the order of their numbers.
    pub fields: Vec<ProtoField>,
    /// It is the pair of key and value of a map.
    pub is_entry: bool,
}

/// A field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtoField {
    /// Its name.
    pub name: String,
    /// What JSON calls it.
    pub json_name: String,
    /// Its number in records.
    pub number: u32,
    /// What it holds.
    pub kind: ProtoKind,
    /// It may come any number of times.
    pub is_repeated: bool,
    /// Whether it is there can be told from its default.
    pub has_presence: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtoKind {
    /// `double`
    Double,
    /// `float`
    Float,
    /// `int64`, and `int32`, which is written alike.
    Int,
    /// `uint64` and `uint32`
    Unsigned,
    /// `sint64` and `sint32`
    Zigzag,
    /// `fixed32`
    Fixed32,
    /// `fixed64`
    Fixed64,
    /// `sfixed32`
    Sfixed32,
    /// `sfixed64`
    Sfixed64,
    /// `bool`
    Bool,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// An enum by its number.
    Enum(usize),
    /// A message by its number.
    Message(usize),
    /// A message between two marks instead of behind its length.
    Group(usize),
}

impl Descriptor {
    /// Reads a `FileDescriptorSet`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Descriptor, String> {
        let mut reading = Reading::default();
        each_field(bytes, |number, value| match (number, value) {
            (1, Raw::Bytes(file)) => reading.file(file),
            _ => Ok(()),
        })
        .map_err(|malformed| format!("not a FileDescriptorSet: {malformed}"))?;
        reading.finish()
    }

    /// The number of the message of that name.
    pub fn message(&self, name: &str) -> Option<usize> {
        self.messages.iter().position(|message| message.name == name)
    }
}

impl ProtoMessage {
    /// The field that a column or path calls by `name`: by its own name, by that of JSON, or by either whatever its case.
    pub fn field(&self, name: &str) -> Option<&ProtoField> {
        let count = self.fields.len();
        let names = self.fields.iter().map(|field| field.name.as_str());
        let names = names.chain(self.fields.iter().map(|field| field.json_name.as_str()));
        place_of_name(names, name).map(|place| &self.fields[place % count])
    }
}

/// A field's value as it is written.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Calls `take` with every field of a message. What descriptors do not have is passed over.
fn each_field<'a>(
    bytes: &'a [u8],
    mut take: impl FnMut(u64, Raw<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_at_end() {
        let tag = cursor.varint()?;
        let value = match tag & 7 {
            0 => Raw::Number(cursor.varint()?),
            2 => {
                let length = cursor.varint()?;
                Raw::Bytes(cursor.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            1 => {
                cursor.take(8)?;
                continue;
            }
            5 => {
                cursor.take(4)?;
                continue;
            }
            _ => return cursor.malformed("a group"),
        };
        take(tag >> 3, value)?;
    }
    Ok(())
}

/// How the fields of a file are read where they do not say otherwise: the features of its syntax or edition.
#[derive(Debug, Clone, Copy, Default)]
struct Features {
    /// Single fields without a message in them are there even when they are not written.
    implicit_presence: bool,
    /// Messages stand between two marks.
    delimited: bool,
}

impl Features {
    /// What a `FeatureSet` changes.
    fn with(mut self, set: &[u8]) -> Result<Self, Malformed> {
        each_field(set, |number, value| {
            match (number, value) {
                (1, Raw::Number(presence)) => self.implicit_presence = presence == 2,
                (5, Raw::Number(encoding)) => self.delimited = encoding == 2,
                _ => {}
            }
            Ok(())
        })?;
        Ok(self)
    }

    /// What the options of a file, message or field change; `number` is that of their features.
    fn with_options(self, options: &[u8], number: u64) -> Result<Self, Malformed> {
        let mut features = self;
        each_field(options, |found, value| {
            if let (true, Raw::Bytes(set)) = (found == number, value) {
                features = features.with(set)?;
            }
            Ok(())
        })?;
        Ok(features)
    }
}

/// A field whose type is known by its name so far.
struct Unresolved {
    message: usize,
    field: ProtoField,
    type_name: String,
    is_delimited: bool,
}

/// Where a message or enum stands.
struct Scope<'s> {
    /// The names around it, each with a dot behind it.
    prefix: &'s str,
    place: Vec<i64>,
    features: Features,
    depth: usize,
}

/// Messages within messages; protoc allows fewer.
const DEEPEST: usize = 64;

/// A set being read.
#[derive(Default)]
struct Reading {
    found: Descriptor,
    enum_names: Vec<String>,
    fields: Vec<Unresolved>,
}

impl Reading {
    fn file(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let (mut package, mut syntax) = ("", "proto2");
        let mut options: &[u8] = &[];
        each_field(bytes, |number, value| {
            match (number, value) {
                (2, Raw::Bytes(name)) => package = text(name, 0)?,
                (8, Raw::Bytes(set)) => options = set,
                (12, Raw::Bytes(name)) => syntax = text(name, 0)?,
                _ => {}
            }
            Ok(())
        })?;
        let features =
            Features { implicit_presence: syntax == "proto3", delimited: false }.with_options(options, 50)?;
        let prefix = if package.is_empty() { String::new() } else { format!("{package}.") };
        let mut count = 0;
        each_field(bytes, |number, value| {
            match (number, value) {
                (4, Raw::Bytes(message)) => {
                    self.message(message, Scope { prefix: &prefix, place: vec![count], features, depth: 0 })?;
                    count += 1;
                }
                (5, Raw::Bytes(values)) => self.enumeration(values, &prefix)?,
                _ => {}
            }
            Ok(())
        })
    }

    fn message(&mut self, bytes: &[u8], scope: Scope<'_>) -> Result<(), Malformed> {
        if scope.depth > DEEPEST {
            return Cursor::new(bytes).malformed("messages nested too deeply");
        }
        let mut name = "";
        let mut features = scope.features;
        let mut is_entry = false;
        each_field(bytes, |number, value| {
            match (number, value) {
                (1, Raw::Bytes(found)) => name = text(found, 0)?,
                (7, Raw::Bytes(options)) => {
                    features = features.with_options(options, 12)?;
                    each_field(options, |number, value| {
                        is_entry |= matches!((number, value), (7, Raw::Number(1)));
                        Ok(())
                    })?;
                }
                _ => {}
            }
            Ok(())
        })?;
        let index = self.found.messages.len();
        let full = format!("{}{name}", scope.prefix);
        let prefix = format!("{full}.");
        let place = scope.place.clone();
        self.found.messages.push(ProtoMessage { name: full, place, fields: Vec::new(), is_entry });
        let mut count = 0;
        each_field(bytes, |number, value| {
            match (number, value) {
                (2, Raw::Bytes(field)) => self.field(field, index, features)?,
                (3, Raw::Bytes(inner)) => {
                    let place = scope.place.iter().copied().chain([count]).collect();
                    self.message(inner, Scope { prefix: &prefix, place, features, depth: scope.depth + 1 })?;
                    count += 1;
                }
                (4, Raw::Bytes(values)) => self.enumeration(values, &prefix)?,
                _ => {}
            }
            Ok(())
        })
    }

    fn enumeration(&mut self, bytes: &[u8], prefix: &str) -> Result<(), Malformed> {
        let mut name = "";
        let mut values = BTreeMap::new();
        each_field(bytes, |number, value| {
            match (number, value) {
                (1, Raw::Bytes(found)) => name = text(found, 0)?,
                (2, Raw::Bytes(value)) => {
                    let (mut name, mut value_number) = ("", 0);
                    each_field(value, |number, value| {
                        match (number, value) {
                            (1, Raw::Bytes(found)) => name = text(found, 0)?,
                            // Negative numbers are written with 64 bits.
                            (2, Raw::Number(found)) => value_number = found as i32,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    values.entry(value_number).or_insert_with(|| name.to_owned());
                }
                _ => {}
            }
            Ok(())
        })?;
        self.enum_names.push(format!("{prefix}{name}"));
        self.found.enums.push(values);
        Ok(())
    }

    fn field(&mut self, bytes: &[u8], message: usize, features: Features) -> Result<(), Malformed> {
        let (mut name, mut json_name, mut type_name) = ("", "", "");
        let (mut number, mut label, mut kind) = (0, 1, 0);
        let (mut in_oneof, mut features) = (false, features);
        each_field(bytes, |found, value| {
            match (found, value) {
                (1, Raw::Bytes(text_of)) => name = text(text_of, 0)?,
                (3, Raw::Number(value)) => number = value,
                (4, Raw::Number(value)) => label = value,
                (5, Raw::Number(value)) => kind = value,
                (6, Raw::Bytes(text_of)) => type_name = text(text_of, 0)?,
                (8, Raw::Bytes(options)) => features = features.with_options(options, 21)?,
                // An optional field of proto3 is in a oneof of its own.
                (9, Raw::Number(_)) => in_oneof = true,
                (10, Raw::Bytes(text_of)) => json_name = text(text_of, 0)?,
                _ => {}
            }
            Ok(())
        })?;
        let kind = match kind {
            1 => ProtoKind::Double,
            2 => ProtoKind::Float,
            3 | 5 => ProtoKind::Int,
            4 | 13 => ProtoKind::Unsigned,
            6 => ProtoKind::Fixed64,
            7 => ProtoKind::Fixed32,
            8 => ProtoKind::Bool,
            9 => ProtoKind::String,
            10 => ProtoKind::Group(0),
            11 => ProtoKind::Message(0),
            12 => ProtoKind::Bytes,
            14 => ProtoKind::Enum(0),
            15 => ProtoKind::Sfixed32,
            16 => ProtoKind::Sfixed64,
            17 | 18 => ProtoKind::Zigzag,
            _ => return Cursor::new(bytes).malformed("a field of an unknown type"),
        };
        let Some(number) = u32::try_from(number).ok().filter(|number| *number > 0) else {
            return Cursor::new(bytes).malformed("a field without a number");
        };
        let is_message = matches!(kind, ProtoKind::Message(_) | ProtoKind::Group(_));
        let field = ProtoField {
            name: name.to_owned(),
            json_name: if json_name.is_empty() { name } else { json_name }.to_owned(),
            number,
            kind,
            is_repeated: label == 3,
            has_presence: is_message || in_oneof || !features.implicit_presence,
        };
        let type_name = type_name.trim_start_matches('.').to_owned();
        self.fields.push(Unresolved { message, field, type_name, is_delimited: features.delimited });
        Ok(())
    }

    /// Gives every field its type.
    fn finish(mut self) -> Result<Descriptor, String> {
        let mut known = HashMap::new();
        for (index, message) in self.found.messages.iter().enumerate() {
            if known.insert(message.name.as_str(), index).is_some() {
                return Err(format!("the message {:?} is there twice", message.name));
            }
        }
        let enums: HashMap<&str, usize> =
            self.enum_names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
        let mut fields = Vec::with_capacity(self.fields.len());
        for Unresolved { message, mut field, type_name, is_delimited } in self.fields {
            let unknown = || format!("the type {type_name:?} of the field {:?} is not in the set", field.name);
            field.kind = match field.kind {
                ProtoKind::Enum(_) => ProtoKind::Enum(*enums.get(type_name.as_str()).ok_or_else(unknown)?),
                ProtoKind::Message(_) | ProtoKind::Group(_) => {
                    let of = *known.get(type_name.as_str()).ok_or_else(unknown)?;
                    let is_group = matches!(field.kind, ProtoKind::Group(_)) || is_delimited;
                    // Maps are not delimited, whatever their file says.
                    if is_group && !self.found.messages[of].is_entry {
                        ProtoKind::Group(of)
                    } else {
                        ProtoKind::Message(of)
                    }
                }
                other => other,
            };
            fields.push((message, field));
        }
        for (message, field) in fields {
            self.found.messages[message].fields.push(field);
        }
        for message in &mut self.found.messages {
            message.fields.sort_by_key(|field| field.number);
        }
        Ok(self.found)
    }
}
