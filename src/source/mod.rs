//! Where events come from: Kafka, files, the generator. Bytes become Arrow here, and nowhere else.
//!
//! Enters: a [`Stream`](crate::catalog::Stream), the columns that any tag needs, and where to start.
//! Leaves: [`SourceBatch`]es on one bounded channel, and dead letters for what does not decode.
//! Never keeps an offset of its own: the engine's checkpoint does, and hands it back at the start.

pub mod decode;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::catalog::Stream;
use crate::delta::Partition;

/// Some records of one partition in offset order, decoded.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// Where they are from.
    pub partition: Arc<Partition>,
    /// The requested columns, in the requested order.
    pub batch: RecordBatch,
    /// The offset of each row of `batch`, ascending. Records that became dead letters leave holes.
    pub offsets: Vec<i64>,
    /// The next record to read after this batch, dead letters included.
    pub next_offset: i64,
    /// The partition's end as last heard of (the offset behind its last record), for the lag.
    pub end_offset: i64,
    /// Newest broker timestamp among the records, milliseconds since the Unix epoch; for the lag in time.
    pub newest_timestamp: Option<i64>,
    /// Bytes of the raw records, for limits and metrics.
    pub raw_bytes: usize,
}

/// What a source is asked to read.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Indices into [`Stream::schema`] of the columns that are needed; only they are decoded, and
    /// every NOT NULL column is looked at all the same, so that what is a dead letter does not depend on the tags.
    pub columns: Vec<usize>,
    /// Next record to read of the partitions already known; others start where the stream's `start` says.
    pub from: BTreeMap<i32, i64>,
    /// Where each partition ends for this reader (exclusive), for a fill or a replay; `None` reads on for ever.
    pub until: Option<BTreeMap<i32, i64>>,
}

/// What a source tells the engine.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records.
    Batch(SourceBatch),
    /// A reader with an end has delivered everything before it, or a file that is not followed has been read.
    Finished {
        /// The stream.
        stream: String,
    },
    /// A partition was seen for the first time: its first and its end offset, and where reading starts.
    /// `beginning` above 0 means that retention has already dropped older records.
    Partition {
        /// Which.
        partition: Arc<Partition>,
        /// The oldest record that is still there.
        beginning: i64,
        /// The offset behind the last record.
        end: i64,
        /// The next record to be read.
        next: i64,
    },
    /// A passing fault (broker away): for status and log; the source goes on trying.
    Trouble {
        /// The stream.
        stream: String,
        /// What happened.
        message: String,
    },
    /// The source cannot go on (records lost to retention, topic gone, wrong password).
    Failed {
        /// The stream.
        stream: String,
        /// What happened and what to do.
        message: String,
    },
}
