//! What is remembered as tables: `partitions` and `totals`, which are small and always whole; `entries`; and `records`,
//! those that may still be retracted. What is forgotten goes by its time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};

use super::kept::At;
use super::seen::{Entry, Shard};
use super::{Dropped, Unique};
use crate::operator::aggregate::keys::{BatchKeys, KeyLayout};
use crate::operator::cold::KeyColumns;
use crate::operator::state::{Gone, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful, rows};

const PARTITIONS: &str = "partitions";
const TOTALS: &str = "totals";
pub(super) const ENTRIES: &str = "entries";
const RECORDS: &str = "records";

fn number(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

/// The time and place of a record, by names that no column of a stream has.
fn record_key() -> Vec<Field> {
    vec![number("#time"), Field::new("#partition", DataType::Int32, false), number("#offset")]
}

fn damaged(what: &str, reason: &str) -> OperatorError {
    OperatorError::State { what: what.to_string(), reason: reason.to_string() }
}

/// Time and key of an entry, then its first record and whether that is out.
fn entries_schema(layout: &KeyLayout) -> SchemaRef {
    let keys = layout.schema();
    let keys = keys.fields().iter().map(|field| field.as_ref().clone());
    let rest = [
        Field::new("partition", DataType::Int32, false),
        number("offset"),
        Field::new("is_out", DataType::Boolean, false),
    ];
    Arc::new(Schema::new(std::iter::once(number("time")).chain(keys).chain(rest).collect::<Vec<_>>()))
}

/// Which of these columns are the key.
pub(super) fn entry_columns(layout: &KeyLayout) -> Result<KeyColumns, OperatorError> {
    KeyColumns::behind(1, layout.types())
}

/// Time, partition and offset of entries.
fn places<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> [ArrayRef; 3] {
    [
        Arc::new(Int64Array::from_iter_values(entries.clone().map(|entry| entry.time))),
        Arc::new(Int32Array::from_iter_values(entries.clone().map(|entry| entry.partition))),
        Arc::new(Int64Array::from_iter_values(entries.map(|entry| entry.offset))),
    ]
}

/// Entries and their keys as a table.
pub(super) fn entries_table(
    layout: &KeyLayout,
    entries: &[Entry],
    keys: &RecordBatch,
    is_out: impl Fn(&Entry) -> bool,
) -> Result<RecordBatch, OperatorError> {
    let [time, partition, offset] = places(entries.iter());
    let is_out: BooleanArray = entries.iter().map(|entry| Some(is_out(entry))).collect();
    let columns = std::iter::once(time).chain(keys.columns().iter().cloned());
    let columns = columns.chain([partition, offset, Arc::new(is_out) as ArrayRef]).collect();
    Ok(RecordBatch::try_new(entries_schema(layout), columns)?)
}

/// Keys and entries of such a table, and whether their records were out; they have no number.
pub(super) fn read_entries(
    batch: &RecordBatch,
    layout: &KeyLayout,
) -> Result<(BatchKeys, Vec<(Entry, bool)>), OperatorError> {
    let width = 1 + layout.types().len();
    let times = primitive_column::<Int64Type>(batch, 0)?;
    let partitions = primitive_column::<Int32Type>(batch, width)?;
    let offsets = primitive_column::<Int64Type>(batch, width + 1)?;
    let out = batch.columns().get(width + 2).and_then(|column| column.as_boolean_opt());
    let out = out.filter(|out| out.null_count() == 0).ok_or_else(|| damaged(ENTRIES, "a flag is missing"))?;
    let entry = |row: usize| {
        let (time, partition, offset) = (times.value(row), partitions.value(row), offsets.value(row));
        (Entry { time, partition, offset, number: None }, out.value(row))
    };
    let entries = (0..batch.num_rows()).map(entry).collect();
    Ok((layout.read(&batch.project(&(1..width).collect::<Vec<_>>())?)?, entries))
}

impl Unique {
    fn small_parts(&self) -> Result<[StatePart; 2], OperatorError> {
        let newest = &self.partitions.newest;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(newest.keys().copied())),
            Arc::new(Int64Array::from_iter_values(newest.values().copied())),
        ];
        let fields = vec![Field::new("partition", DataType::Int32, false), number("newest")];
        let partitions = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let totals = [self.forgotten, self.dropped.resent as i64, self.dropped.too_late as i64];
        let totals = totals.iter().map(|total| Arc::new(Int64Array::from(vec![*total])) as ArrayRef).collect();
        let fields = ["forgotten", "resent", "too_late"].map(number).to_vec();
        let totals = RecordBatch::try_new(Arc::new(Schema::new(fields)), totals)?;
        Ok([StatePart::whole(PARTITIONS, 1, partitions), StatePart::whole(TOTALS, 3, totals)])
    }

    fn records_schema(&self) -> SchemaRef {
        let columns = self.schema.fields().iter().map(|field| field.as_ref().clone());
        Arc::new(Schema::new(record_key().into_iter().chain(columns).collect::<Vec<_>>()))
    }

    /// The record of an entry is out and may still be retracted.
    fn is_out(&self, entry: &Entry) -> bool {
        entry.number.is_some() && entry.time >= self.forgotten
    }

    /// The entries of these slots of each shard, or all, and the records that they hold.
    fn large_tables(&self, slots: Option<&[Vec<u32>]>) -> Result<[RecordBatch; 2], OperatorError> {
        let of_shard = |(index, shard): (usize, &Shard)| {
            shard.entries_of(slots.map(|slots| slots[index].as_slice()), &self.layout)
        };
        let found = self.shards.iter().enumerate().map(of_shard).collect::<Result<Vec<_>, _>>()?;
        let keys = concat_batches(&self.layout.schema(), found.iter().map(|(_, keys)| keys))?;
        let entries: Vec<Entry> = found.into_iter().flat_map(|(entries, _)| entries).collect();
        let table = entries_table(&self.layout, &entries, &keys, |entry| self.is_out(entry))?;
        let out: Vec<&Entry> = entries.iter().filter(|entry| self.is_out(entry)).collect();
        let numbers: Vec<u64> = out.iter().filter_map(|entry| entry.number).collect();
        let records = match numbers.is_empty() {
            true => RecordBatch::new_empty(Arc::clone(&self.schema)),
            false => self.kept.rows(&numbers)?,
        };
        let records = places(out.iter().copied()).into_iter().chain(records.columns().iter().cloned()).collect();
        Ok([table, RecordBatch::try_new(self.records_schema(), records)?])
    }

    fn parts(&self, slots: Option<&[Vec<u32>]>, told: Option<[i64; 2]>) -> Result<Vec<StatePart>, OperatorError> {
        let width = 1 + self.layout.types().len();
        let [entries, records] = self.large_tables(slots)?;
        let large = if slots.is_none() {
            [StatePart::whole(ENTRIES, width, entries), StatePart::whole(RECORDS, 3, records)]
        } else {
            let [entries_below, records_below] = self.below();
            let [entries_told, records_told] = told.unwrap_or([i64::MIN; 2]);
            let gone = |batch: &RecordBatch, key: usize, below: i64, told: i64| -> Result<Gone, OperatorError> {
                let keys = batch.slice(0, 0).project(&(0..key).collect::<Vec<_>>())?;
                Ok(Gone { keys, below: (below != told).then_some(below) })
            };
            let of_entries = gone(&entries, width, entries_below, entries_told)?;
            let of_records = gone(&records, 3, records_below, records_told)?;
            [
                StatePart::changes(ENTRIES, width, entries, of_entries),
                StatePart::changes(RECORDS, 3, records, of_records),
            ]
        };
        Ok(self.small_parts()?.into_iter().chain(large).collect())
    }

    /// What lies below is forgotten: entries, records.
    fn below(&self) -> [i64; 2] {
        [self.swept.saturating_sub(self.rule.within), self.forgotten]
    }

    fn load_small_parts(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        for batch in find_parts(parts, PARTITIONS)? {
            let numbers = primitive_column::<Int32Type>(batch, 0)?.values().iter();
            let newest = primitive_column::<Int64Type>(batch, 1)?.values().iter();
            self.partitions.newest.extend(numbers.copied().zip(newest.copied()));
        }
        // They come once, with one of the pieces.
        if let Some(totals) = find_parts(parts, TOTALS)?.find(|batch| batch.num_rows() > 0) {
            let total = |index: usize| Ok::<i64, OperatorError>(primitive_column::<Int64Type>(totals, index)?.value(0));
            self.forgotten = total(0)?;
            self.dropped = Dropped { resent: total(1)?.unsigned_abs(), too_late: total(2)?.unsigned_abs() };
        }
        Ok(())
    }

    /// Keeps stored records, of which some may be out no more.
    fn load_records(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        for batch in find_parts(parts, RECORDS)? {
            let Some(newest) = primitive_column::<Int64Type>(batch, 0)?.values().iter().copied().max() else {
                continue;
            };
            let partitions = primitive_column::<Int32Type>(batch, 1)?.values().iter().copied();
            let offsets = primitive_column::<Int64Type>(batch, 2)?.values().iter().copied();
            let places: Vec<At> = partitions.zip(offsets).collect();
            // The columns of a stream may have changed their places meanwhile.
            let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
                Some(column) => Arc::clone(column),
                None => new_null_array(field.data_type(), batch.num_rows()),
            });
            let records = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?;
            self.kept.load(records, &places, newest);
        }
        Ok(())
    }
}

impl Stateful for Unique {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        self.parts(None, None)
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let slots: Option<Vec<Vec<u32>>> = self.shards.iter_mut().map(Shard::take_changed).collect();
        let parts = self.parts(slots.as_deref(), self.told)?;
        self.set_saved(true);
        Ok(parts)
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        self.load_small_parts(parts)?;
        self.load_records(parts)?;
        for batch in find_parts(parts, ENTRIES)? {
            let (keys, entries) = read_entries(batch, &self.layout)?;
            let by_shard = rows::rows_by_shard(keys.hashes.iter().copied(), self.shards.len());
            for (shard, taken) in self.shards.iter_mut().zip(by_shard) {
                let kept = &mut self.kept;
                let mut entry = |row: &u32| {
                    let (entry, is_out) = entries[*row as usize];
                    Entry { number: is_out.then(|| kept.number((entry.partition, entry.offset))), ..entry }
                };
                let loaded: Vec<Entry> = taken.iter().map(&mut entry).collect();
                // Another piece may have had entries of the same key.
                shard.bring_in(&self.layout, &keys, &taken)?;
                shard.load(&keys, &taken, loaded.into_iter());
            }
        }
        Ok(())
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.told = is_saved.then(|| self.below());
        self.shards.iter_mut().for_each(|shard| shard.set_saved(is_saved));
    }
}
