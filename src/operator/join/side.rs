//! One input of a join: its keys and rows as bytes, and what is kept of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::RowConverter;

use crate::delta::Delta;
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
pub(super) type Rows = BTreeMap<Bytes, Entry>;

/// Rows of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyRows {
    pub left: Rows,
    pub right: Rows,
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

    pub fn bytes(&self) -> usize {
        let rows = self.left.keys().chain(self.right.keys());
        size_of::<Self>() + rows.map(|row| row.len() + size_of::<(Bytes, Entry)>()).sum::<usize>()
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

/// The change of one input and shard: rows and weights by key, none of weight zero.
#[derive(Debug, Default)]
pub(super) struct Net(BTreeMap<Bytes, BTreeMap<Bytes, i64>>);

impl Net {
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &BTreeMap<Bytes, i64>)> {
        self.0.iter().map(|(key, rows)| (key.as_ref(), rows))
    }

    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.0.keys().map(AsRef::as_ref)
    }
}

/// The change of one input.
pub(super) struct NetInput {
    pub by_shard: Vec<Net>,
    /// Rows whose key holds a NULL, where NULL equals nothing.
    pub without_key: Vec<(Bytes, i64)>,
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

    /// Rows by shard and key, those that cancel out left out.
    pub fn net(&self, input: &Delta, shards: usize) -> Result<NetInput, OperatorError> {
        let mut net = NetInput { by_shard: (0..shards).map(|_| Net::default()).collect(), without_key: Vec::new() };
        if input.is_empty() {
            return Ok(net);
        }
        let keys: Vec<ArrayRef> =
            self.keys.iter().map(|key| map::evaluate(key, &input.batch)).collect::<Result<_, _>>()?;
        let is_null = |row: usize| !self.null_equals_null && keys.iter().any(|key| key.is_null(row));
        let encoded_keys = self.key_converter.convert_columns(&keys)?;
        let encoded = self.row_converter.convert_columns(input.batch.columns())?;
        for row in 0..input.num_rows() {
            let bytes = encoded.row(row).data();
            if is_null(row) {
                net.without_key.push((bytes.into(), input.weight(row)));
                continue;
            }
            let key = encoded_keys.row(row).data();
            let shard = &mut net.by_shard[rows::shard_of(rows::hash_bytes(key), shards)].0;
            *shard.entry(key.into()).or_default().entry(bytes.into()).or_default() += input.weight(row);
        }
        for shard in &mut net.by_shard {
            shard.0.retain(|_, rows| {
                rows.retain(|_, weight| *weight != 0);
                !rows.is_empty()
            });
        }
        Ok(net)
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
