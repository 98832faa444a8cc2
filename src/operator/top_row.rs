//! The first row of each partition: ROW_NUMBER() … = 1.
//!
//! Rows are kept encoded, the order's columns before the whole row, so that bytes compare as the order does and ties
//! are broken by the rest of the row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::partitions::{Partition, Partitions, Placement};
use crate::operator::{OperatorError, StatePart, rows};
use crate::plan::flow::Scalar;

/// Keeps the rows of each partition, or only the first where no row is ever retracted.
#[derive(Debug)]
pub struct TopRow {
    placement: Placement,
    /// Of the output: the input's columns, then `row_number`.
    schema: SchemaRef,
    append_only: bool,
    partitions: Partitions,
}

impl TopRow {
    /// Without rows; `append_only` when the input never retracts.
    pub fn new(
        partition: Vec<Scalar>,
        order: Vec<(Scalar, SortOptions)>,
        schema: SchemaRef,
        append_only: bool,
        shards: usize,
    ) -> Result<Self, OperatorError> {
        let width = schema.fields().len() - 1;
        let placement = Placement::new(partition, order, schema.fields().iter().take(width))?;
        Ok(TopRow { placement, schema, append_only, partitions: Partitions::new(shards) })
    }

    /// Takes rows; gives the first rows that changed.
    pub fn step(&mut self, input: &Delta) -> Result<Delta, OperatorError> {
        if input.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let placed = self.placement.place(&input.batch)?;
        let by_shard = placed.by_shard(self.partitions.shards.len());
        let append_only = self.append_only;
        let changes: Vec<Vec<(Box<[u8]>, i64)>> = self
            .partitions
            .shards
            .par_iter_mut()
            .zip(by_shard)
            .map(|(shard, rows)| {
                let mut before: HashMap<Box<[u8]>, Option<Box<[u8]>>> = HashMap::new();
                for row in rows {
                    let row = row as usize;
                    let key = placed.key(row);
                    let partition = shard.entry(key.into()).or_default();
                    if !before.contains_key(key) {
                        before.insert(key.into(), first(partition));
                    }
                    add(partition, placed.row(row), input.weight(row), append_only);
                }
                let mut changes = Vec::new();
                for (key, before) in before {
                    let after = shard.get(&key).and_then(first);
                    if before != after {
                        changes.extend(before.map(|row| (row, -1)));
                        changes.extend(after.map(|row| (row, 1)));
                    }
                    if shard.get(&key).is_some_and(BTreeMap::is_empty) {
                        shard.remove(&key);
                    }
                }
                changes
            })
            .collect();
        let changes: Vec<(Box<[u8]>, i64)> = changes.into_iter().flatten().collect();
        if changes.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let mut columns = self.placement.decode(changes.iter().map(|(row, _)| row.as_ref()))?;
        columns.push(Arc::new(UInt64Array::from(vec![1; changes.len()])));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(Delta::weighted(batch, changes.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into()))
    }

    /// Rows kept, and the bytes they take, estimated.
    pub fn size(&self) -> (usize, usize) {
        self.partitions.size()
    }

    /// All rows that are kept.
    pub fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        self.partitions.snapshot()
    }

    /// Takes rows from a snapshot.
    pub fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        self.partitions.load(parts)
    }
}

fn first(partition: &Partition) -> Option<Box<[u8]>> {
    partition.first_key_value().map(|(row, _)| row.clone())
}

fn add(partition: &mut Partition, row: &[u8], weight: i64, append_only: bool) {
    if append_only && partition.first_key_value().is_some_and(|(best, _)| best.as_ref() <= row) {
        return;
    }
    if append_only {
        partition.clear();
    }
    rows::add(partition, row, weight);
}
