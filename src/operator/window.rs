//! Window functions over whole partitions: RANK, LAG, SUM(…) OVER, ROW_NUMBER() <= n.
//!
//! All rows of each partition are kept. A partition that changes is computed again, before and after, by DataFusion's
//! own window expressions over its rows in order; what differs is the change. The order is made total by the whole
//! row, so that equal rows stand in no order that arrival decides.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::partitions::{Partitions, Placement, Shard};
use crate::operator::{OperatorError, rows};
use crate::plan::flow::{Scalar, WindowCall};

/// Keeps partitions and computes window functions over them.
#[derive(Debug)]
pub struct Window {
    placement: Placement,
    calls: Vec<WindowCall>,
    input: SchemaRef,
    /// The input's columns, then one for each call.
    schema: SchemaRef,
    partitions: Partitions,
}

impl Window {
    /// Without rows; `schema` is the output's.
    pub fn new(
        partition: Vec<Scalar>,
        order: Vec<(Scalar, SortOptions)>,
        calls: Vec<WindowCall>,
        schema: SchemaRef,
        shards: usize,
    ) -> Result<Self, OperatorError> {
        let width = schema.fields().len() - calls.len();
        let input = Arc::new(Schema::new(schema.fields().iter().take(width).cloned().collect::<Vec<_>>()));
        let placement = Placement::new(partition, order, input.fields())?;
        Ok(Window { placement, calls, input, schema, partitions: Partitions::new(shards) })
    }

    /// Takes rows; gives the rows of changed partitions that differ.
    pub fn step(&mut self, input: &Delta) -> Result<Delta, OperatorError> {
        if input.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let placed = self.placement.place(&input.batch)?;
        let by_shard = placed.by_shard(self.partitions.shards.len());
        let mut shards = std::mem::take(&mut self.partitions.shards);
        let changes: Result<Vec<Delta>, OperatorError> = shards
            .par_iter_mut()
            .zip(by_shard)
            .map(|(shard, taken)| {
                let mut touched: Vec<&[u8]> = taken.iter().map(|row| placed.key(*row as usize)).collect();
                touched.sort_unstable();
                touched.dedup();
                shard.bring_in(touched.iter().copied())?;
                let before = self.compute(shard, &touched)?;
                for row in taken {
                    let row = row as usize;
                    shard.add(placed.key(row), placed.row(row), input.weight(row));
                }
                let after = self.compute(shard, &touched)?;
                touched.into_iter().for_each(|key| shard.forget_empty(key));
                rows::difference(&self.schema, &before, &after)
            })
            .collect();
        self.partitions.shards = shards;
        Ok(Delta::concat(&self.schema, &changes?)?)
    }

    /// The output of some partitions, behind one another.
    fn compute(&self, shard: &Shard, keys: &[&[u8]]) -> Result<RecordBatch, OperatorError> {
        let mut encoded: Vec<&[u8]> = Vec::new();
        let mut lengths = Vec::new();
        for key in keys {
            let start = encoded.len();
            encoded.extend(shard.get(key).into_iter().flat_map(rows::repeated));
            lengths.push(encoded.len() - start);
        }
        let input = RecordBatch::try_new(Arc::clone(&self.input), self.placement.decode(encoded)?)?;
        let mut outputs = Vec::new();
        for call in &self.calls {
            let mut start = 0;
            let mut parts: Vec<ArrayRef> = Vec::new();
            for length in lengths.iter().filter(|length| **length > 0) {
                parts.push(call.expr.evaluate(&input.slice(start, *length))?);
                start += length;
            }
            outputs.push(match parts.as_slice() {
                [] => arrow::array::new_empty_array(&call.data_type),
                parts => arrow::compute::concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
            });
        }
        let columns = input.columns().iter().cloned().chain(outputs).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Rows kept, and the bytes they take, estimated.
    pub fn size(&self) -> (usize, usize) {
        self.partitions.size()
    }

    /// What it keeps.
    pub fn state(&self) -> &Partitions {
        &self.partitions
    }

    /// The same, to be loaded.
    pub fn state_mut(&mut self) -> &mut Partitions {
        &mut self.partitions
    }
}
