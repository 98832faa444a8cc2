//! Protobuf: one message, as its descriptor says.
//!
//! The columns' values are collected while the message is walked once, since a field may come again: the last value
//! holds, lists grow, messages are merged. Fields that the descriptor does not know are stepped over; one that is
//! written otherwise than the descriptor says is an error of the record. Lengths are not believed before their bytes
//! are there, and what takes no bytes is counted.

use std::borrow::Cow;
use std::sync::Arc;

use super::avro_records::split_confluent;
use super::column::Value;
use super::scan::MAX_DEPTH;
use super::time::Moment;
use super::tree::{Tree, emptied, put, shown};
use super::wanted::Wanted;
use super::{DecodeError, RawRecord, RowBuilder};
use crate::byte_cursor::{Cursor, Malformed, text, unzigzag};
use crate::catalog::{Descriptor, Framing, ProtoField, ProtoKind, ProtobufFormat, Stream};

/// Values that a record may have beyond those that its bytes pay for.
const FREE_VALUES: usize = 1 << 16;
/// Values that a byte pays for: a message has all its fields, though few are written.
const VALUES_A_BYTE: usize = 4;

/// Reads the records of a stream of Protobuf.
pub(super) struct ProtobufRecords {
    format: Arc<ProtobufFormat>,
    /// Of each message of the descriptor, whether it means more than its fields.
    meanings: Vec<Meaning>,
    /// What is wanted of the message's fields.
    targets: Vec<Option<Target>>,
    /// How many declared columns there are.
    width: usize,
    /// Room for the values of a record.
    slots: Vec<Tree<'static>>,
}

/// What is wanted of a field.
#[derive(Debug)]
struct Target {
    slots: Vec<usize>,
    below: Vec<usize>,
    /// Of a message, what is wanted of its fields.
    fields: Vec<Option<Target>>,
    /// Of a map, the wanted keys, and what is wanted of the pairs that have them.
    keys: Vec<(String, Vec<Option<Target>>)>,
}

/// What a message stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Its fields.
    Fields,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// `google.protobuf.Int64Value` and its like: a value that may be missing.
    Wrapper,
}

fn meaning(name: &str) -> Meaning {
    match name.strip_prefix("google.protobuf.") {
        Some("Timestamp") => Meaning::Timestamp,
        Some(
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
            | "StringValue" | "BytesValue",
        ) => Meaning::Wrapper,
        _ => Meaning::Fields,
    }
}

fn is_map(descriptor: &Descriptor, field: &ProtoField) -> bool {
    matches!(field.kind, ProtoKind::Message(of) if field.is_repeated && descriptor.messages[of].is_entry)
}

/// What is wanted of the fields of message `of`.
fn targets(descriptor: &Descriptor, of: usize, wanted: &Wanted) -> Vec<Option<Target>> {
    let message = &descriptor.messages[of];
    let mut targets: Vec<Option<Target>> = message.fields.iter().map(|_| None).collect();
    for (name, child) in &wanted.children {
        let Some(field) = message.field(name) else { continue };
        let Ok(place) = message.fields.binary_search_by_key(&field.number, |field| field.number) else { continue };
        let target = targets[place].get_or_insert_with(|| Target {
            slots: Vec::new(),
            below: Vec::new(),
            fields: Vec::new(),
            keys: Vec::new(),
        });
        target.slots.extend(&child.slots);
        target.below.extend(&child.below);
        if child.children.is_empty() {
            continue;
        }
        match field.kind {
            ProtoKind::Message(entry) if is_map(descriptor, field) => {
                for (key, value) in &child.children {
                    let value = Wanted {
                        slots: Vec::new(),
                        below: value.slots.iter().chain(&value.below).copied().collect(),
                        children: vec![("value".to_owned(), value.clone())],
                    };
                    target.keys.push((key.clone(), self::targets(descriptor, entry, &value)));
                }
            }
            ProtoKind::Message(inner) | ProtoKind::Group(inner) if !field.is_repeated => {
                merge(&mut target.fields, self::targets(descriptor, inner, child));
            }
            _ => {}
        }
    }
    targets
}

/// Adds what is wanted by a path that spells the same field otherwise.
fn merge(known: &mut Vec<Option<Target>>, more: Vec<Option<Target>>) {
    if known.is_empty() {
        *known = more;
        return;
    }
    for (known, more) in known.iter_mut().zip(more) {
        match (known, more) {
            (Some(known), Some(more)) => {
                known.slots.extend(more.slots);
                known.below.extend(more.below);
                known.keys.extend(more.keys);
                merge(&mut known.fields, more.fields);
            }
            (known, Some(more)) => *known = Some(more),
            (_, None) => {}
        }
    }
}

impl ProtobufRecords {
    pub(super) fn new(stream: &Stream, format: &Arc<ProtobufFormat>, rows: &RowBuilder) -> Self {
        let descriptor = &format.descriptor;
        ProtobufRecords {
            meanings: descriptor.messages.iter().map(|message| meaning(&message.name)).collect(),
            targets: targets(descriptor, format.message, &Wanted::new(stream, rows)),
            format: Arc::clone(format),
            width: stream.columns.len(),
            slots: Vec::new(),
        }
    }

    /// Adds the row of one record.
    #[inline]
    pub(super) fn append(
        &mut self,
        record: &RawRecord<'_>,
        payload: &[u8],
        rows: &mut RowBuilder,
    ) -> Result<(), DecodeError> {
        let not_protobuf = |malformed: Malformed| DecodeError(format!("not Protobuf of its message: {malformed}"));
        let mut bytes = Cursor::new(payload);
        if self.format.framing == Framing::Confluent {
            let (_, value) = split_confluent(payload)?;
            bytes = Cursor::new(value);
            let place = read_place(&mut bytes).map_err(not_protobuf)?;
            let message = &self.format.descriptor.messages[self.format.message];
            if place != message.place {
                let (name, wanted) = (&message.name, &message.place);
                return Err(DecodeError(format!(
                    "the record is the message at {place:?} of its file; {name} is at {wanted:?}"
                )));
            }
        }
        let mut slots = emptied(std::mem::take(&mut self.slots));
        slots.resize(self.width, Tree::MISSING);
        let mut walk = Walk {
            descriptor: &self.format.descriptor,
            meanings: &self.meanings,
            slots: &mut slots,
            budget: payload.len().saturating_mul(VALUES_A_BYTE) + FREE_VALUES,
        };
        let outcome = walk
            .message(&mut bytes, self.format.message, &self.targets, None, 0)
            .map_err(not_protobuf)
            .and_then(|()| rows.append(record, |slot| slots[slot].value()));
        self.slots = emptied(slots);
        outcome
    }
}

/// Which message of its file a record is, as Confluent's serializers write it before the message.
fn read_place(bytes: &mut Cursor<'_>) -> Result<Vec<i64>, Malformed> {
    let count = bytes.zigzag()?;
    if count == 0 {
        return Ok(vec![0]);
    }
    if !usize::try_from(count).is_ok_and(|count| count <= MAX_DEPTH) {
        return bytes.malformed("a place of the message in its file that none can have");
    }
    (0..count).map(|_| bytes.zigzag()).collect()
}

/// One record being read.
struct Walk<'a, 's> {
    descriptor: &'a Descriptor,
    meanings: &'a [Meaning],
    slots: &'s mut [Tree<'a>],
    /// Values that may still come: what has no bytes could go on for ever.
    budget: usize,
}

/// A field's number, and how it is written.
#[derive(Debug, Clone, Copy)]
struct Tag {
    number: u32,
    wire: u8,
}

const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const SIZED: u8 = 2;
const GROUP: u8 = 3;
const END_OF_GROUP: u8 = 4;
const FOUR_BYTES: u8 = 5;

/// The next field's tag; `None` at the end of the message, which for a group is its mark.
#[inline]
fn next_tag(bytes: &mut Cursor<'_>, group: Option<u32>) -> Result<Option<Tag>, Malformed> {
    if bytes.is_at_end() {
        return if group.is_none() { Ok(None) } else { bytes.malformed("too few bytes") };
    }
    let tag = bytes.varint()?;
    let (Ok(number), wire) = (u32::try_from(tag >> 3), (tag & 7) as u8) else {
        return bytes.malformed("a field's number that is too large");
    };
    match (number, wire) {
        (0, _) => bytes.malformed("a field without a number"),
        (_, END_OF_GROUP) if group == Some(number) => Ok(None),
        (_, END_OF_GROUP) => bytes.malformed("the end of a group that was not begun"),
        (_, VARINT | EIGHT_BYTES | SIZED | GROUP | FOUR_BYTES) => Ok(Some(Tag { number, wire })),
        _ => bytes.malformed("a wire type that is none"),
    }
}

#[inline]
fn sized<'a>(bytes: &mut Cursor<'a>) -> Result<Cursor<'a>, Malformed> {
    let length = bytes.varint()?;
    bytes.split(usize::try_from(length).unwrap_or(usize::MAX))
}

fn skip(bytes: &mut Cursor<'_>, tag: Tag, depth: usize) -> Result<(), Malformed> {
    match tag.wire {
        VARINT => bytes.varint().map(|_| ()),
        EIGHT_BYTES => bytes.take(8).map(|_| ()),
        SIZED => sized(bytes).map(|_| ()),
        FOUR_BYTES => bytes.take(4).map(|_| ()),
        _ => {
            let depth = deeper(bytes, depth)?;
            while let Some(inner) = next_tag(bytes, Some(tag.number))? {
                skip(bytes, inner, depth)?;
            }
            Ok(())
        }
    }
}

fn deeper(bytes: &Cursor<'_>, depth: usize) -> Result<usize, Malformed> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { bytes.malformed("nested too deeply") }
}

/// How a single value of a kind is written.
fn wire_of(kind: ProtoKind) -> u8 {
    match kind {
        ProtoKind::Int | ProtoKind::Unsigned | ProtoKind::Zigzag | ProtoKind::Bool | ProtoKind::Enum(_) => VARINT,
        ProtoKind::Double | ProtoKind::Fixed64 | ProtoKind::Sfixed64 => EIGHT_BYTES,
        ProtoKind::Float | ProtoKind::Fixed32 | ProtoKind::Sfixed32 => FOUR_BYTES,
        ProtoKind::String | ProtoKind::Bytes | ProtoKind::Message(_) => SIZED,
        ProtoKind::Group(_) => GROUP,
    }
}

fn unsigned<'a>(value: u64) -> Value<'a> {
    i64::try_from(value).map_or(Value::Large(value), Value::Integer)
}

impl<'a> Walk<'a, '_> {
    /// A message, or the rest of a group, of which some fields are wanted.
    fn message(
        &mut self,
        bytes: &mut Cursor<'a>,
        of: usize,
        targets: &'a [Option<Target>],
        group: Option<u32>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let descriptor = self.descriptor;
        let fields = &descriptor.messages[of].fields;
        for (field, target) in fields.iter().zip(targets) {
            // Of a message that is merged with one before it, nothing is undone.
            if let Some(target) = target
                && target.below.is_empty()
                && target.slots.iter().all(|slot| matches!(self.slots[*slot], Tree::Leaf(Value::Missing)))
                && (field.is_repeated || !field.has_presence)
            {
                let absent = self.absent(field);
                put(self.slots, &target.slots, absent);
            }
        }
        let depth = deeper(bytes, depth)?;
        while let Some(tag) = next_tag(bytes, group)? {
            let found = fields.binary_search_by_key(&tag.number, |field| field.number).ok();
            match found.and_then(|place| Some((&fields[place], targets.get(place)?.as_ref()?))) {
                Some((field, target)) => self.field(bytes, field, tag, target, depth)?,
                None => skip(bytes, tag, depth)?,
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        bytes: &mut Cursor<'a>,
        field: &'a ProtoField,
        tag: Tag,
        target: &'a Target,
        depth: usize,
    ) -> Result<(), Malformed> {
        if target.below.is_empty() {
            return self.whole(bytes, field, tag, &target.slots, depth);
        }
        let start = *bytes;
        if !target.slots.is_empty() {
            self.whole(bytes, field, tag, &target.slots, depth)?;
            *bytes = start;
        }
        match field.kind {
            ProtoKind::Message(entry) if !target.keys.is_empty() && tag.wire == SIZED => {
                let mut pair = sized(bytes)?;
                let key = self.key(pair, entry, depth)?;
                if let Some((_, targets)) = target.keys.iter().find(|(known, _)| *known == key) {
                    // A key given twice: nothing of the first one may remain.
                    for value in targets.iter().flatten() {
                        put(self.slots, &value.slots, Tree::MISSING);
                        put(self.slots, &value.below, Tree::MISSING);
                    }
                    self.message(&mut pair, entry, targets, None, depth)?;
                }
                Ok(())
            }
            ProtoKind::Message(of) if !field.is_repeated && tag.wire == SIZED => {
                self.message(&mut sized(bytes)?, of, &target.fields, None, depth)
            }
            ProtoKind::Group(of) if !field.is_repeated && tag.wire == GROUP => {
                self.message(bytes, of, &target.fields, Some(tag.number), depth)
            }
            _ => {
                put(self.slots, &target.below, Tree::Leaf(Value::NotAnObject("a Protobuf field that is no message")));
                skip(bytes, tag, depth)
            }
        }
    }

    /// A field that columns keep with all that is in it.
    fn whole(
        &mut self,
        bytes: &mut Cursor<'a>,
        field: &'a ProtoField,
        tag: Tag,
        slots: &[usize],
        depth: usize,
    ) -> Result<(), Malformed> {
        let Some(first) = slots.first() else { return skip(bytes, tag, depth) };
        let mut tree = std::mem::replace(&mut self.slots[*first], Tree::MISSING);
        self.accept(&mut tree, bytes, field, tag, depth)?;
        put(self.slots, slots, tree);
        Ok(())
    }

    /// What a field is that is not written.
    fn absent(&self, field: &'a ProtoField) -> Tree<'a> {
        match field.is_repeated {
            true if is_map(self.descriptor, field) => Tree::Object(Vec::new()),
            true => Tree::List(Vec::new()),
            false if field.has_presence => Tree::Leaf(Value::Null),
            false => Tree::Leaf(self.default_of(field.kind)),
        }
    }

    fn default_of(&self, kind: ProtoKind) -> Value<'a> {
        match kind {
            ProtoKind::Double => Value::Double(0.0),
            ProtoKind::Float => Value::Real(0.0),
            ProtoKind::Bool => Value::Bool(false),
            ProtoKind::String => Value::Text(""),
            ProtoKind::Bytes => Value::Bytes(b""),
            ProtoKind::Enum(of) => self.symbol(of, 0),
            ProtoKind::Message(_) | ProtoKind::Group(_) => Value::Null,
            _ => Value::Integer(0),
        }
    }

    fn symbol(&self, of: usize, number: i32) -> Value<'a> {
        Value::Symbol { number, name: self.descriptor.enums[of].get(&number).map(String::as_str) }
    }

    /// Adds one appearance of a field to what is known of it.
    fn accept(
        &mut self,
        tree: &mut Tree<'a>,
        bytes: &mut Cursor<'a>,
        field: &'a ProtoField,
        tag: Tag,
        depth: usize,
    ) -> Result<(), Malformed> {
        if !field.is_repeated {
            return self.value(tree, bytes, field.kind, tag, depth);
        }
        if let (true, ProtoKind::Message(entry)) = (is_map(self.descriptor, field), field.kind) {
            if !matches!(tree, Tree::Object(_)) {
                *tree = Tree::Object(Vec::new());
            }
            let mut pair = Tree::MISSING;
            self.value(&mut pair, bytes, ProtoKind::Message(entry), tag, depth)?;
            if let (Tree::Object(pairs), Tree::Object(parts)) = (tree, pair) {
                let mut parts = parts.into_iter().map(|(_, part)| part);
                let key = parts.next().unwrap_or(Tree::MISSING);
                pairs.push((Cow::Owned(shown(key.value())), parts.next().unwrap_or(Tree::MISSING)));
            }
            return Ok(());
        }
        if !matches!(tree, Tree::List(_)) {
            *tree = Tree::List(Vec::new());
        }
        let Tree::List(elements) = tree else { return Ok(()) };
        let wire = wire_of(field.kind);
        if tag.wire == SIZED && wire != SIZED && wire != GROUP {
            let mut packed = sized(bytes)?;
            while !packed.is_at_end() {
                elements.push(Tree::Leaf(self.scalar(&mut packed, field.kind)?));
            }
            return Ok(());
        }
        let mut element = Tree::MISSING;
        self.value(&mut element, bytes, field.kind, tag, depth)?;
        elements.push(element);
        Ok(())
    }

    #[inline]
    fn spend(&mut self, bytes: &Cursor<'_>) -> Result<(), Malformed> {
        match self.budget.checked_sub(1) {
            Some(budget) => {
                self.budget = budget;
                Ok(())
            }
            None => bytes.malformed("too many values for so few bytes"),
        }
    }

    /// One value; a message is merged with what was there.
    fn value(
        &mut self,
        tree: &mut Tree<'a>,
        bytes: &mut Cursor<'a>,
        kind: ProtoKind,
        tag: Tag,
        depth: usize,
    ) -> Result<(), Malformed> {
        if tag.wire != wire_of(kind) {
            return bytes.malformed("a field that is written otherwise than its descriptor says");
        }
        match kind {
            ProtoKind::Message(of) => self.merge(tree, &mut sized(bytes)?, of, None, depth),
            ProtoKind::Group(of) => self.merge(tree, bytes, of, Some(tag.number), depth),
            kind => {
                *tree = Tree::Leaf(self.scalar(bytes, kind)?);
                Ok(())
            }
        }
    }

    #[inline]
    fn scalar(&mut self, bytes: &mut Cursor<'a>, kind: ProtoKind) -> Result<Value<'a>, Malformed> {
        Ok(match kind {
            ProtoKind::Double => Value::Double(f64::from_le_bytes(*bytes.array()?)),
            ProtoKind::Float => Value::Real(f32::from_le_bytes(*bytes.array()?)),
            ProtoKind::Int => Value::Integer(bytes.varint()? as i64),
            ProtoKind::Unsigned => unsigned(bytes.varint()?),
            ProtoKind::Zigzag => Value::Integer(unzigzag(bytes.varint()?)),
            ProtoKind::Fixed32 => Value::Integer(u32::from_le_bytes(*bytes.array()?).into()),
            ProtoKind::Fixed64 => unsigned(u64::from_le_bytes(*bytes.array()?)),
            ProtoKind::Sfixed32 => Value::Integer(i32::from_le_bytes(*bytes.array()?).into()),
            ProtoKind::Sfixed64 => Value::Integer(i64::from_le_bytes(*bytes.array()?)),
            ProtoKind::Bool => Value::Bool(bytes.varint()? != 0),
            // Negative numbers are written with 64 bits.
            ProtoKind::Enum(of) => self.symbol(of, bytes.varint()? as i32),
            ProtoKind::String => {
                let inner = sized(bytes)?;
                Value::Text(text(inner.rest(), inner.position())?)
            }
            ProtoKind::Bytes => Value::Bytes(sized(bytes)?.rest()),
            ProtoKind::Message(_) | ProtoKind::Group(_) => return bytes.malformed("a message where a value is packed"),
        })
    }

    /// Adds a message, or the rest of a group, to what is known of it.
    fn merge(
        &mut self,
        tree: &mut Tree<'a>,
        bytes: &mut Cursor<'a>,
        of: usize,
        group: Option<u32>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let depth = deeper(bytes, depth)?;
        let descriptor = self.descriptor;
        let fields = &descriptor.messages[of].fields;
        if !matches!(tree, Tree::Object(_)) || self.meanings[of] != Meaning::Fields {
            let mut values = Vec::new();
            for field in fields {
                self.spend(bytes)?;
                values.push((Cow::Borrowed(field.name.as_str()), self.absent(field)));
            }
            *tree = Tree::Object(values);
        }
        let Tree::Object(values) = tree else { return Ok(()) };
        while let Some(tag) = next_tag(bytes, group)? {
            match fields.binary_search_by_key(&tag.number, |field| field.number) {
                Ok(place) => self.accept(&mut values[place].1, bytes, &fields[place], tag, depth)?,
                Err(_) => skip(bytes, tag, depth)?,
            }
        }
        let number = |name: &str| match values.iter().find(|(known, _)| known == name) {
            Some((_, Tree::Leaf(Value::Integer(number)))) => *number,
            _ => 0,
        };
        match self.meanings[of] {
            Meaning::Fields => {}
            Meaning::Timestamp => {
                let Ok(nanos @ 0..1_000_000_000) = u32::try_from(number("nanos")) else {
                    return bytes.malformed("a Timestamp whose nanos are less than 0 or a second");
                };
                *tree = Tree::Leaf(Value::Instant(Moment { seconds: number("seconds"), nanos }));
            }
            Meaning::Wrapper => {
                let value = values.iter_mut().find(|(known, _)| known == "value");
                *tree = value.map_or(Tree::MISSING, |(_, value)| std::mem::replace(value, Tree::MISSING));
            }
        }
        Ok(())
    }

    /// The text of a map's key.
    fn key(&mut self, mut pair: Cursor<'a>, entry: usize, depth: usize) -> Result<String, Malformed> {
        let descriptor = self.descriptor;
        let fields = &descriptor.messages[entry].fields;
        let Some(field) = fields.iter().find(|field| field.number == 1) else { return Ok(String::new()) };
        let mut key = Tree::Leaf(self.default_of(field.kind));
        while let Some(tag) = next_tag(&mut pair, None)? {
            match tag.number {
                1 => self.value(&mut key, &mut pair, field.kind, tag, depth)?,
                _ => skip(&mut pair, tag, depth)?,
            }
        }
        Ok(shown(key.value()))
    }
}
