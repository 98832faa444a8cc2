//! What is remembered as tables: `partitions` and `totals`, which are small and always whole; `times`, the entries; and
//! `records`, those of them that are out and may still be retracted. What is forgotten goes by its time.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, LargeBinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};

use super::seen::{Entry, Shard};
use super::{Dropped, Unique};
use crate::operator::aggregate::keys::{BatchKeys, KeyLayout};
use crate::operator::cold::KeyColumns;
use crate::operator::state::{Gone, binary_column, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful, rows};

const PARTITIONS: &str = "partitions";
const TOTALS: &str = "totals";
pub(super) const TIMES: &str = "times";
pub(super) const RECORDS: &str = "records";

fn number(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

/// Time and key of an entry, then its first record: where that is, and itself in the second of both tables.
fn schemas(layout: &KeyLayout) -> [SchemaRef; 2] {
    let keys = layout.schema();
    let keys = keys.fields().iter().map(|field| field.as_ref().clone());
    let place = [Field::new("partition", DataType::Int32, false), number("offset")];
    let times: Vec<Field> = std::iter::once(number("time")).chain(keys).chain(place).collect();
    let record = Field::new("record", DataType::LargeBinary, false);
    let records = times.iter().cloned().chain([record]).collect::<Vec<_>>();
    [times, records].map(|fields| Arc::new(Schema::new(fields)))
}

/// Which columns of both tables are the key.
pub(super) fn key_columns(layout: &KeyLayout) -> Result<KeyColumns, OperatorError> {
    KeyColumns::behind(1, layout.types())
}

/// How many columns tell the rows of both tables apart: time and key.
pub(super) fn width(layout: &KeyLayout) -> usize {
    1 + layout.types().len()
}

/// Entries of a shard as the rows of both tables.
pub(super) fn tables(
    shard: &Shard,
    entries: &[(u32, &Entry)],
    layout: &KeyLayout,
) -> Result<[RecordBatch; 2], OperatorError> {
    let columns = |entries: &[(u32, &Entry)]| -> Result<Vec<ArrayRef>, OperatorError> {
        let slots: Vec<u32> = entries.iter().map(|(slot, _)| *slot).collect();
        let numbers = |of: fn(&Entry) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(entries.iter().map(|(_, entry)| of(entry))))
        };
        let partitions = Int32Array::from_iter_values(entries.iter().map(|(_, entry)| entry.partition));
        let mut columns = vec![numbers(|entry| entry.time)];
        columns.extend(shard.index.columns(layout, &slots)?);
        columns.extend([Arc::new(partitions) as ArrayRef, numbers(|entry| entry.offset)]);
        Ok(columns)
    };
    let out: Vec<(u32, &Entry)> = entries.iter().copied().filter(|(_, entry)| entry.record.is_some()).collect();
    let records = LargeBinaryArray::from_iter_values(out.iter().filter_map(|(_, entry)| entry.record.as_deref()));
    let [times_schema, records_schema] = schemas(layout);
    let times = RecordBatch::try_new(times_schema, columns(entries)?)?;
    let records = columns(&out)?.into_iter().chain([Arc::new(records) as ArrayRef]).collect();
    Ok([times, RecordBatch::try_new(records_schema, records)?])
}

/// Keys and entries of a part of one of both tables.
pub(super) fn read_entries(
    part: &StatePart,
    layout: &KeyLayout,
) -> Result<(BatchKeys, impl Fn(u32) -> Entry), OperatorError> {
    let (batch, width) = (&part.batch, width(layout));
    let times = primitive_column::<Int64Type>(batch, 0)?;
    let partitions = primitive_column::<Int32Type>(batch, width)?;
    let offsets = primitive_column::<Int64Type>(batch, width + 1)?;
    let records = if part.name == RECORDS { Some(binary_column(batch, width + 2)?) } else { None };
    let entry = move |row: u32| {
        let row = row as usize;
        let record = records.map(|records| records.value(row).into());
        Entry { time: times.value(row), partition: partitions.value(row), offset: offsets.value(row), record }
    };
    Ok((layout.read(&batch.project(&(1..width).collect::<Vec<_>>())?)?, entry))
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

    /// The entries of these slots of each shard, or all in memory, in both tables; and time and key of those among them that
    /// are not out.
    fn large_tables(&self, slots: Option<&[Vec<u32>]>) -> Result<([RecordBatch; 2], RecordBatch), OperatorError> {
        let key: Vec<usize> = (0..width(&self.layout)).collect();
        let (mut times, mut records, mut not_out) = (Vec::new(), Vec::new(), Vec::new());
        for (index, shard) in self.shards.iter().enumerate() {
            let entries = shard.entries_of(slots.map(|slots| slots[index].as_slice()));
            let rest: Vec<(u32, &Entry)> =
                entries.iter().copied().filter(|(_, entry)| entry.record.is_none()).collect();
            let [own_times, own_records] = tables(shard, &entries, &self.layout)?;
            times.push(own_times);
            records.push(own_records);
            not_out.push(tables(shard, &rest, &self.layout)?[0].project(&key)?);
        }
        let [times_schema, records_schema] = schemas(&self.layout);
        let not_out = concat_batches(&Arc::new(times_schema.project(&key)?), &not_out)?;
        Ok(([concat_batches(&times_schema, &times)?, concat_batches(&records_schema, &records)?], not_out))
    }

    fn parts(&self, slots: Option<&[Vec<u32>]>, told: Option<[i64; 2]>) -> Result<Vec<StatePart>, OperatorError> {
        let width = width(&self.layout);
        let ([times, records], not_out) = self.large_tables(slots)?;
        let large = if slots.is_none() {
            [StatePart::whole(TIMES, width, times), StatePart::whole(RECORDS, width, records)]
        } else {
            let [times_below, records_below] = self.below();
            let [times_told, records_told] = told.unwrap_or([i64::MIN; 2]);
            let gone =
                |keys: RecordBatch, below: i64, told: i64| Gone { keys, below: (below != told).then_some(below) };
            let of_times = gone(not_out.slice(0, 0), times_below, times_told);
            let of_records = gone(not_out, records_below, records_told);
            [StatePart::changes(TIMES, width, times, of_times), StatePart::changes(RECORDS, width, records, of_records)]
        };
        Ok(self.small_parts()?.into_iter().chain(large).collect())
    }

    /// What lies below is forgotten: entries, records.
    pub(super) fn below(&self) -> [i64; 2] {
        [self.swept.saturating_sub(self.rule.within), self.swept]
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
        let large = [TIMES, RECORDS];
        // A state without them is of another version.
        large.iter().try_for_each(|name| find_parts(parts, name).map(drop))?;
        for part in parts.iter().filter(|part| large.contains(&part.name.as_str())) {
            let (keys, entry) = read_entries(part, &self.layout)?;
            let by_shard = rows::rows_by_shard(keys.hashes.iter().copied(), self.shards.len());
            let below = self.below();
            for (shard, taken) in self.shards.iter_mut().zip(by_shard) {
                // Another piece may have had entries of the same key.
                shard.bring_in(&self.layout, &keys, &taken, below)?;
                shard.load(&keys, &taken, taken.iter().map(|row| entry(*row)));
            }
        }
        Ok(())
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.told = is_saved.then(|| self.below());
        self.shards.iter_mut().for_each(|shard| shard.set_saved(is_saved));
    }
}
