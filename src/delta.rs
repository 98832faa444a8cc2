//! The vocabulary of the flow: what moves along an edge of the graph and what describes an epoch.
//!
//! Knows arrow and nothing else of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

/// Rows that appear in or vanish from a relation.
///
/// `weights` has one entry a row: +1 for an insert, -1 for a retraction, any other integer for several at once.
/// `None` means that every row has weight +1, which is what an append-only edge always carries and pays nothing for.
#[derive(Debug, Clone)]
pub struct Delta {
    /// The rows, in the schema of the edge.
    pub batch: RecordBatch,
    /// One weight per row, or `None` where all are +1.
    pub weights: Option<Int64Array>,
}

impl Delta {
    /// Rows that are all inserted.
    pub fn inserts(batch: RecordBatch) -> Self {
        Delta { batch, weights: None }
    }

    /// Rows with a weight each; the two must have the same length.
    pub fn weighted(batch: RecordBatch, weights: Int64Array) -> Self {
        debug_assert_eq!(batch.num_rows(), weights.len());
        Delta { batch, weights: Some(weights) }
    }

    /// A delta of no rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Delta::inserts(RecordBatch::new_empty(schema))
    }

    /// The number of rows, whatever their weights.
    pub fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// True when no row is carried.
    pub fn is_empty(&self) -> bool {
        self.batch.num_rows() == 0
    }

    /// The weight of one row.
    pub fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().map_or(1, |weights| weights.value(row))
    }

    /// All deltas behind one another; weights are made explicit only if one of them has any.
    pub fn concat(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta, ArrowError> {
        if let [only] = deltas {
            return Ok(only.clone());
        }
        let batch = concat_batches(schema, deltas.iter().map(|delta| &delta.batch))?;
        if deltas.iter().all(|delta| delta.weights.is_none()) {
            return Ok(Delta::inserts(batch));
        }
        let weights: Vec<ArrayRef> = deltas
            .iter()
            .map(|delta| match &delta.weights {
                Some(weights) => Arc::new(weights.clone()) as ArrayRef,
                None => Arc::new(Int64Array::from(vec![1; delta.num_rows()])) as ArrayRef,
            })
            .collect();
        let weights: Vec<&dyn Array> = weights.iter().map(AsRef::as_ref).collect();
        let weights = Int64Array::from(concat(&weights)?.to_data());
        Ok(Delta::weighted(batch, weights))
    }
}

/// One partition of one stream; a file is partition 0 of its stream, or one of several in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The stream's name in the catalog.
    pub stream: String,
    /// Its number at the source.
    pub number: i32,
}

/// Records of a partition that were gone before they could be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The stream.
    pub stream: String,
    /// The partition.
    pub partition: i32,
    /// The first of them.
    pub first: i64,
    /// The record behind the last of them, from which on the stream is read.
    pub next: i64,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Lost { stream, partition, first, next } = self;
        write!(f, "records {first} to {} of stream `{stream}` partition {partition}", next - 1)
    }
}

/// For every partition the next record to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offsets(pub BTreeMap<Partition, i64>);

impl Offsets {
    /// The next record to read of one partition, if it was ever read.
    pub fn next(&self, partition: &Partition) -> Option<i64> {
        self.0.get(partition).copied()
    }

    /// Moves one partition to `next`; never back.
    pub fn advance(&mut self, partition: &Partition, next: i64) {
        match self.0.get_mut(partition) {
            Some(offset) => *offset = (*offset).max(next),
            None => {
                self.0.insert(partition.clone(), next);
            }
        }
    }
}

// JSON objects need text keys, so offsets are written as {"orders": {"0": 17}}.
impl Serialize for Offsets {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut streams: BTreeMap<&str, BTreeMap<i32, i64>> = BTreeMap::new();
        for (partition, next) in &self.0 {
            streams.entry(&partition.stream).or_default().insert(partition.number, *next);
        }
        streams.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Offsets {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let streams: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::deserialize(deserializer)?;
        let mut offsets = BTreeMap::new();
        for (stream, partitions) in streams {
            for (number, next) in partitions {
                offsets.insert(Partition { stream: stream.clone(), number }, next);
            }
        }
        Ok(Offsets(offsets))
    }
}

/// The engine's clock: nanoseconds since the Unix epoch, UTC. It never goes back.
pub type Clock = i64;

/// For each stream whose event time is read: up to when it is known, in nanoseconds and as its column of event time
/// counts (wall time or UTC). Never goes back.
pub type Watermarks = BTreeMap<String, i64>;

/// How far time has come: all that operators know of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// The engine's clock.
    pub clock: Clock,
    /// The watermarks of streams that have any.
    pub watermarks: Watermarks,
}

impl From<Clock> for Moment {
    fn from(clock: Clock) -> Self {
        Moment { clock, watermarks: Watermarks::new() }
    }
}
