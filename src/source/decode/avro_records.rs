//! Which schema a record of Avro was written with, and a reader for each.
//!
//! Schemas of a registry are asked for before a record is decoded ([`AvroRecords::prepare`]), so that decoding itself
//! waits for nobody. What is known of an id stays known: a registry never changes the schema of an id.

use std::collections::HashMap;
use std::sync::Arc;

use super::avro::AvroReader;
use super::tree::{Tree, emptied};
use super::wanted::Wanted;
use super::{DecodeError, RawRecord, RowBuilder};
use crate::catalog::{AvroSchema, Stream};

/// Where schemas are looked up by their ids.
pub trait Schemas: Send + Sync {
    /// The schema of an id.
    ///
    /// # Errors
    /// When the answer cannot be had now; asking again may help.
    fn look_up(&self, id: u32) -> Result<Arc<Lookup>, Unavailable>;
}

/// What there is to know of a schema's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Its schema.
    Schema(Arc<AvroSchema>),
    /// No record with this id can be read, and why.
    Unusable(String),
    /// The registry says that there is none. It may be told of one later.
    Unknown,
}

/// What decoding needs cannot be had now: nothing is wrong with the record, so it has to be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Reads the records of a stream of Avro.
pub(super) struct AvroRecords {
    wanted: Wanted,
    /// How many declared columns there are.
    width: usize,
    written_with: WrittenWith,
    /// Room for the values of a record.
    slots: Vec<Tree<'static>>,
}

/// Where the schema of a record is from.
enum WrittenWith {
    /// A file of the project: the record is nothing but the value.
    File(AvroReader),
    /// A registry: the record begins with an id.
    Registry { schemas: Option<Arc<dyn Schemas>>, readers: HashMap<u32, Result<AvroReader, DecodeError>> },
}

/// What Confluent's serializers write before the value: a zero, and the schema's id.
const HEADER: usize = 5;

/// Splits a record in Confluent's wire format into its schema's id and the value.
pub(super) fn split_confluent(payload: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    match payload.split_first_chunk::<HEADER>() {
        Some(([0, id @ ..], value)) => Ok((u32::from_be_bytes(*id), value)),
        _ => Err(DecodeError("not in Confluent's wire format: a zero byte, and four of the schema's id".into())),
    }
}

impl AvroRecords {
    pub(super) fn new(stream: &Stream, schema: Option<&Arc<AvroSchema>>, rows: &RowBuilder) -> Self {
        let wanted = Wanted::new(stream, rows);
        let written_with = match schema {
            Some(schema) => WrittenWith::File(AvroReader::new(Arc::clone(schema), &wanted)),
            None => WrittenWith::Registry { schemas: None, readers: HashMap::new() },
        };
        AvroRecords { wanted, width: stream.columns.len(), written_with, slots: Vec::new() }
    }

    pub(super) fn set_schemas(&mut self, found: Arc<dyn Schemas>) {
        if let WrittenWith::Registry { schemas, .. } = &mut self.written_with {
            *schemas = Some(found);
        }
    }

    /// Makes sure that the schema of a record is known, as far as it has one.
    pub(super) fn prepare(&mut self, payload: &[u8]) -> Result<(), Unavailable> {
        let WrittenWith::Registry { schemas, readers } = &mut self.written_with else { return Ok(()) };
        let Ok((id, _)) = split_confluent(payload) else { return Ok(()) };
        if readers.contains_key(&id) {
            return Ok(());
        }
        let schemas = schemas.as_ref().ok_or_else(|| Unavailable("the connection has no schema registry".into()))?;
        match &*schemas.look_up(id)? {
            Lookup::Schema(schema) => {
                readers.insert(id, Ok(AvroReader::new(Arc::clone(schema), &self.wanted)));
            }
            Lookup::Unusable(reason) => {
                readers.insert(id, Err(DecodeError(format!("schema {id} of the registry: {reason}"))));
            }
            // Not remembered here: the registry's own memory forgets it after a while.
            Lookup::Unknown => {}
        }
        Ok(())
    }

    /// Adds the row of one record.
    #[inline]
    pub(super) fn append(
        &mut self,
        record: &RawRecord<'_>,
        payload: &[u8],
        rows: &mut RowBuilder,
    ) -> Result<(), DecodeError> {
        let (reader, value) = match &self.written_with {
            WrittenWith::File(reader) => (reader, payload),
            WrittenWith::Registry { readers, .. } => {
                let (id, value) = split_confluent(payload)?;
                match readers.get(&id) {
                    Some(Ok(reader)) => (reader, value),
                    Some(Err(unusable)) => return Err(unusable.clone()),
                    None => return Err(DecodeError(format!("the registry knows no schema {id}"))),
                }
            }
        };
        let mut slots = emptied(std::mem::take(&mut self.slots));
        slots.resize(self.width, Tree::MISSING);
        let outcome = reader.read(value, &mut slots).and_then(|()| rows.append(record, |slot| slots[slot].value()));
        self.slots = emptied(slots);
        outcome
    }
}
