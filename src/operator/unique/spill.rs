//! Keys that leave memory and come back.
//!
//! Only keys may leave all of whose entries lie where no record is retracted any more, so that no whole record is theirs. They
//! come back when a record asks for them, and when their oldest entry is to be forgotten: what is out is what would be in
//! memory.

use std::sync::Arc;

use super::Unique;
use super::seen::{Entry, Shard};
use super::state::{ENTRIES, entries_table, read_entries};
use crate::delta::Clock;
use crate::operator::aggregate::keys::{BatchKeys, KeyLayout};
use crate::operator::cold::{Cold, Scratch, Spills, spill_shards};
use crate::operator::{OperatorError, StatePart};
use crate::plan::unique::UniqueRule;

/// So many keys come back at once to be forgotten.
const BACK_AT_ONCE: usize = 8192;

impl Shard {
    /// Takes those keys of these rows back that are out.
    pub(super) fn bring_in(&mut self, layout: &KeyLayout, keys: &BatchKeys, rows: &[u32]) -> Result<(), OperatorError> {
        if self.cold.is_empty() || rows.is_empty() {
            return Ok(());
        }
        let parts = keys.take_from(&mut self.cold, layout, rows)?;
        self.come_in(layout, &parts, i64::MIN)
    }

    /// Forgets the entries before `oldest`, at that instant, of keys that are out; keys that have others come back.
    pub(super) fn forget_away(&mut self, layout: &KeyLayout, oldest: i64, instant: Clock) -> Result<(), OperatorError> {
        for some in self.away.take(instant).chunks(BACK_AT_ONCE) {
            let parts = self.cold.take_hashed(some)?;
            self.come_in(layout, &parts, oldest)?;
        }
        Ok(())
    }

    fn come_in(&mut self, layout: &KeyLayout, parts: &[StatePart], oldest: i64) -> Result<(), OperatorError> {
        for part in parts {
            let (keys, entries) = read_entries(&part.batch, layout)?;
            let needed = |row: &u32| entries[*row as usize].0.time >= oldest;
            let rows: Vec<u32> = (0..entries.len() as u32).filter(needed).collect();
            self.load(&keys, &rows, rows.iter().map(|row| entries[*row as usize].0));
        }
        Ok(())
    }

    /// Lets up to `most` keys go that no step has met since they were passed here last.
    fn spill(
        &mut self,
        most: usize,
        (layout, rule): (&KeyLayout, &UniqueRule),
        forgotten: i64,
        scratch: &Arc<dyn Scratch>,
    ) -> Result<usize, OperatorError> {
        let is_settled = |entry: &Entry| entry.time < forgotten;
        let can_go = |slot: u32| {
            let is_free = self.index.can_go(slot) && !self.changed.awaits(slot);
            is_free && self.seen[slot as usize].entries().iter().all(is_settled)
        };
        let slots = self.hand.idle(self.index.slots() as u32, most, can_go);
        if slots.is_empty() {
            return Ok(0);
        }
        let (entries, keys) = self.entries_of(Some(&slots), layout)?;
        let table = entries_table(layout, &entries, &keys, |_| false)?;
        let hashes = self.cold.put(&[StatePart::whole(ENTRIES, 1 + layout.types().len(), table)], scratch)?;
        let mut first = 0;
        for slot in &slots {
            // The entries of a key are in the order of time.
            if let Some(oldest) = entries.get(first) {
                self.away.add(rule.instant(oldest.time), hashes[first]);
            }
            first += std::mem::take(&mut self.seen[*slot as usize]).entries().len();
        }
        self.entries -= entries.len();
        self.index.let_out(&slots);
        Ok(slots.len())
    }
}

impl Spills for Unique {
    fn in_memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.index.len()).sum()
    }

    fn bytes_that_stay(&self) -> usize {
        self.kept.bytes()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let Unique { layout, rule, shards, forgotten, .. } = self;
        spill_shards(shards, most, |shard, most| shard.spill(most, (layout, rule), *forgotten, scratch))
    }

    fn cold(&self) -> Vec<&Cold> {
        self.shards.iter().map(|shard| &shard.cold).collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::delta::Delta;
    use crate::operator::Stateful;
    use crate::operator::cold::tests::Memory;

    const UNIT: i64 = 60_000_000_000;

    /// Records of one partition: order, minute.
    fn records(first: i64, records: &[(i64, i64)]) -> Delta {
        let numbers =
            |of: &dyn Fn(usize) -> i64| Arc::new((0..records.len()).map(of).collect::<Int64Array>()) as ArrayRef;
        let at = numbers(&|row| records[row].1);
        let columns: [(&str, ArrayRef); 5] = [
            ("order", numbers(&|row| records[row].0)),
            ("at", Arc::clone(&at)),
            ("_partition", Arc::new(Int32Array::from(vec![0; records.len()]))),
            ("_offset", numbers(&|row| first + row as i64)),
            ("_timestamp", numbers(&|row| records[row].1 * 60_000)),
        ];
        Delta::inserts(RecordBatch::try_from_iter(columns).unwrap())
    }

    fn unique() -> Unique {
        let rule = UniqueRule {
            columns: vec!["order".to_string()],
            time: "at".to_string(),
            within: 10,
            patience: 12,
            unit: UNIT,
        };
        let mut unique = Unique::new(rule, records(0, &[]).batch.schema(), 2).unwrap();
        unique.note_partitions([0].into_iter());
        unique
    }

    /// Orders that came out, and were taken back.
    fn step(unique: &mut Unique, first: i64, batch: &[(i64, i64)]) -> Vec<i64> {
        let delta = unique.step(&records(first, batch)).unwrap();
        let orders = delta.batch.column(0).as_primitive::<Int64Type>().values();
        orders.iter().enumerate().map(|(row, order)| order * delta.weight(row)).collect()
    }

    #[test]
    fn settled_keys_leave_and_come_back_for_a_resent_record_or_to_be_forgotten() {
        let scratch = Memory::new(usize::MAX) as Arc<dyn Scratch>;
        let mut unique = unique();
        let many: Vec<(i64, i64)> = (0..9_000).map(|order| (order, order / 180)).collect();
        assert_eq!(step(&mut unique, 0, &many).len(), 9_000);
        // Twelve before minute 49 all is settled; ten before that it is forgotten.
        let (settled, there) = (10 * 180, 23 * 180);
        assert_eq!(unique.spill(9_000, &scratch).unwrap(), settled);
        let out = |unique: &Unique| unique.cold().into_iter().map(|cold| cold.size().keys).sum::<usize>();
        assert_eq!((out(&unique), unique.in_memory(), unique.size().0), (settled, there - settled, there));

        // Both came in minute 36: ten minutes later it is a resent one, eleven later another.
        let (resent, another, in_minute_47) = (36 * 180, 36 * 180 + 1, 47 * 180);
        assert_eq!(step(&mut unique, 9_000, &[(resent, 46), (another, 47)]), [another]);
        assert_eq!(out(&unique), settled - 2);

        // What is out is in a checkpoint as what is in memory is, and only there.
        let whole = unique.snapshot().unwrap();
        let entries = |parts: &[StatePart]| {
            parts.iter().filter(|part| part.name == ENTRIES).map(|part| part.batch.num_rows()).sum::<usize>()
        };
        let away: Vec<StatePart> = unique
            .cold()
            .into_iter()
            .flat_map(|cold| cold.view(&[ENTRIES.to_string()]))
            .flat_map(Result::unwrap)
            .collect();
        assert_eq!((entries(&whole), entries(&away)), (there + 2 - (settled - 2), settled - 2));
        let mut loaded = self::unique();
        let without_rows: Vec<StatePart> = whole.iter().map(StatePart::without_rows).collect();
        for piece in away {
            let others = without_rows.iter().filter(|part| part.name != ENTRIES);
            loaded.load(&others.chain([&piece]).cloned().collect::<Vec<_>>()).unwrap();
        }
        loaded.load(&whole).unwrap();
        assert_eq!(loaded.size().0, unique.size().0);

        for unique in [&mut unique, &mut loaded] {
            // An earlier record of the same order takes the later one back.
            let mut came = step(unique, 9_002, &[(in_minute_47, 44)]);
            came.sort_unstable();
            assert_eq!(came, [-in_minute_47, in_minute_47]);
            // All is forgotten once nothing can be told of it any more.
            let later: Vec<(i64, i64)> = (10_001..=19_000).map(|order| (order, 1_000)).collect();
            assert_eq!(step(unique, 9_003, &later).len(), 9_000);
            assert_eq!((out(unique), unique.in_memory(), unique.size().0), (0, 9_000, 9_000));
        }
    }
}
