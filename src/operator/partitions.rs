//! Rows by partition and in their order: the state of operators that look at the rows of a partition together.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, LargeBinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use hashbrown::HashMap;

use crate::operator::state::{binary_column, find_part, primitive_column};
use crate::operator::{OperatorError, StatePart, rows};

/// Encoded rows of one partition in their order, with their weights.
pub type Partition = BTreeMap<Box<[u8]>, i64>;

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

/// Adds `weight` to a row; a row of weight zero is not kept.
pub fn add(partition: &mut Partition, row: &[u8], weight: i64) {
    match partition.get_mut(row) {
        Some(known) if *known + weight == 0 => drop(partition.remove(row)),
        Some(known) => *known += weight,
        None => drop(partition.insert(row.into(), weight)),
    }
}
