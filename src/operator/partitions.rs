//! Rows by partition and in their order: the state of operators that look at the rows of a partition together.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, LargeBinaryArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashMap;

use crate::operator::rows::Multiset;
use crate::operator::state::{binary_column, find_part, primitive_column};
use crate::operator::{OperatorError, StatePart, map, rows};
use crate::plan::flow::Scalar;

/// Encoded rows of one partition in their order, with their weights.
pub type Partition = Multiset;

/// Which partition a row falls into, and its place there: by the order, then by the whole row.
#[derive(Debug)]
pub struct Placement {
    partition: Vec<Scalar>,
    order: Vec<(Scalar, SortOptions)>,
    key_converter: RowConverter,
    row_converter: RowConverter,
    /// Of the order alone, where its length is kept with each row.
    order_converter: Option<RowConverter>,
}

/// The rows of one batch, encoded.
#[derive(Debug)]
pub struct Placed {
    /// `None` without PARTITION BY: all rows are one partition.
    keys: Option<Rows>,
    rows: Rows,
    /// The rows with the length of their order behind each.
    with_peers: Option<Vec<Box<[u8]>>>,
}

/// Bytes behind a row that tell how long its order is.
const LENGTH: usize = size_of::<u32>();

impl Placement {
    /// Of rows with the columns `input`.
    pub fn new<'a>(
        partition: Vec<Scalar>,
        order: Vec<(Scalar, SortOptions)>,
        input: impl IntoIterator<Item = &'a FieldRef>,
    ) -> Result<Self, OperatorError> {
        let key_converter = rows::converter(partition.iter().map(|key| &key.data_type))?;
        let ordered = order.iter().map(|(key, options)| SortField::new_with_options(key.data_type.clone(), *options));
        let whole = input.into_iter().map(|field| SortField::new(field.data_type().clone()));
        let row_converter = RowConverter::new(ordered.chain(whole).collect())?;
        Ok(Placement { partition, order, key_converter, row_converter, order_converter: None })
    }

    /// Rows of which [`Placed::order_of`] can be asked.
    pub fn with_peers(self) -> Result<Self, OperatorError> {
        let ordered =
            self.order.iter().map(|(key, options)| SortField::new_with_options(key.data_type.clone(), *options));
        let order_converter = Some(RowConverter::new(ordered.collect())?);
        Ok(Placement { order_converter, ..self })
    }

    /// Encodes the rows of a batch.
    pub fn place(&self, batch: &RecordBatch) -> Result<Placed, OperatorError> {
        let evaluate = |scalar: &Scalar| map::evaluate(scalar, batch);
        let keys: Vec<ArrayRef> = self.partition.iter().map(evaluate).collect::<Result<_, _>>()?;
        let mut columns: Vec<ArrayRef> = self.order.iter().map(|(key, _)| evaluate(key)).collect::<Result<_, _>>()?;
        let order = match &self.order_converter {
            Some(converter) if !columns.is_empty() => Some(converter.convert_columns(&columns)?),
            _ => None,
        };
        columns.extend(batch.columns().iter().cloned());
        let keys = if keys.is_empty() { None } else { Some(self.key_converter.convert_columns(&keys)?) };
        let rows = self.row_converter.convert_columns(&columns)?;
        // Rows begin with their order, so that its length tells which bytes they are.
        let with_peers = self.order_converter.as_ref().map(|_| {
            let length = |row: usize| order.as_ref().map_or(0, |order| order.row(row).data().len() as u32);
            let with_length = |row: usize| [rows.row(row).data(), &length(row).to_be_bytes()].concat().into();
            (0..rows.num_rows()).map(with_length).collect()
        });
        Ok(Placed { keys, rows, with_peers })
    }

    /// The input's columns of encoded rows.
    pub fn decode<'a>(&self, encoded: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, OperatorError> {
        let behind = if self.order_converter.is_some() { LENGTH } else { 0 };
        let encoded = encoded.into_iter().map(|row| &row[..row.len().saturating_sub(behind)]);
        let mut columns = rows::decode(&self.row_converter, encoded)?;
        Ok(columns.split_off(self.order.len()))
    }
}

impl Placed {
    /// The partition of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        self.keys.as_ref().map_or(&[][..], |keys| keys.row(row).data())
    }

    /// A row as it is kept.
    pub fn row(&self, row: usize) -> &[u8] {
        match &self.with_peers {
            Some(rows) => &rows[row],
            None => self.rows.row(row).data(),
        }
    }

    /// What the order sees of a row that a placement with peers has placed.
    pub fn order_of(row: &[u8]) -> &[u8] {
        let Some((row, length)) = row.split_last_chunk::<LENGTH>() else { return row };
        &row[..(u32::from_be_bytes(*length) as usize).min(row.len())]
    }

    /// The rows of each shard.
    pub fn by_shard(&self, shards: usize) -> Vec<Vec<u32>> {
        let hashes: Vec<u64> = (0..self.rows.num_rows()).map(|row| rows::hash_bytes(self.key(row))).collect();
        rows::rows_by_shard(hashes.into_iter(), shards)
    }
}

/// The partitions of one shard, by encoded key.
pub type Shard = HashMap<Box<[u8]>, Partition>;

/// All partitions, in shards by the hash of their keys.
#[derive(Debug)]
pub struct Partitions {
    /// Stepped in parallel.
    pub shards: Vec<Shard>,
}

impl Partitions {
    /// Without rows.
    pub fn new(shards: usize) -> Self {
        Partitions { shards: vec![Shard::new(); shards.max(1)] }
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &Partition)> {
        self.shards.iter().flatten().map(|(key, partition)| (key.as_ref(), partition))
    }

    fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8], i64)> {
        self.iter().flat_map(|(key, rows)| rows.iter().map(move |(row, weight)| (key, row.as_ref(), *weight)))
    }

    /// Rows kept, and the bytes they take, estimated.
    pub fn size(&self) -> (usize, usize) {
        let count = self.iter().map(|(_, rows)| rows.len()).sum();
        let bytes = |rows: &Partition| rows.keys().map(|row| row.len() + 32).sum::<usize>();
        (count, self.iter().map(|(key, rows)| key.len() + 64 + bytes(rows)).sum())
    }

    /// All rows that are kept, as the part `rows`.
    pub fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let schema = Schema::new(vec![
            Field::new("partition", DataType::LargeBinary, false),
            Field::new("row", DataType::LargeBinary, false),
            Field::new("weight", DataType::Int64, false),
        ]);
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(self.rows().map(|(key, _, _)| Some(key)).collect::<LargeBinaryArray>()),
                Arc::new(self.rows().map(|(_, row, _)| Some(row)).collect::<LargeBinaryArray>()),
                Arc::new(Int64Array::from_iter_values(self.rows().map(|(_, _, weight)| weight))),
            ],
        )?;
        Ok(vec![StatePart { name: "rows".to_string(), batch }])
    }

    /// Takes rows from a snapshot.
    pub fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        let batch = find_part(parts, "rows")?;
        let (keys, kept) = (binary_column(batch, 0)?, binary_column(batch, 1)?);
        let weights = primitive_column::<Int64Type>(batch, 2)?;
        let shards = self.shards.len();
        for row in 0..batch.num_rows() {
            let key = keys.value(row);
            let shard = &mut self.shards[rows::shard_of(rows::hash_bytes(key), shards)];
            shard.entry(key.into()).or_default().insert(kept.value(row).into(), weights.value(row));
        }
        Ok(())
    }
}
