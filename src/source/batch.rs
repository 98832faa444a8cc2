//! Records of one partition on their way to a [`SourceBatch`]: decoded or put aside, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dead_letter::DeadLetters;
use super::decode::{DecodeError, Decoder, RawRecord, Unavailable};
use super::{ReadRequest, SourceBatch, SourceContext};
use crate::delta::Partition;

/// Most records of a batch.
const MOST_RECORDS: usize = 16_384;
/// Longest time that a record waits for its batch to fill.
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Collects the records of one partition.
pub(super) struct PartitionBatcher {
    partition: Arc<Partition>,
    topic: Arc<str>,
    decoder: Decoder,
    dead_letters: Arc<DeadLetters>,
    offsets: Vec<i64>,
    next_offset: i64,
    newest_timestamp: Option<i64>,
    records: usize,
    /// A record became a dead letter.
    has_letters: bool,
    raw_bytes: usize,
    most_bytes: usize,
    since: Option<Instant>,
}

impl PartitionBatcher {
    /// Begins at offset `next`. `topic` is what `_topic` shows.
    pub(super) fn new(
        request: &ReadRequest,
        context: &SourceContext,
        topic: Arc<str>,
        number: i32,
        next: i64,
    ) -> Result<Self, DecodeError> {
        let stream = request.stream.as_ref();
        if stream.truncates && number != 0 {
            let message = "`truncates` needs a stream of one partition: a TRUNCATE in one partition does not tell \
                           which changes of another came before it";
            return Err(DecodeError(message.into()));
        }
        Ok(PartitionBatcher {
            partition: Arc::new(Partition { stream: stream.name.clone(), number }),
            topic,
            decoder: Decoder::new(stream, &request.columns)?,
            dead_letters: context.dead_letters.clone(),
            offsets: Vec::new(),
            next_offset: next,
            newest_timestamp: None,
            records: 0,
            has_letters: false,
            raw_bytes: 0,
            most_bytes: request.room.batch,
            since: None,
        })
    }

    pub(super) fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// The next record to read.
    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Gets what the next record needs from elsewhere; without it, it has to be tried again before any other.
    #[inline]
    pub(super) fn prepare(&mut self, payload: Option<&[u8]>) -> Result<(), Unavailable> {
        self.decoder.prepare(payload)
    }

    /// Takes one record, whose successor is at `next`; what does not decode becomes a dead letter.
    #[inline]
    pub(super) fn push(
        &mut self,
        offset: i64,
        next: i64,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) {
        let record =
            RawRecord { topic: &self.topic, partition: self.partition.number, offset, timestamp, key, payload };
        let before = self.decoder.rows();
        match self.decoder.decode(&record) {
            Ok(()) => {
                self.offsets.extend(std::iter::repeat_n(offset, self.decoder.rows() - before));
                if self.decoder.values_as_null() > 0 {
                    self.dead_letters.count_nulls(&self.partition, offset, self.decoder.values_as_null());
                }
            }
            Err(error) => {
                self.has_letters = true;
                self.dead_letters.put(&self.partition.stream, &record, &error);
            }
        }
        self.count(next, timestamp, payload.map_or(0, <[u8]>::len));
    }

    /// Takes one record that is known to be of no use.
    pub(super) fn refuse(
        &mut self,
        offset: i64,
        next: i64,
        timestamp: Option<i64>,
        payload: &[u8],
        error: &DecodeError,
    ) {
        let (topic, partition) = (&*self.topic, self.partition.number);
        let record = RawRecord { topic, partition, offset, timestamp, key: None, payload: Some(payload) };
        self.has_letters = true;
        self.dead_letters.put(&self.partition.stream, &record, error);
        self.count(next, timestamp, payload.len());
    }

    fn count(&mut self, next: i64, timestamp: Option<i64>, bytes: usize) {
        self.records += 1;
        self.raw_bytes += bytes;
        self.newest_timestamp = self.newest_timestamp.max(timestamp);
        self.next_offset = next;
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    /// There is nothing more before `next`: transaction markers, compacted records, a header.
    pub(super) fn skip_to(&mut self, next: i64) {
        if next > self.next_offset {
            self.next_offset = next;
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// No record should be added before the batch is taken.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.records >= MOST_RECORDS || self.raw_bytes >= self.most_bytes
    }

    /// When the batch has to go even if it is small; `None` when there is nothing.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + LONGEST_WAIT)
    }

    /// The batch so far, if there is anything to tell.
    pub(super) fn take(&mut self, end_offset: i64) -> Option<SourceBatch> {
        self.since.take()?;
        if std::mem::take(&mut self.has_letters) {
            self.dead_letters.flush(&self.partition.stream);
        }
        let room = self.offsets.len();
        self.records = 0;
        Some(SourceBatch {
            partition: self.partition.clone(),
            batch: self.decoder.finish(),
            offsets: std::mem::replace(&mut self.offsets, Vec::with_capacity(room)),
            next_offset: self.next_offset,
            end_offset: end_offset.max(self.next_offset),
            newest_timestamp: self.newest_timestamp.take(),
            raw_bytes: std::mem::take(&mut self.raw_bytes),
        })
    }
}
