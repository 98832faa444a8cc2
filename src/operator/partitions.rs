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
}

/// The rows of one batch, encoded.
#[derive(Debug)]
pub struct Placed {
    /// `None` without PARTITION BY: all rows are one partition.
    keys: Option<Rows>,
    rows: Rows,
}

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
        Ok(Placement { partition, order, key_converter, row_converter })
    }

    /// Encodes the rows of a batch.
    pub fn place(&self, batch: &RecordBatch) -> Result<Placed, OperatorError> {
        let evaluate = |scalar: &Scalar| map::evaluate(scalar, batch);
        let keys: Vec<ArrayRef> = self.partition.iter().map(evaluate).collect::<Result<_, _>>()?;
        let mut columns: Vec<ArrayRef> = self.order.iter().map(|(key, _)| evaluate(key)).collect::<Result<_, _>>()?;
        columns.extend(batch.columns().iter().cloned());
        let keys = if keys.is_empty() { None } else { Some(self.key_converter.convert_columns(&keys)?) };
        Ok(Placed { keys, rows: self.row_converter.convert_columns(&columns)? })
    }

    /// The input's columns of encoded rows.
    pub fn decode<'a>(&self, encoded: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, OperatorError> {
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
        self.rows.row(row).data()
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
