//! A stream without what was sent again, by the rule of [`UniqueRule`].
//!
//! Of every key the distinct event times are remembered, each with the first record of it (by partition, then offset);
//! a new key, or a copy of a known record, costs one look-up. A record that comes after one that it lies before can
//! make that one a resent one: it is then retracted, so records that are out are kept whole as long as that can happen.
//!
//! What is forgotten, and when. Let P be the least of all partitions' newest event times, and L = P - patience. A
//! record that is still to come and is not too late has an event time t >= L, since its own partition's newest is at
//! least P, and newest times only grow. It asks for two things:
//! - whether the record before it is at most `within` away: a record before L - `within` is further than that from t,
//!   and one that has none before it is first just the same, so event times before L - `within` are not needed;
//! - the record behind it, to retract it: that one lies at or behind t >= L, so no whole record before L is needed.
//!
//! P is known once all partitions are: until then nothing is forgotten, and a partition without records keeps all. A
//! partition that is added to a topic later may hold records from before L; they are too late like all others.

mod seen;
mod spill;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef};
use arrow::row::{RowConverter, Rows};
use rayon::prelude::*;

use self::seen::{Changes, Shard};
use crate::delta::Delta;
use crate::operator::aggregate::keys::{BatchKeys, KeyLayout};
use crate::operator::{OperatorError, rows};
use crate::plan::clock::as_integers;
use crate::plan::unique::UniqueRule;
use crate::plan::watermark::is_near;

/// Keys in memory are looked through for what can be forgotten after so many new records, or half as many as are remembered.
const SWEEP_RECORDS: usize = 4096;

/// Drops resent records, and those that are too late to tell.
#[derive(Debug)]
pub struct Unique {
    rule: UniqueRule,
    /// Of the input and the output, all columns nullable.
    schema: SchemaRef,
    layout: KeyLayout,
    /// Of whole records: their columns by name, whatever their places in the schema.
    converter: RowConverter,
    /// The places of the columns in that order.
    by_name: Vec<usize>,
    partitions: Partitions,
    /// L: what lies before it is too late in every partition.
    forgotten: i64,
    /// `forgotten` when the keys were last looked through.
    swept: i64,
    /// Records remembered since then.
    since_sweep: usize,
    shards: Vec<Shard>,
    dropped: Dropped,
    /// What lies below was forgotten when the last checkpoint was taken: entries, records.
    told: Option<[i64; 2]>,
}

/// How many records were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Sent again.
    pub resent: u64,
    /// Too late to tell whether they were.
    pub too_late: u64,
}

/// The newest event time of each partition so far.
#[derive(Debug, Default)]
struct Partitions {
    newest: BTreeMap<i32, i64>,
    /// All that the stream has; empty as long as that is not known.
    known: BTreeSet<i32>,
}

/// Records in columns.
#[derive(Debug)]
struct Records<'a> {
    times: Int64Array,
    partitions: &'a Int32Array,
    offsets: &'a Int64Array,
    /// The broker's times, in milliseconds.
    arrived: Int64Array,
    keys: BatchKeys,
    /// Encoded.
    whole: Rows,
    /// Where the event time and all columns of the key have a value; `None` for everywhere.
    comparable: Option<NullBuffer>,
}

impl Unique {
    /// Over the records of a stream with the columns `schema`.
    pub fn new(rule: UniqueRule, schema: SchemaRef, shards: usize) -> Result<Self, OperatorError> {
        let types = rule.columns.iter().map(|name| Ok(schema.field_with_name(name)?.data_type().clone()));
        let layout = KeyLayout::new(types.collect::<Result<_, OperatorError>>()?)?;
        let mut by_name: Vec<usize> = (0..schema.fields().len()).collect();
        by_name.sort_by_key(|place| schema.field(*place).name());
        let converter = rows::converter(by_name.iter().map(|place| schema.field(*place).data_type()))?;
        let shards = (0..shards.max(1)).map(|_| Shard::new(&layout)).collect::<Result<_, _>>()?;
        Ok(Unique {
            rule,
            schema,
            layout,
            converter,
            by_name,
            partitions: Partitions::default(),
            forgotten: i64::MIN,
            swept: i64::MIN,
            since_sweep: 0,
            shards,
            dropped: Dropped::default(),
            told: None,
        })
    }

    /// Says which partitions the stream has: what all of them have passed can be forgotten from then on.
    pub fn note_partitions(&mut self, numbers: impl Iterator<Item = i32>) {
        self.partitions.known.extend(numbers);
    }

    /// Takes records, those of each partition in their order.
    pub fn step(&mut self, input: &Delta) -> Result<Delta, OperatorError> {
        if input.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let records = self.records(&input.batch)?;
        let (shown, taken) = self.judge(&records);
        let (within, below) = (self.rule.within, self.below());
        let Unique { shards, layout, .. } = self;
        let take = |(shard, rows): (&mut Shard, &Vec<u32>)| {
            shard.bring_in(layout, &records.keys, rows, below)?;
            Ok(shard.take(&records, rows, within))
        };
        let changes = shards.par_iter_mut().zip(&taken).map(take).collect::<Result<Vec<Changes>, OperatorError>>()?;
        for (change, taken) in changes.iter().zip(&taken) {
            self.dropped.resent += (taken.len() - change.shown.len() + change.retracted.len()) as u64;
            self.since_sweep += taken.len();
        }
        let delta = self.show(&input.batch, shown, changes)?;
        self.forget()?;
        Ok(delta)
    }

    /// Which rows are out whatever else there is, and the rows of each shard that are compared; the rest is too late.
    fn judge(&mut self, records: &Records<'_>) -> (Vec<bool>, Vec<Vec<u32>>) {
        let mut shown = vec![false; records.times.len()];
        let mut taken = vec![Vec::new(); self.shards.len()];
        for (row, shown) in shown.iter_mut().enumerate() {
            let time = records.times.is_valid(row).then(|| records.times.value(row));
            let is_late = time.is_some_and(|time| {
                let arrived = records.arrived.is_valid(row).then(|| records.arrived.value(row));
                let moves = is_near(self.rule.instant(time), arrived);
                let late = self.partitions.pass(records.partitions.value(row), time, moves, self.rule.patience);
                late || time < self.forgotten
            });
            if records.comparable.as_ref().is_some_and(|comparable| comparable.is_null(row)) {
                *shown = true;
            } else if is_late {
                self.dropped.too_late += 1;
            } else {
                taken[rows::shard_of(records.keys.hashes[row], self.shards.len())].push(row as u32);
            }
        }
        (shown, taken)
    }

    /// The rows that are out now, and the records that are so no more.
    fn show(&self, batch: &RecordBatch, mut shown: Vec<bool>, changes: Vec<Changes>) -> Result<Delta, OperatorError> {
        changes.iter().flat_map(|change| &change.shown).for_each(|row| shown[*row as usize] = true);
        let gone: Vec<Box<[u8]>> = changes.into_iter().flat_map(|change| change.retracted).collect();
        let out = Delta::inserts(filter_record_batch(batch, &BooleanArray::from(shown))?);
        if gone.is_empty() {
            return Ok(out);
        }
        let weights = Int64Array::from(vec![-1; gone.len()]);
        let by_name = rows::decode(&self.converter, gone.iter().map(AsRef::as_ref))?;
        let mut columns: Vec<(usize, ArrayRef)> = self.by_name.iter().copied().zip(by_name).collect();
        columns.sort_unstable_by_key(|(place, _)| *place);
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let gone = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(Delta::concat(&self.schema, &[out, Delta::weighted(gone, weights)])?)
    }

    /// Lets go what no record that is still to come asks for; the module's head says why.
    fn forget(&mut self) -> Result<(), OperatorError> {
        let Some(passed) = self.partitions.passed_by_all() else { return Ok(()) };
        self.forgotten = self.forgotten.max(passed.saturating_sub(self.rule.patience));
        let remembered: usize = self.shards.iter().map(|shard| shard.entries).sum();
        if self.forgotten > self.swept && self.since_sweep >= SWEEP_RECORDS.max(remembered / 2) {
            (self.swept, self.since_sweep) = (self.forgotten, 0);
            let [oldest, settled] = self.below();
            let Unique { shards, layout, rule, .. } = self;
            shards.par_iter_mut().try_for_each(|shard| {
                shard.forget(oldest, settled);
                shard.forget_away(layout, rule.instant(oldest), [oldest, settled])
            })?;
        }
        Ok(())
    }

    fn records<'a>(&self, batch: &'a RecordBatch) -> Result<Records<'a>, OperatorError> {
        let times = cast(column(batch, &self.rule.time)?, &DataType::Int64)?;
        let partitions = column(batch, "_partition")?.as_primitive_opt::<Int32Type>();
        let offsets = column(batch, "_offset")?.as_primitive_opt::<Int64Type>();
        let (Some(partitions), Some(offsets)) = (partitions, offsets) else {
            return Err(OperatorError::Expression("`_partition` and `_offset` are no numbers".to_string()));
        };
        let keys: Vec<ArrayRef> =
            self.rule.columns.iter().map(|name| column(batch, name).cloned()).collect::<Result<_, _>>()?;
        let nulls: Vec<Option<NullBuffer>> = keys.iter().chain([&times]).map(|column| column.logical_nulls()).collect();
        Ok(Records {
            times: times.as_primitive::<Int64Type>().clone(),
            partitions,
            offsets,
            arrived: as_integers(column(batch, "_timestamp")?)?,
            keys: self.layout.prepare(&keys)?,
            whole: self.converter.convert_columns(batch.project(&self.by_name)?.columns())?,
            comparable: NullBuffer::union_many(nulls.iter().map(Option::as_ref)),
        })
    }

    /// How many records were dropped since the beginning of its history.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Event times and records remembered, and the bytes that they take in memory, estimated.
    pub fn size(&self) -> (usize, usize) {
        let entries = self.shards.iter().map(|shard| shard.entries + shard.cold.size().rows).sum();
        (entries, self.shards.iter().map(Shard::bytes).sum())
    }
}

impl Partitions {
    /// Takes the next record of a partition, which may move its newest time; true when it is too late.
    fn pass(&mut self, partition: i32, time: i64, moves: bool, patience: i64) -> bool {
        let newest = self.newest.get(&partition).copied();
        if moves && newest.is_none_or(|newest| newest < time) {
            self.newest.insert(partition, time);
        }
        newest.is_some_and(|newest| time < newest.saturating_sub(patience))
    }

    /// The event time up to which every partition has come, if it is known.
    fn passed_by_all(&self) -> Option<i64> {
        let have_come = !self.known.is_empty() && self.known.iter().all(|number| self.newest.contains_key(number));
        self.newest.values().copied().min().filter(|_| have_come)
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, OperatorError> {
    let missing = || OperatorError::Expression(format!("column `{name}` was not read"));
    batch.column_by_name(name).ok_or_else(missing)
}
