//! Whole records that may still be retracted, by the numbers that they were given as they came.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch};
use hashbrown::HashMap;

use crate::operator::{OperatorError, rows};

/// Most records of a segment that was put together from smaller ones.
const SEGMENT_RECORDS: usize = 65_536;

/// Where a record lies in its topic.
pub(super) type At = (i32, i64);

/// Batches as they came, small ones put together.
#[derive(Debug, Default)]
pub(super) struct KeptRecords {
    /// By the number of the first record.
    segments: BTreeMap<u64, Segment>,
    next: u64,
    loaded: Loaded,
}

/// Records of a checkpoint, which come in pieces: what tells of them may come before they do.
#[derive(Debug, Default)]
struct Loaded {
    /// By the numbers that were asked for.
    places: HashMap<u64, At>,
    /// Which batch, and which row of it.
    rows: HashMap<At, (usize, usize)>,
    batches: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    records: RecordBatch,
    /// The newest event time in it.
    newest: i64,
    bytes: usize,
}

impl Segment {
    fn new(records: RecordBatch, newest: i64) -> Self {
        let bytes = rows::bytes_of(&records);
        Segment { records, newest, bytes }
    }
}

impl KeptRecords {
    /// The number of the first record of the next batch.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes in use, estimated.
    pub(super) fn bytes(&self) -> usize {
        let Loaded { places, rows, batches } = &self.loaded;
        let records: usize = self.segments.values().chain(batches).map(|segment| segment.bytes).sum();
        records + places.allocation_size() + rows.allocation_size()
    }

    /// Keeps records of a checkpoint, which lie at these places.
    pub(super) fn load(&mut self, records: RecordBatch, places: &[At], newest: i64) {
        let Loaded { rows, batches, .. } = &mut self.loaded;
        rows.extend(places.iter().enumerate().map(|(row, at)| (*at, (batches.len(), row))));
        batches.push(Segment::new(records, newest));
    }

    /// A number for a record of a checkpoint, which is loaded already or will be.
    pub(super) fn number(&mut self, at: At) -> u64 {
        self.loaded.places.insert(self.next, at);
        self.next += 1;
        self.next - 1
    }

    /// Keeps a batch whose newest event time that matters is `newest`. A segment is put together with the one before
    /// unless that is more than twice as long, so that each record is copied a few times at most.
    pub(super) fn push(&mut self, records: RecordBatch, newest: i64) -> Result<(), OperatorError> {
        let first = self.next;
        self.next += records.num_rows() as u64;
        self.segments.insert(first, Segment::new(records, newest));
        while let Some((last, two)) = self.last_two_to_join() {
            let Some(segment) = self.segments.remove(&last) else { break };
            let Some(before) = self.segments.get_mut(&two) else { break };
            let records = concat_batches(&segment.records.schema(), [&before.records, &segment.records])?;
            *before = Segment::new(records, before.newest.max(segment.newest));
        }
        Ok(())
    }

    /// The last segment and the one before it, if they should be one.
    fn last_two_to_join(&self) -> Option<(u64, u64)> {
        let mut backwards = self.segments.iter().rev();
        let ((last, segment), (before, longer)) = (backwards.next()?, backwards.next()?);
        let (length, longer) = (segment.records.num_rows(), longer.records.num_rows());
        // The numbers between two segments may be missing: those of the ones that are forgotten.
        let touch = before + longer as u64 == *last;
        (touch && longer <= 2 * length && longer + length <= SEGMENT_RECORDS).then_some((*last, *before))
    }

    /// Lets go the segments all of whose records lie before `oldest`.
    pub(super) fn forget(&mut self, oldest: i64) {
        self.segments.retain(|_, segment| segment.newest >= oldest);
        if self.loaded.batches.iter().all(|segment| segment.newest < oldest) {
            self.loaded = Loaded::default();
        }
    }

    /// The records with these numbers, of which there is at least one.
    pub(super) fn rows(&self, numbers: &[u64]) -> Result<RecordBatch, OperatorError> {
        let segments: Vec<(&u64, &Segment)> = self.segments.iter().collect();
        let own = |number: &u64| {
            let segment = segments.partition_point(|(first, _)| *first <= number).checked_sub(1)?;
            let (first, found) = segments[segment];
            let row = usize::try_from(number - first).ok()?;
            (row < found.records.num_rows()).then_some((segment, row))
        };
        let loaded = |number: &u64| {
            let (batch, row) = self.loaded.rows.get(self.loaded.places.get(number)?)?;
            Some((segments.len() + batch, *row))
        };
        let missing = || OperatorError::State {
            what: "a stream without resent records".to_string(),
            reason: "a record that is to be retracted is missing".to_string(),
        };
        let places = numbers
            .iter()
            .map(|number| own(number).or_else(|| loaded(number)).ok_or_else(missing))
            .collect::<Result<Vec<_>, _>>()?;
        let segments = segments.iter().map(|(_, segment)| *segment).chain(&self.loaded.batches);
        let batches: Vec<&RecordBatch> = segments.map(|segment| &segment.records).collect();
        if batches.is_empty() {
            return Err(missing());
        }
        Ok(interleave_record_batch(&batches, &places)?)
    }
}
