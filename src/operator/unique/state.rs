//! What is remembered as tables: `partitions` and `totals`, which are small and always whole; `entries`; and `records`,
//! those that may still be retracted. What is forgotten goes by its time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use hashbrown::{HashMap, HashSet};

use super::Unique;
use super::seen::{Entry, Shard};
use crate::operator::state::{Gone, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful, rows};

const PARTITIONS: &str = "partitions";
const TOTALS: &str = "totals";
const ENTRIES: &str = "entries";
const RECORDS: &str = "records";

/// Where a record lies in its topic.
type At = (i32, i64);

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

    /// Time and key of an entry, then its first record and whether that is out.
    fn entries_schema(&self) -> SchemaRef {
        let keys = self.layout.schema();
        let keys = keys.fields().iter().map(|field| field.as_ref().clone());
        let rest = [
            Field::new("partition", DataType::Int32, false),
            number("offset"),
            Field::new("is_out", DataType::Boolean, false),
        ];
        Arc::new(Schema::new(std::iter::once(number("time")).chain(keys).chain(rest).collect::<Vec<_>>()))
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
        let places = |entries: &[&Entry]| -> [ArrayRef; 3] {
            [
                Arc::new(Int64Array::from_iter_values(entries.iter().map(|entry| entry.time))),
                Arc::new(Int32Array::from_iter_values(entries.iter().map(|entry| entry.partition))),
                Arc::new(Int64Array::from_iter_values(entries.iter().map(|entry| entry.offset))),
            ]
        };
        let [time, partition, offset] = places(&entries.iter().collect::<Vec<_>>());
        let is_out: BooleanArray = entries.iter().map(|entry| Some(self.is_out(entry))).collect();
        let columns = std::iter::once(time).chain(keys.columns().iter().cloned());
        let columns = columns.chain([partition, offset, Arc::new(is_out) as ArrayRef]).collect();
        let out: Vec<&Entry> = entries.iter().filter(|entry| self.is_out(entry)).collect();
        let numbers: Vec<u64> = out.iter().filter_map(|entry| entry.number).collect();
        let records = match numbers.is_empty() {
            true => RecordBatch::new_empty(Arc::clone(&self.schema)),
            false => self.kept.rows(&numbers)?,
        };
        let records = places(&out).into_iter().chain(records.columns().iter().cloned()).collect();
        Ok([
            RecordBatch::try_new(self.entries_schema(), columns)?,
            RecordBatch::try_new(self.records_schema(), records)?,
        ])
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
        let no_row = || damaged(TOTALS, "it has no row");
        let totals = find_parts(parts, TOTALS)?.find(|batch| batch.num_rows() > 0).ok_or_else(no_row)?;
        let total = |index: usize| -> Result<i64, OperatorError> {
            primitive_column::<Int64Type>(totals, index)?.values().first().copied().ok_or_else(no_row)
        };
        self.forgotten = total(0)?;
        self.dropped.resent = total(1)?.unsigned_abs();
        self.dropped.too_late = total(2)?.unsigned_abs();
        Ok(())
    }

    /// Keeps those of the stored records that are still out; gives the numbers that they have now.
    fn load_records(&mut self, parts: &[StatePart], out: &HashSet<At>) -> Result<HashMap<At, u64>, OperatorError> {
        let mut numbers = HashMap::new();
        for batch in find_parts(parts, RECORDS)? {
            let places = primitive_column::<Int32Type>(batch, 1)?.values().iter().copied();
            let places = places.zip(primitive_column::<Int64Type>(batch, 2)?.values().iter().copied());
            let is_out: BooleanArray = places.clone().map(|at| Some(out.contains(&at))).collect();
            let kept = filter_record_batch(batch, &is_out)?;
            if kept.num_rows() == 0 {
                continue;
            }
            let first = self.kept.next();
            numbers.extend(places.filter(|at| out.contains(at)).zip(first..));
            let newest = primitive_column::<Int64Type>(&kept, 0)?.values().iter().copied().max();
            // The columns of a stream may have changed their places meanwhile.
            let columns = self.schema.fields().iter().map(|field| match kept.column_by_name(field.name()) {
                Some(column) => Arc::clone(column),
                None => new_null_array(field.data_type(), kept.num_rows()),
            });
            let records = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?;
            self.kept.push(records, newest.unwrap_or(i64::MIN))?;
        }
        Ok(numbers)
    }

    /// The entries of a stored batch and whether their records are out.
    fn read_entries(&self, batch: &RecordBatch) -> Result<Vec<(Entry, bool)>, OperatorError> {
        let width = 1 + self.layout.types().len();
        let times = primitive_column::<Int64Type>(batch, 0)?;
        let partitions = primitive_column::<Int32Type>(batch, width)?;
        let offsets = primitive_column::<Int64Type>(batch, width + 1)?;
        let out = batch.columns().get(width + 2).and_then(|column| column.as_boolean_opt());
        let out = out.filter(|out| out.null_count() == 0).ok_or_else(|| damaged(ENTRIES, "a flag is missing"))?;
        let entry = |row: usize| {
            let (time, partition, offset) = (times.value(row), partitions.value(row), offsets.value(row));
            (Entry { time, partition, offset, number: None }, out.value(row) && time >= self.forgotten)
        };
        Ok((0..batch.num_rows()).map(entry).collect())
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
        let mut batches = Vec::new();
        let mut out = HashSet::new();
        for batch in find_parts(parts, ENTRIES)? {
            let entries = self.read_entries(batch)?;
            out.extend(entries.iter().filter(|(_, is_out)| *is_out).map(|(entry, _)| (entry.partition, entry.offset)));
            batches.push((batch, entries));
        }
        let numbers = self.load_records(parts, &out)?;
        for (batch, entries) in batches {
            let columns: Vec<usize> = (1..=self.layout.types().len()).collect();
            let keys = self.layout.read(&batch.project(&columns)?)?;
            let by_shard = rows::rows_by_shard(keys.hashes.iter().copied(), self.shards.len());
            for (shard, taken) in self.shards.iter_mut().zip(by_shard) {
                let entry = |row: &u32| {
                    let (entry, is_out) = entries[*row as usize];
                    let number = numbers.get(&(entry.partition, entry.offset)).copied().filter(|_| is_out);
                    if is_out && number.is_none() {
                        return Err(damaged(RECORDS, "a record that is out is missing"));
                    }
                    Ok(Entry { number, ..entry })
                };
                let loaded = taken.iter().map(entry).collect::<Result<Vec<Entry>, OperatorError>>()?;
                shard.load(&keys, &taken, loaded.into_iter());
            }
        }
        Ok(())
    }

    fn takes_pieces(&self) -> bool {
        // Entries and records tell of one another.
        false
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.told = is_saved.then(|| self.below());
        self.shards.iter_mut().for_each(|shard| shard.set_saved(is_saved));
    }
}
