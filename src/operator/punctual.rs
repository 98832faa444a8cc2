//! The events of a stream that are not late.
//!
//! An event is late when its time is further behind the newest one before it in its partition than is allowed. That is
//! said by the records of the partition alone: batches, shards and other partitions do not show.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};

use crate::delta::Delta;
use crate::operator::state::{find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful};
use crate::plan::clock::{as_integers, nanoseconds};
use crate::plan::flow::Punctuality;
use crate::plan::watermark::is_near;

/// The one table of the state.
const TABLE: &str = "newest";

/// Lets punctual events through; keeps the newest time of each partition.
#[derive(Debug)]
pub struct Punctual {
    punctuality: Punctuality,
    schema: SchemaRef,
    /// Nanoseconds since 1970, as the column counts.
    newest: BTreeMap<i32, i64>,
    late: Option<LateEvents>,
}

/// The events of one step that were too late.
#[derive(Debug, Clone)]
pub struct LateEvents {
    /// Which they are of and what was allowed.
    pub punctuality: Punctuality,
    /// The events, in the schema of their stream; columns that no tag reads are NULL.
    pub events: RecordBatch,
    /// For each of them the newest time before it in its partition, in nanoseconds.
    pub newest: Vec<i64>,
}

impl Punctual {
    /// Over events in `schema`.
    pub fn new(punctuality: Punctuality, schema: SchemaRef) -> Self {
        Punctual { punctuality, schema, newest: BTreeMap::new(), late: None }
    }

    /// Which events are late.
    pub fn punctuality(&self) -> &Punctuality {
        &self.punctuality
    }

    /// The newest event time of each partition with any.
    pub fn newest(&self) -> impl Iterator<Item = (i32, i64)> {
        self.newest.iter().map(|(partition, newest)| (*partition, *newest))
    }

    /// What the last step left out.
    pub fn late(&self) -> Option<&LateEvents> {
        self.late.as_ref()
    }

    /// Takes new events; the records of a partition come in their order.
    pub fn step(&mut self, input: &Delta) -> Result<Delta, OperatorError> {
        self.late = None;
        if input.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let Punctuality { time, partition, timestamp, late_after, .. } = self.punctuality;
        let column = input.batch.column(time);
        let unit = nanoseconds(column.data_type()).unwrap_or(1);
        let times = as_integers(column)?;
        let partitions = primitive_column::<Int32Type>(&input.batch, partition)?;
        let arrived = as_integers(input.batch.column(timestamp))?;
        let mut punctual = Vec::with_capacity(input.num_rows());
        let mut behind = Vec::new();
        // Most records of a batch are of the partition of the record before.
        let mut current: Option<(i32, i64)> = None;
        for row in 0..input.num_rows() {
            if times.is_null(row) {
                punctual.push(true);
                continue;
            }
            let time = times.value(row).saturating_mul(unit);
            let number = partitions.value(row);
            let newest = match current {
                Some((known, newest)) if known == number => Some(newest),
                _ => {
                    if let Some((known, newest)) = current.take() {
                        self.newest.insert(known, newest);
                    }
                    self.newest.get(&number).copied()
                }
            };
            let late = newest.filter(|newest| time < newest.saturating_sub(late_after));
            behind.extend(late);
            punctual.push(late.is_none());
            let arrived = arrived.is_valid(row).then(|| arrived.value(row));
            let moved = if is_near(time, arrived) { newest.max(Some(time)) } else { newest };
            current = moved.map(|newest| (number, newest));
        }
        if let Some((known, newest)) = current {
            self.newest.insert(known, newest);
        }
        if behind.is_empty() {
            return Ok(input.clone());
        }
        let punctual = BooleanArray::from(punctual);
        let events = filter_record_batch(&input.batch, &not(&punctual)?)?;
        self.late = Some(LateEvents { punctuality: self.punctuality.clone(), events, newest: behind });
        Ok(Delta::inserts(filter_record_batch(&input.batch, &punctual)?))
    }
}

/// It keeps a number for each partition, and always gives all of them.
impl Stateful for Punctual {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let schema = Schema::new(vec![
            Field::new("partition", DataType::Int32, false),
            Field::new("newest", DataType::Int64, false),
        ]);
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int32Array::from_iter_values(self.newest.keys().copied())),
                Arc::new(Int64Array::from_iter_values(self.newest.values().copied())),
            ],
        )?;
        Ok(vec![StatePart::whole(TABLE, 1, batch)])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        self.snapshot()
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        for batch in find_parts(parts, TABLE)? {
            let partitions = primitive_column::<Int32Type>(batch, 0)?;
            let newest = primitive_column::<Int64Type>(batch, 1)?;
            self.newest.extend(partitions.values().iter().copied().zip(newest.values().iter().copied()));
        }
        Ok(())
    }

    fn set_saved(&mut self, _: bool) {}
}
