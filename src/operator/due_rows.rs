//! Rows to which something happens at an instant, in the order of these, in memory or out of it.
//!
//! Those that are due last leave memory first, and come back with the minute in which they are due. A row that is there and
//! comes again, or goes, is brought back, so that it is in one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::row::RowConverter;

use crate::delta::Clock;
use crate::operator::changed::{ChangedRows, NotedRows};
use crate::operator::cold::{Away, Cold, KeyColumns, Scratch, spill_shards};
use crate::operator::state::{Gone, binary_column, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, rows};

/// So many rows come back at once, each in memory several times over until it is kept.
const BACK_AT_ONCE: usize = 8192;

/// What is kept of a row beside when it is due.
pub trait Kept: std::fmt::Debug + Send + Sized {
    /// How many of the row.
    fn weight(&mut self) -> &mut i64;

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize;

    /// As columns of a table of the state.
    fn fields() -> Vec<Field>;

    /// The columns of many.
    fn columns(all: &[&Self]) -> Vec<ArrayRef>;

    /// Those of a table, whose columns from `first` on these are.
    fn read(table: &RecordBatch, first: usize) -> Result<Vec<Self>, OperatorError>;
}

/// A row with when it is due.
pub type DueRow<K> = (Clock, Box<[u8]>, K);

/// Encoded rows by when they are due.
#[derive(Debug)]
pub struct DueRows<K> {
    /// The name of the state's table.
    table: &'static str,
    rows: BTreeMap<(Clock, Box<[u8]>), K>,
    /// Bytes of the rows on the heap and of what is kept with them.
    bytes: usize,
    /// Rows that are due go by themselves.
    changed: ChangedRows,
    /// Since the last checkpoint rows were due up to here.
    passed: Option<Clock>,
    /// Of the instant and the row, as what is out is found by them.
    keys: RowConverter,
    cold: Cold,
    away: Away,
}

impl<K: Kept> DueRows<K> {
    /// Without rows; their table has this name.
    pub fn new(table: &'static str) -> Result<Self, OperatorError> {
        let key = [DataType::Int64, DataType::LargeBinary];
        Ok(DueRows {
            table,
            rows: BTreeMap::new(),
            bytes: 0,
            changed: ChangedRows::default(),
            passed: None,
            keys: rows::converter(&key)?,
            cold: Cold::new(KeyColumns::of(&key)?),
            away: Away::default(),
        })
    }

    /// The next instant at which rows are due, or come back.
    pub fn next(&self) -> Option<Clock> {
        let first = self.rows.first_key_value().map(|((when, _), _)| *when);
        [first, self.away.next()].into_iter().flatten().min()
    }

    /// Takes the rows out that are due up to `clock`, in their order.
    pub fn take_due(&mut self, clock: Clock) -> Result<Vec<DueRow<K>>, OperatorError> {
        let back = self.away.take(clock);
        for some in back.chunks(BACK_AT_ONCE) {
            let parts = self.cold.take_hashed(some)?;
            self.come_in(&parts)?;
        }
        if self.rows.first_key_value().is_none_or(|((when, _), _)| *when > clock) {
            return Ok(vec![]);
        }
        self.passed = Some(clock);
        let later = self.rows.split_off(&(clock.saturating_add(1), Box::default()));
        let due = std::mem::replace(&mut self.rows, later);
        let due: Vec<DueRow<K>> = due.into_iter().map(|((when, row), kept)| (when, row, kept)).collect();
        self.bytes -= due.iter().map(|(_, row, kept)| bytes_of(row, kept)).sum::<usize>();
        Ok(due)
    }

    /// Keeps rows until they are due; what adds up to none of a row is not kept.
    pub fn keep(&mut self, rows: Vec<DueRow<K>>) -> Result<(), OperatorError> {
        if !self.cold.is_empty() && !rows.is_empty() {
            let keys = rows::due_columns(rows.iter().map(|(when, row, _)| (*when, row.as_ref())));
            let keys = self.keys.convert_columns(&keys)?;
            let parts = self.cold.take(keys.iter().map(|key| key.data()))?;
            self.come_in(&parts)?;
        }
        for (when, row, kept) in rows {
            self.changed.note(&when.to_le_bytes(), &row);
            self.put(when, row, kept);
        }
        Ok(())
    }

    fn come_in(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        if !parts.is_empty() {
            for (when, row, kept) in read(parts, self.table)? {
                self.put(when, row, kept);
            }
        }
        Ok(())
    }

    fn put(&mut self, when: Clock, row: Box<[u8]>, mut kept: K) {
        use std::collections::btree_map::Entry;
        match self.rows.entry((when, row)) {
            Entry::Vacant(place) => {
                self.bytes += bytes_of(&place.key().1, &kept);
                place.insert(kept);
            }
            Entry::Occupied(mut known) => {
                *known.get_mut().weight() += *kept.weight();
                if *known.get_mut().weight() == 0 {
                    let ((_, row), kept) = known.remove_entry();
                    self.bytes -= bytes_of(&row, &kept);
                }
            }
        }
    }

    /// Rows kept, and the bytes they take in memory, estimated.
    pub fn size(&self) -> (usize, usize) {
        let cold = self.cold.size();
        let nodes = rows::nodes_bytes(self.rows.len(), size_of::<((Clock, Box<[u8]>), K)>());
        let beside = self.changed.bytes() + cold.memory + self.away.bytes();
        (self.rows.len() + cold.rows, self.bytes + nodes + beside)
    }

    /// Rows in memory.
    pub fn in_memory(&self) -> usize {
        self.rows.len()
    }

    /// What is out.
    pub fn cold(&self) -> &Cold {
        &self.cold
    }

    /// Lets so many rows go, those first that are due last.
    pub fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        spill_shards(std::slice::from_mut(self), most, |rows, most| rows.spill_lot(most, scratch))
    }

    fn spill_lot(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let (mut going, mut awaited) = (Vec::new(), Vec::new());
        while going.len() < most
            && let Some(last) = self.rows.last_entry()
        {
            let (when, row) = last.key();
            let is_awaited = self.changed.awaits(&when.to_le_bytes(), row);
            let stack = if is_awaited { &mut awaited } else { &mut going };
            stack.push(last.remove_entry());
        }
        self.rows.extend(awaited);
        if going.is_empty() {
            return Ok(0);
        }
        let table = batch(going.iter().map(|((when, row), kept)| (*when, row.as_ref(), kept)));
        let hashes = table.and_then(|table| self.cold.put(&[StatePart::whole(self.table, 2, table)], scratch));
        match hashes {
            Ok(hashes) => {
                let gone = going.len();
                for (((when, row), kept), hash) in going.into_iter().zip(hashes) {
                    self.away.add(when, hash);
                    self.bytes -= bytes_of(&row, &kept);
                }
                Ok(gone)
            }
            Err(error) => {
                self.rows.extend(going);
                Err(error)
            }
        }
    }

    /// The rows in memory as a table of the state.
    pub fn whole(&self) -> Result<StatePart, OperatorError> {
        let all = self.rows.iter().map(|((when, row), kept)| (*when, row.as_ref(), kept));
        Ok(StatePart::whole(self.table, 2, batch(all)?))
    }

    /// What has changed since the last checkpoint; `None` for everything.
    pub fn take_noted(&mut self) -> Option<NotedRows> {
        self.changed.take(self.rows.len() + self.cold.size().rows)
    }

    /// What was noted as a change of the state's table.
    pub fn changes(&mut self, noted: &NotedRows) -> Result<StatePart, OperatorError> {
        let below = self.passed.take().map(|passed| passed.saturating_add(1));
        let (mut held, mut gone) = (Vec::new(), Vec::new());
        for (when, row) in noted.iter() {
            let Ok(when) = when.try_into().map(Clock::from_le_bytes) else { continue };
            match self.rows.get(&(when, row.into())) {
                Some(kept) => held.push((when, row, kept)),
                None => gone.push((when, row)),
            }
        }
        let keys =
            RecordBatch::try_new(Arc::new(Schema::new(rows::due_fields())), rows::due_columns(gone.into_iter()))?;
        Ok(StatePart::changes(self.table, 2, batch(held.into_iter())?, Gone { keys, below }))
    }

    /// Takes rows of the state's table over.
    pub fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        let rows = read(parts, self.table)?;
        self.keep(rows)
    }

    /// Whether a checkpoint holds what is here now.
    pub fn set_saved(&mut self, is_saved: bool) {
        self.passed = None;
        self.changed.set_saved(is_saved, self.rows.len() + self.cold.size().rows);
    }
}

fn bytes_of<K: Kept>(row: &[u8], kept: &K) -> usize {
    rows::heap_bytes(row.len()) + kept.heap_bytes()
}

fn batch<'a, K: Kept + 'a>(
    rows: impl Iterator<Item = (Clock, &'a [u8], &'a K)> + Clone,
) -> Result<RecordBatch, OperatorError> {
    let schema = Schema::new([rows::due_fields(), K::fields()].concat());
    let mut columns = rows::due_columns(rows.clone().map(|(when, row, _)| (when, row)));
    columns.extend(K::columns(&rows.map(|(.., kept)| kept).collect::<Vec<_>>()));
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

fn read<K: Kept>(parts: &[StatePart], table: &str) -> Result<Vec<DueRow<K>>, OperatorError> {
    let mut found = Vec::new();
    for batch in find_parts(parts, table)? {
        let (when, row) = (primitive_column::<Int64Type>(batch, 0)?, binary_column(batch, 1)?);
        let kept = K::read(batch, 2)?.into_iter().enumerate();
        found.extend(kept.map(|(index, kept)| (when.value(index), row.value(index).into(), kept)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;
    use crate::operator::cold::tests::Memory;

    const MINUTE: Clock = 60_000_000_000;

    #[derive(Debug)]
    struct Weight(i64);

    impl Kept for Weight {
        fn weight(&mut self) -> &mut i64 {
            &mut self.0
        }

        fn heap_bytes(&self) -> usize {
            0
        }

        fn fields() -> Vec<Field> {
            vec![Field::new("weight", DataType::Int64, false)]
        }

        fn columns(all: &[&Self]) -> Vec<ArrayRef> {
            vec![Arc::new(Int64Array::from_iter_values(all.iter().map(|one| one.0)))]
        }

        fn read(table: &RecordBatch, first: usize) -> Result<Vec<Self>, OperatorError> {
            Ok(primitive_column::<Int64Type>(table, first)?.values().iter().map(|weight| Weight(*weight)).collect())
        }
    }

    #[test]
    fn rows_that_are_due_last_leave_and_come_back_when_they_are_due_or_come_again() {
        let scratch = Memory::new(usize::MAX) as Arc<dyn Scratch>;
        let mut rows = DueRows::<Weight>::new("rows").unwrap();
        let row = |minute: i64, weight| (minute * MINUTE, Box::from(minute.to_be_bytes()), Weight(weight));
        rows.keep((1..=100).map(|minute| row(minute, 1)).collect()).unwrap();
        assert_eq!(rows.spill(60, &scratch).unwrap(), 60);
        assert_eq!((rows.in_memory(), rows.size().0), (40, 100));
        rows.keep(vec![row(90, -1), row(95, 2)]).unwrap();
        assert_eq!((rows.in_memory(), rows.size().0), (41, 99));
        let minutes = |due: &[DueRow<Weight>]| due.iter().map(|(when, ..)| when / MINUTE).collect::<Vec<_>>();
        assert_eq!(rows.next(), Some(MINUTE));
        let due = rows.take_due(94 * MINUTE).unwrap();
        assert_eq!(minutes(&due), (1..=94).filter(|minute| *minute != 90).collect::<Vec<_>>());
        assert_eq!(rows.next(), Some(95 * MINUTE));
        let due = rows.take_due(100 * MINUTE).unwrap();
        assert_eq!(due.iter().map(|(.., Weight(weight))| *weight).collect::<Vec<_>>(), [3, 1, 1, 1, 1, 1]);
        assert_eq!((rows.in_memory(), rows.size().0, rows.next()), (0, 0, None));
    }
}
