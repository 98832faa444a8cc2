//! Window functions over whole partitions: RANK, LAG, SUM(…) OVER, ROW_NUMBER() <= n.
//!
//! All rows of each partition are kept. A partition that changes is computed again, before and after, by DataFusion's
//! own window expressions over its rows in order; what differs is the change. The order is made total by the whole
//! row, so that equal rows stand in no order that arrival decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, LargeBinaryArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::state::{binary_column, find_part, primitive_column};
use crate::operator::{OperatorError, StatePart, map, rows};
use crate::plan::flow::{Scalar, WindowCall};

/// Rows of one partition in their order, with their weights.
type Partition = BTreeMap<Box<[u8]>, i64>;

/// Keeps partitions and computes window functions over them.
#[derive(Debug)]
pub struct Window {
    partition: Vec<Scalar>,
    order: Vec<(Scalar, SortOptions)>,
    calls: Vec<WindowCall>,
    input: SchemaRef,
    /// The input's columns, then one for each call.
    schema: SchemaRef,
    partition_converter: RowConverter,
    row_converter: RowConverter,
    shards: Vec<HashMap<Box<[u8]>, Partition>>,
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
        let partition_converter = rows::converter(partition.iter().map(|key| &key.data_type))?;
        let ordered = order.iter().map(|(key, options)| SortField::new_with_options(key.data_type.clone(), *options));
        let whole = input.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let row_converter = RowConverter::new(ordered.chain(whole).collect())?;
        let shards = vec![HashMap::new(); shards.max(1)];
        Ok(Window { partition, order, calls, input, schema, partition_converter, row_converter, shards })
    }

    /// Takes rows; gives the rows of changed partitions that differ.
    pub fn step(&mut self, input: &Delta) -> Result<Delta, OperatorError> {
        if input.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let evaluate = |scalar: &Scalar| map::evaluate(scalar, &input.batch);
        let keys: Vec<ArrayRef> = self.partition.iter().map(evaluate).collect::<Result<_, _>>()?;
        let mut columns: Vec<ArrayRef> = self.order.iter().map(|(key, _)| evaluate(key)).collect::<Result<_, _>>()?;
        columns.extend(input.batch.columns().iter().cloned());
        let encoded = self.row_converter.convert_columns(&columns)?;
        // Without PARTITION BY all rows are one partition.
        let keys = if keys.is_empty() { None } else { Some(self.partition_converter.convert_columns(&keys)?) };
        let key = |row: usize| keys.as_ref().map_or(&[][..], |keys| keys.row(row).data());
        let hashes: Vec<u64> = (0..input.num_rows()).map(|row| rows::hash_bytes(key(row))).collect();
        let by_shard = rows::rows_by_shard(hashes.into_iter(), self.shards.len());
        let mut shards = std::mem::take(&mut self.shards);
        let changes: Result<Vec<Delta>, OperatorError> = shards
            .par_iter_mut()
            .zip(by_shard)
            .map(|(shard, rows)| {
                let mut touched: Vec<&[u8]> = rows.iter().map(|row| key(*row as usize)).collect();
                touched.sort_unstable();
                touched.dedup();
                let before = self.compute(shard, &touched)?;
                for row in rows {
                    let row = row as usize;
                    add(shard.entry(key(row).into()).or_default(), encoded.row(row).data(), input.weight(row));
                }
                let after = self.compute(shard, &touched)?;
                for key in touched {
                    if shard.get(key).is_some_and(Partition::is_empty) {
                        shard.remove(key);
                    }
                }
                rows::difference(&self.schema, &before, &after)
            })
            .collect();
        self.shards = shards;
        Ok(Delta::concat(&self.schema, &changes?)?)
    }

    /// The output of some partitions, behind one another.
    fn compute(&self, shard: &HashMap<Box<[u8]>, Partition>, keys: &[&[u8]]) -> Result<RecordBatch, OperatorError> {
        let mut encoded: Vec<&[u8]> = Vec::new();
        let mut lengths = Vec::new();
        for key in keys {
            let start = encoded.len();
            for (row, weight) in shard.get(*key).into_iter().flatten() {
                encoded.extend((0..*weight).map(|_| row.as_ref()));
            }
            lengths.push(encoded.len() - start);
        }
        let mut columns = rows::decode(&self.row_converter, encoded)?;
        let columns = columns.split_off(self.order.len());
        let input = RecordBatch::try_new(Arc::clone(&self.input), columns)?;
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
        let partitions = || self.shards.iter().flat_map(|shard| shard.iter());
        let count = partitions().map(|(_, partition)| partition.len()).sum();
        let bytes = partitions()
            .map(|(key, partition)| key.len() + 64 + partition.keys().map(|row| row.len() + 32).sum::<usize>())
            .sum();
        (count, bytes)
    }

    /// All rows that are kept.
    pub fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let entries = || {
            let partitions = self.shards.iter().flat_map(|shard| shard.iter());
            partitions.flat_map(|(key, partition)| partition.iter().map(move |(row, weight)| (key, row, weight)))
        };
        let schema = Schema::new(vec![
            Field::new("partition", DataType::LargeBinary, false),
            Field::new("row", DataType::LargeBinary, false),
            Field::new("weight", DataType::Int64, false),
        ]);
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(entries().map(|(key, _, _)| Some(key)).collect::<LargeBinaryArray>()),
                Arc::new(entries().map(|(_, row, _)| Some(row)).collect::<LargeBinaryArray>()),
                Arc::new(Int64Array::from_iter_values(entries().map(|(_, _, weight)| *weight))),
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

fn add(partition: &mut Partition, row: &[u8], weight: i64) {
    match partition.get_mut(row) {
        Some(known) if *known + weight == 0 => drop(partition.remove(row)),
        Some(known) => *known += weight,
        None => drop(partition.insert(row.into(), weight)),
    }
}
