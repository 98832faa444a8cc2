//! All that an operator keeps of one key as one record: the key, then the rows of each of its tables.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, LargeBinaryArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows};
use hashbrown::HashMap;

use super::log::Record;
use crate::operator::state::Extent;
use crate::operator::{OperatorError, StatePart, rows};

/// The columns of an operator's tables that are the key by which its state leaves memory; the same in all of them.
#[derive(Debug, Clone)]
pub enum KeyColumns {
    /// The first, of bytes, as they are.
    Encoded,
    /// Columns, as the row format has them.
    Columns(Arc<RowConverter>, Range<usize>),
}

impl KeyColumns {
    /// The first columns, of these types.
    pub fn of(types: &[DataType]) -> Result<Self, OperatorError> {
        KeyColumns::behind(0, types)
    }

    /// Columns of these types behind so many others.
    pub fn behind(others: usize, types: &[DataType]) -> Result<Self, OperatorError> {
        Ok(KeyColumns::Columns(Arc::new(rows::converter(types)?), others..others + types.len()))
    }

    fn range(&self) -> Range<usize> {
        match self {
            KeyColumns::Encoded => 0..1,
            KeyColumns::Columns(_, range) => range.clone(),
        }
    }

    /// The columns that are no key's, in their order.
    fn rest<T: Clone>(&self, columns: &[T]) -> Vec<T> {
        let Range { start, end } = self.range();
        [&columns[..start], &columns[end..]].concat()
    }
}

/// The hash that a key is found by.
pub(super) fn hash(key: &[u8]) -> u32 {
    // The high bits have chosen the shard.
    rows::hash_bytes(key) as u32
}

/// The operator's tables, by the numbers that records know them by.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    keys: KeyColumns,
    known: Vec<Table>,
}

#[derive(Debug, Clone)]
struct Table {
    /// `None` for one that was forgotten.
    name: Option<String>,
    /// How many of its columns are the key by which its rows are told apart.
    key: usize,
    schema: SchemaRef,
    /// Of the columns beside the operator's key.
    rest: Arc<RowConverter>,
    /// Bytes of the rows that are out, without their keys.
    bytes: usize,
}

fn damaged() -> OperatorError {
    OperatorError::State {
        what: "keys that are not in memory".to_string(),
        reason: "a record ends too early".to_string(),
    }
}

fn split_length(bytes: &[u8]) -> Result<(&[u8], &[u8]), OperatorError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)
}

fn push(record: &mut Vec<u8>, bytes: &[u8]) {
    record.extend((bytes.len() as u32).to_le_bytes());
    record.extend(bytes);
}

/// The key of a record.
pub(super) fn key_of(record: &[u8]) -> Result<&[u8], OperatorError> {
    Ok(split_length(record)?.0)
}

/// The rows of a record, each with the number of its table.
fn rows_of(record: &[u8]) -> Result<impl Iterator<Item = Result<(usize, &[u8]), OperatorError>>, OperatorError> {
    let (_, mut left) = split_length(record)?;
    Ok(std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let row = split_row(left);
        // Behind an error nothing more is read.
        left = row.as_ref().map_or(&[], |(.., rest)| rest);
        Some(row.map(|(number, row, _)| (number, row)))
    }))
}

fn split_row(bytes: &[u8]) -> Result<(usize, &[u8], &[u8]), OperatorError> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (row, rest) = split_length(rest)?;
    Ok((u32::from_le_bytes(*number) as usize, row, rest))
}

/// Rows of one table: the key of each, and its other columns.
#[derive(Default)]
struct Decoded<'a> {
    keys: Vec<&'a [u8]>,
    rest: Vec<&'a [u8]>,
}

impl Tables {
    pub(super) fn new(keys: KeyColumns) -> Self {
        Tables { keys, known: Vec::new() }
    }

    pub(super) fn forget(&mut self, name: &str) {
        let known = self.known.iter_mut().filter(|table| table.name.as_deref() == Some(name));
        known.for_each(|table| table.name = None);
    }

    /// The number of a part's table.
    fn number(&mut self, part: &StatePart) -> Result<usize, OperatorError> {
        if let Some(number) = self.known.iter().position(|table| table.name.as_ref() == Some(&part.name)) {
            return Ok(number);
        }
        let schema = part.batch.schema();
        let rest = self.keys.rest(schema.fields());
        let rest = Arc::new(rows::converter(rest.iter().map(|field| field.data_type()))?);
        self.known.push(Table { name: Some(part.name.clone()), key: part.key, schema, rest, bytes: 0 });
        Ok(self.known.len() - 1)
    }

    fn encode_keys(&self, batch: &RecordBatch) -> Result<BinaryRows, OperatorError> {
        match &self.keys {
            KeyColumns::Encoded => {
                let keys = batch.columns().first().and_then(|column| column.as_binary_opt::<i64>());
                Ok(BinaryRows::Plain(keys.ok_or_else(damaged)?.clone()))
            }
            KeyColumns::Columns(converter, range) => {
                Ok(BinaryRows::Rows(converter.convert_columns(&batch.columns()[range.clone()])?))
            }
        }
    }

    fn decode_keys(&self, keys: Vec<&[u8]>) -> Result<Vec<ArrayRef>, OperatorError> {
        match &self.keys {
            KeyColumns::Encoded => Ok(vec![Arc::new(LargeBinaryArray::from_iter_values(keys))]),
            KeyColumns::Columns(converter, _) => rows::decode(converter, keys),
        }
    }

    /// Bytes that are out of tables with these names.
    pub(super) fn bytes_of(&self, is_wanted: impl Fn(&str) -> bool) -> usize {
        let wanted = self.known.iter().filter(|table| table.name.as_deref().is_some_and(&is_wanted));
        wanted.map(|table| table.bytes).sum()
    }

    /// Counts rows of records that leave, or have come back.
    pub(super) fn count<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]>,
        count: fn(usize, usize) -> usize,
    ) -> Result<(), OperatorError> {
        for record in records {
            for row in rows_of(record)? {
                let (number, row) = row?;
                let table = self.known.get_mut(number).ok_or_else(damaged)?;
                table.bytes = count(table.bytes, row.len());
            }
        }
        Ok(())
    }

    /// One record for each key, and the hash of the key of each row.
    pub(super) fn encode(&mut self, parts: &[StatePart]) -> Result<(Vec<Record>, Vec<u32>), OperatorError> {
        let mut encoded = Vec::with_capacity(parts.len());
        for part in parts.iter().filter(|part| part.batch.num_rows() > 0) {
            let number = self.number(part)?;
            let rest = self.known[number].rest.convert_columns(&self.keys.rest(part.batch.columns()))?;
            encoded.push(((number as u32).to_le_bytes(), self.encode_keys(&part.batch)?, rest));
        }
        let mut by_key: HashMap<&[u8], usize> = HashMap::new();
        let mut records: Vec<Record> = Vec::new();
        let mut hashes = Vec::new();
        for (number, keys, rest) in &encoded {
            for row in 0..rest.num_rows() {
                let key = keys.get(row);
                let at = match by_key.get(key) {
                    Some(at) => *at,
                    None => {
                        let mut bytes = Vec::with_capacity(key.len() + rest.row(row).data().len() + 12);
                        push(&mut bytes, key);
                        records.push(Record { hash: hash(key), bytes });
                        by_key.insert(key, records.len() - 1);
                        records.len() - 1
                    }
                };
                records[at].bytes.extend(number);
                push(&mut records[at].bytes, rest.row(row).data());
                hashes.push(records[at].hash);
            }
        }
        Ok((records, hashes))
    }

    /// The rows of records, of those tables that are wanted, and how many rows the records have.
    pub(super) fn decode<'a>(
        &self,
        records: impl Iterator<Item = &'a [u8]>,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(Vec<StatePart>, usize), OperatorError> {
        let mut tables: Vec<Decoded> = self.known.iter().map(|_| Decoded::default()).collect();
        let mut rows = 0;
        for record in records {
            let key = key_of(record)?;
            for row in rows_of(record)? {
                let (number, row) = row?;
                let table = tables.get_mut(number).ok_or_else(damaged)?;
                table.keys.push(key);
                table.rest.push(row);
                rows += 1;
            }
        }
        let mut parts = Vec::new();
        for (table, Decoded { keys, rest }) in self.known.iter().zip(tables) {
            let Some(name) = table.name.as_ref().filter(|name| is_wanted(name) && !keys.is_empty()) else { continue };
            let mut columns = rows::decode(&table.rest, rest)?;
            let first = self.keys.range().start;
            columns.splice(first..first, self.decode_keys(keys)?);
            let batch = RecordBatch::try_new(Arc::clone(&table.schema), columns)?;
            parts.push(StatePart { name: name.clone(), key: table.key, batch, extent: Extent::Rest });
        }
        Ok((parts, rows))
    }
}

/// Keys as bytes.
enum BinaryRows {
    Plain(LargeBinaryArray),
    Rows(Rows),
}

impl BinaryRows {
    fn get(&self, row: usize) -> &[u8] {
        match self {
            BinaryRows::Plain(keys) => keys.value(row),
            BinaryRows::Rows(keys) => keys.row(row).data(),
        }
    }
}
