//! Avro: the binary encoding of one value, as its writer's schema says.
//!
//! Our own rather than a crate's: only the wanted fields are made into values and all others are stepped over, a record
//! that is too short or too long is an error of that record alone, and what a length or count claims is never believed
//! before its bytes are there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::column::Value;
use super::time::Moment;
use super::tree::{Tree, put};
use super::wanted::Wanted;
use super::{DecodeError, scan::MAX_DEPTH};
use crate::byte_cursor::{Cursor, Malformed, text};
use crate::catalog::{AvroSchema, AvroType, TypeId, place_of_name};

/// Values of no bytes that a record may have beyond those that its bytes pay for.
const FREE_VALUES: usize = 1 << 16;
/// Values that a byte pays for: around each may be a record and a union.
const VALUES_A_BYTE: usize = 4;

/// Reads records of one writer's schema.
pub(super) struct AvroReader {
    schema: Arc<AvroSchema>,
    target: Target,
}

/// What is wanted of a place in the record.
#[derive(Debug)]
struct Target {
    slots: Vec<usize>,
    below: Vec<usize>,
    /// Of each record that may stand here, what is wanted of its fields.
    records: HashMap<TypeId, Vec<Option<Target>>>,
    /// Of the map that may stand here, what is wanted of its keys.
    keys: Vec<(String, Target)>,
}

impl Target {
    fn new(schema: &AvroSchema, of: TypeId, wanted: &Wanted) -> Self {
        let mut target = Target {
            slots: wanted.slots.clone(),
            below: wanted.below.clone(),
            records: HashMap::new(),
            keys: Vec::new(),
        };
        if wanted.children.is_empty() {
            return target;
        }
        for object in schema.objects(of) {
            match schema.get(object) {
                AvroType::Record(fields) => {
                    let mut targets: Vec<Option<Target>> = fields.iter().map(|_| None).collect();
                    for (name, child) in &wanted.children {
                        let names = fields.iter().map(|field| field.name.as_str());
                        if let Some(place) = place_of_name(names, name) {
                            let child = Target::new(schema, fields[place].of, child);
                            match &mut targets[place] {
                                Some(target) => target.merge(child),
                                none => *none = Some(child),
                            }
                        }
                    }
                    target.records.insert(object, targets);
                }
                AvroType::Map(values) => {
                    let of_key = |(name, child): &(String, Wanted)| (name.clone(), Target::new(schema, *values, child));
                    target.keys = wanted.children.iter().map(of_key).collect();
                }
                _ => {}
            }
        }
        target
    }

    /// Adds what is wanted by a path that spells the same field otherwise.
    fn merge(&mut self, other: Target) {
        self.slots.extend(other.slots);
        self.below.extend(other.below);
        for (record, fields) in other.records {
            match self.records.get_mut(&record) {
                None => {
                    self.records.insert(record, fields);
                }
                Some(known) => {
                    for (known, field) in known.iter_mut().zip(fields) {
                        match (known, field) {
                            (Some(known), Some(field)) => known.merge(field),
                            (known, Some(field)) => *known = Some(field),
                            (_, None) => {}
                        }
                    }
                }
            }
        }
        self.keys.extend(other.keys);
    }
}

impl AvroReader {
    pub(super) fn new(schema: Arc<AvroSchema>, wanted: &Wanted) -> Self {
        let target = Target::new(&schema, schema.root(), wanted);
        AvroReader { schema, target }
    }

    /// Puts the wanted values of one record into `slots`, all of which are missing so far.
    pub(super) fn read<'a>(&'a self, bytes: &'a [u8], slots: &mut [Tree<'a>]) -> Result<(), DecodeError> {
        let budget = bytes.len().saturating_mul(VALUES_A_BYTE) + FREE_VALUES;
        let mut walk = Walk { schema: &self.schema, bytes: Cursor::new(bytes), slots, budget };
        walk.place(self.schema.root(), &self.target, 0)
            .and_then(|()| match walk.bytes.is_at_end() {
                true => Ok(()),
                false => walk.bytes.malformed("bytes after the end of the record"),
            })
            .map_err(|malformed| DecodeError(format!("not Avro of its schema: {malformed}")))
    }
}

/// One record being read.
struct Walk<'a, 's> {
    schema: &'a AvroSchema,
    bytes: Cursor<'a>,
    slots: &'s mut [Tree<'a>],
    /// Values that may still come: what has no bytes could go on for ever.
    budget: usize,
}

impl<'a> Walk<'a, '_> {
    /// A value of which something is wanted.
    fn place(&mut self, of: TypeId, target: &'a Target, depth: usize) -> Result<(), Malformed> {
        let schema = self.schema;
        match schema.get(of) {
            AvroType::Union(branches) => {
                let branch = self.branch(branches)?;
                self.place(branch, target, self.deeper(depth)?)
            }
            _ if target.below.is_empty() => {
                let tree = self.tree(of, depth)?;
                put(self.slots, &target.slots, tree);
                Ok(())
            }
            AvroType::Record(fields) => {
                self.whole(of, target, depth)?;
                let targets = target.records.get(&of).map_or(&[][..], Vec::as_slice);
                let depth = self.deeper(depth)?;
                for (at, field) in fields.iter().enumerate() {
                    match targets.get(at) {
                        Some(Some(target)) => self.place(field.of, target, depth)?,
                        _ => self.skip(field.of, depth)?,
                    }
                }
                Ok(())
            }
            AvroType::Map(values) => {
                self.whole(of, target, depth)?;
                let depth = self.deeper(depth)?;
                let mut left = 0;
                while self.has_next(&mut left)? {
                    let key = self.text()?;
                    match target.keys.iter().find(|(name, _)| name == key) {
                        Some((_, target)) => {
                            // A key given twice: nothing of the first one may remain.
                            put(self.slots, &target.below, Tree::MISSING);
                            self.place(*values, target, depth)?;
                        }
                        None => self.skip(*values, depth)?,
                    }
                }
                Ok(())
            }
            other => {
                let instead = match other {
                    AvroType::Null => Value::Null,
                    other => Value::NotAnObject(other.name()),
                };
                put(self.slots, &target.below, Tree::Leaf(instead));
                let tree = self.tree(of, depth)?;
                put(self.slots, &target.slots, tree);
                Ok(())
            }
        }
    }

    /// The columns that keep all of an object of which others want parts.
    fn whole(&mut self, of: TypeId, target: &Target, depth: usize) -> Result<(), Malformed> {
        if target.slots.is_empty() {
            return Ok(());
        }
        let start = self.bytes;
        let tree = self.tree(of, depth)?;
        put(self.slots, &target.slots, tree);
        self.bytes = start;
        Ok(())
    }

    /// A value with all that is in it.
    fn tree(&mut self, of: TypeId, depth: usize) -> Result<Tree<'a>, Malformed> {
        let schema = self.schema;
        let value = match schema.get(of) {
            AvroType::Null => Value::Null,
            AvroType::Boolean => match self.bytes.byte()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return self.bytes.malformed("a boolean that is neither 0 nor 1"),
            },
            AvroType::Int => Value::Integer(self.int()?.into()),
            AvroType::Long => Value::Integer(self.bytes.zigzag()?),
            AvroType::Float => Value::Real(f32::from_le_bytes(*self.bytes.array()?)),
            AvroType::Double => Value::Double(f64::from_le_bytes(*self.bytes.array()?)),
            AvroType::Bytes => Value::Bytes(self.sized()?),
            AvroType::Fixed(size) => Value::Bytes(self.bytes.take(*size)?),
            AvroType::String => Value::Text(self.text()?),
            AvroType::Enum(symbols) => {
                let symbol = usize::try_from(self.int()?).ok().and_then(|place| symbols.get(place));
                match symbol {
                    Some(symbol) => Value::Text(symbol),
                    None => return self.bytes.malformed("a symbol that the enum does not have"),
                }
            }
            AvroType::Decimal { scale, size } => {
                let unscaled = match size {
                    Some(size) => self.bytes.take(*size)?,
                    None => self.sized()?,
                };
                Value::Decimal { unscaled, scale: *scale }
            }
            AvroType::Date => Value::Date(self.int()?),
            AvroType::TimeOfDay { digits: 3 } => Value::TimeOfDay(Moment::of(self.int()?.into(), 3)),
            AvroType::TimeOfDay { digits } => Value::TimeOfDay(Moment::of(self.bytes.zigzag()?, *digits)),
            AvroType::Timestamp { digits, is_local } => {
                let moment = Moment::of(self.bytes.zigzag()?, *digits);
                if *is_local { Value::Wall(moment) } else { Value::Instant(moment) }
            }
            AvroType::Uuid => Value::Uuid(self.bytes.array()?),
            AvroType::Union(branches) => {
                let branch = self.branch(branches)?;
                return self.tree(branch, self.deeper(depth)?);
            }
            AvroType::Array(items) => {
                let depth = self.deeper(depth)?;
                let (mut left, mut elements) = (0, Vec::new());
                while self.has_next(&mut left)? {
                    elements.push(self.tree(*items, depth)?);
                }
                return Ok(Tree::List(elements));
            }
            AvroType::Map(values) => {
                let depth = self.deeper(depth)?;
                let (mut left, mut entries) = (0, Vec::new());
                while self.has_next(&mut left)? {
                    let key = self.text()?;
                    entries.push((Cow::Borrowed(key), self.tree(*values, depth)?));
                }
                return Ok(Tree::Object(entries));
            }
            AvroType::Record(fields) => {
                let depth = self.deeper(depth)?;
                let mut values = Vec::new();
                for field in fields {
                    self.spend()?;
                    values.push((Cow::Borrowed(field.name.as_str()), self.tree(field.of, depth)?));
                }
                return Ok(Tree::Object(values));
            }
        };
        Ok(Tree::Leaf(value))
    }

    /// Steps over a value.
    fn skip(&mut self, of: TypeId, depth: usize) -> Result<(), Malformed> {
        let schema = self.schema;
        match schema.get(of) {
            AvroType::Null => {}
            AvroType::Boolean => {
                self.bytes.byte()?;
            }
            AvroType::Int
            | AvroType::Long
            | AvroType::Enum(_)
            | AvroType::Date
            | AvroType::TimeOfDay { .. }
            | AvroType::Timestamp { .. } => {
                self.bytes.varint()?;
            }
            AvroType::Float => {
                self.bytes.take(4)?;
            }
            AvroType::Double => {
                self.bytes.take(8)?;
            }
            AvroType::Bytes | AvroType::String | AvroType::Decimal { size: None, .. } => {
                self.sized()?;
            }
            AvroType::Fixed(size) | AvroType::Decimal { size: Some(size), .. } => {
                self.bytes.take(*size)?;
            }
            AvroType::Uuid => {
                self.bytes.take(16)?;
            }
            AvroType::Union(branches) => {
                let branch = self.branch(branches)?;
                self.skip(branch, self.deeper(depth)?)?;
            }
            AvroType::Array(items) => {
                let depth = self.deeper(depth)?;
                let mut left = 0;
                while self.has_next(&mut left)? {
                    self.skip(*items, depth)?;
                }
            }
            AvroType::Map(values) => {
                let depth = self.deeper(depth)?;
                let mut left = 0;
                while self.has_next(&mut left)? {
                    self.sized()?;
                    self.skip(*values, depth)?;
                }
            }
            AvroType::Record(fields) => {
                let depth = self.deeper(depth)?;
                for field in fields {
                    self.spend()?;
                    self.skip(field.of, depth)?;
                }
            }
        }
        Ok(())
    }

    fn deeper(&self, depth: usize) -> Result<usize, Malformed> {
        if depth < MAX_DEPTH { Ok(depth + 1) } else { self.bytes.malformed("nested too deeply") }
    }

    #[inline]
    fn spend(&mut self) -> Result<(), Malformed> {
        match self.budget.checked_sub(1) {
            Some(budget) => {
                self.budget = budget;
                Ok(())
            }
            None => self.bytes.malformed("too many values for so few bytes"),
        }
    }

    #[inline]
    fn branch(&mut self, branches: &[TypeId]) -> Result<TypeId, Malformed> {
        let place = self.bytes.zigzag()?;
        match usize::try_from(place).ok().and_then(|place| branches.get(place)) {
            Some(branch) => Ok(*branch),
            None => self.bytes.malformed("a branch that the union does not have"),
        }
    }

    /// True when another element of an array or map follows; `left` are those of the block that was begun.
    #[inline]
    fn has_next(&mut self, left: &mut u64) -> Result<bool, Malformed> {
        if *left == 0 {
            let count = self.bytes.zigzag()?;
            if count < 0 {
                // The block's size in bytes, for those who step over it whole.
                self.bytes.zigzag()?;
            }
            *left = count.unsigned_abs();
            if *left == 0 {
                return Ok(false);
            }
        }
        *left -= 1;
        self.spend()?;
        Ok(true)
    }

    #[inline]
    fn int(&mut self) -> Result<i32, Malformed> {
        let value = self.bytes.zigzag()?;
        match i32::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => self.bytes.malformed("an int of more than 32 bits"),
        }
    }

    /// Bytes with their length before them.
    #[inline]
    fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        match usize::try_from(self.bytes.zigzag()?) {
            Ok(length) => self.bytes.take(length),
            Err(_) => self.bytes.malformed("a length below 0"),
        }
    }

    #[inline]
    fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.sized()?;
        text(bytes, self.bytes.position() - bytes.len())
    }
}
