//! One input of a join: its keys and rows as bytes, and what is kept of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows as EncodedRows};
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::row_map::RowMap;
use crate::operator::state::{binary_column, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, map, rows};
use crate::plan::flow::Scalar;

/// An encoded key or row.
pub(super) type Bytes = Box<[u8]>;

/// A row that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// How many of it.
    pub weight: i64,
    /// How many rows of the other input match it.
    pub partners: i64,
}

/// Rows of one key and input.
pub(super) type Rows = RowMap<Entry>;

/// Rows of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyRows {
    pub left: Rows,
    pub right: Rows,
    /// Met since it was looked for keys that can leave memory.
    pub is_recent: bool,
}

impl KeyRows {
    /// Of the left, or of the right.
    pub fn side(&self, side: usize) -> &Rows {
        if side == super::LEFT { &self.left } else { &self.right }
    }

    pub fn side_mut(&mut self, side: usize) -> &mut Rows {
        if side == super::LEFT { &mut self.left } else { &mut self.right }
    }

    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.right.is_empty()
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.left.bytes() + self.right.bytes()
    }
}

/// Adds `weight` to a row, which has `partners` where it is new. Returns how many partners it has.
pub(super) fn add(rows: &mut Rows, row: &[u8], weight: i64, partners: i64) -> i64 {
    match rows.get_mut(row) {
        Some(entry) => {
            entry.weight += weight;
            let partners = entry.partners;
            if entry.weight == 0 {
                rows.remove(row);
            }
            partners
        }
        None => {
            rows.insert(row.into(), Entry { weight, partners });
            partners
        }
    }
}

/// Rows behind one another in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Packed {
    pub fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[*start..*end])
    }
}

/// A changed row: its key, itself, and the weight that it gains or loses.
pub(super) type NetRow<'a> = (&'a [u8], &'a [u8], i64);

/// The change of one input and shard, by key and row, none of weight zero.
#[derive(Debug, Default)]
pub(super) struct Net<'a>(Vec<NetRow<'a>>);

impl<'a> Net<'a> {
    /// Of rows in any order, among which one may be several times.
    fn of(mut rows: Vec<NetRow<'a>>) -> Self {
        rows.sort_unstable();
        rows.dedup_by(|next, kept| {
            let is_same = (next.0, next.1) == (kept.0, kept.1);
            kept.2 += if is_same { next.2 } else { 0 };
            is_same
        });
        rows.retain(|(.., weight)| *weight != 0);
        Net(rows)
    }

    /// The rows of each key.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &[NetRow<'a>])> {
        self.0.chunk_by(|one, other| one.0 == other.0).map(|rows| (rows[0].0, rows))
    }

    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        self.iter().map(|(key, _)| key)
    }
}

/// The change of one input, encoded.
pub(super) struct Encoded {
    keys: EncodedRows,
    /// `None` where nothing of the rows is read: they have no columns, and are all alike.
    rows: Option<EncodedRows>,
    weights: Vec<i64>,
    /// Whether the key holds a NULL, where NULL equals nothing.
    without_key: Vec<bool>,
}

impl Encoded {
    /// Rows by shard, those that cancel out left out.
    pub fn by_shard(&self, shards: usize) -> Vec<Net<'_>> {
        let mut found: Vec<Vec<NetRow<'_>>> = (0..shards).map(|_| Vec::new()).collect();
        for (row, weight) in self.weights.iter().enumerate().filter(|(row, _)| !self.without_key[*row]) {
            let key = self.keys.row(row).data();
            found[rows::shard_of(rows::hash_bytes(key), shards)].push((key, self.row(row), *weight));
        }
        found.into_par_iter().map(Net::of).collect()
    }

    /// Rows whose key holds a NULL, and their weights.
    pub fn without_key(&self) -> impl Iterator<Item = (&[u8], i64)> {
        let rows = self.weights.iter().enumerate().filter(|(row, _)| self.without_key[*row]);
        rows.map(|(row, weight)| (self.row(row), *weight))
    }

    fn row(&self, row: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

/// How one input's rows are read.
#[derive(Debug)]
pub(super) struct Side {
    keys: Vec<Scalar>,
    pub schema: SchemaRef,
    key_converter: RowConverter,
    row_converter: RowConverter,
    null_equals_null: bool,
}

impl Side {
    pub fn new(keys: Vec<Scalar>, schema: SchemaRef, null_equals_null: bool) -> Result<Self, OperatorError> {
        let key_converter = rows::converter(keys.iter().map(|key| &key.data_type))?;
        let row_converter = rows::converter(schema.fields().iter().map(|field| field.data_type()))?;
        Ok(Side { keys, schema, key_converter, row_converter, null_equals_null })
    }

    /// Rows as bytes.
    pub fn encode(&self, input: &Delta) -> Result<Encoded, OperatorError> {
        let keys: Vec<ArrayRef> =
            self.keys.iter().map(|key| map::evaluate(key, &input.batch)).collect::<Result<_, _>>()?;
        let is_null = |row: usize| !self.null_equals_null && keys.iter().any(|key| key.is_null(row));
        Ok(Encoded {
            without_key: (0..input.num_rows()).map(is_null).collect(),
            weights: (0..input.num_rows()).map(|row| input.weight(row)).collect(),
            keys: self.key_converter.convert_columns(&keys)?,
            rows: match input.batch.columns() {
                [] => None,
                columns => Some(self.row_converter.convert_columns(columns)?),
            },
        })
    }

    pub fn decode<'a>(&self, encoded: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, OperatorError> {
        rows::decode(&self.row_converter, encoded)
    }
}

/// Rows of one input as a table of the state.
pub(super) fn batch<'a>(
    entries: impl Iterator<Item = (&'a [u8], &'a [u8], Entry)> + Clone,
) -> Result<RecordBatch, OperatorError> {
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    let schema = Schema::new([rows::key_fields(), vec![number("weight"), number("partners")]].concat());
    let mut columns = rows::key_columns(entries.clone().map(|(key, row, _)| (key, row)));
    columns.push(Arc::new(Int64Array::from_iter_values(entries.clone().map(|(.., entry)| entry.weight))));
    columns.push(Arc::new(Int64Array::from_iter_values(entries.map(|(.., entry)| entry.partners))));
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// Every row of a table that [`batch`] has made: key, row, entry.
pub(super) fn each(
    parts: &[StatePart],
    name: &str,
    mut take: impl FnMut(&[u8], &[u8], Entry),
) -> Result<(), OperatorError> {
    for batch in find_parts(parts, name)? {
        let (keys, kept) = (binary_column(batch, 0)?, binary_column(batch, 1)?);
        let (weights, partners) = (primitive_column::<Int64Type>(batch, 2)?, primitive_column::<Int64Type>(batch, 3)?);
        for row in 0..batch.num_rows() {
            let entry = Entry { weight: weights.value(row), partners: partners.value(row) };
            take(keys.value(row), kept.value(row), entry);
        }
    }
    Ok(())
}
