//! Keys that leave memory and come back: when a record asks for them, and in the end to be forgotten.

use std::sync::Arc;

use super::Unique;
use super::seen::{Entry, Shard};
use super::state::{RECORDS, TIMES, read_entries, tables, width};
use crate::delta::Clock;
use crate::operator::aggregate::keys::{BatchKeys, KeyLayout};
use crate::operator::cold::{Cold, ColdRows, Scratch, Spills, spill_shards};
use crate::operator::{OperatorError, StatePart};
use crate::plan::unique::UniqueRule;

/// So many keys come back at once to be forgotten.
const BACK_AT_ONCE: usize = 8192;

impl Shard {
    /// Takes those keys of these rows back that are out, but what lies below is forgotten: entries, records.
    pub(super) fn bring_in(
        &mut self,
        layout: &KeyLayout,
        keys: &BatchKeys,
        rows: &[u32],
        below: [i64; 2],
    ) -> Result<(), OperatorError> {
        if self.cold.is_empty() || rows.is_empty() {
            return Ok(());
        }
        let parts = keys.take_from(&mut self.cold, layout, rows)?;
        self.come_in(layout, &parts, below)
    }

    /// Forgets keys that are out and of which nothing is needed any more at this instant.
    pub(super) fn forget_away(
        &mut self,
        layout: &KeyLayout,
        instant: Clock,
        below: [i64; 2],
    ) -> Result<(), OperatorError> {
        for some in self.away.take(instant).chunks(BACK_AT_ONCE) {
            let parts = self.cold.take_hashed(some)?;
            self.come_in(layout, &parts, below)?;
        }
        Ok(())
    }

    fn come_in(&mut self, layout: &KeyLayout, parts: &[StatePart], below: [i64; 2]) -> Result<(), OperatorError> {
        for part in parts {
            let (keys, entry) = read_entries(part, layout)?;
            let [times, records] = below;
            let oldest = if part.name == RECORDS { records } else { times };
            let all = (0..part.batch.num_rows() as u32).map(|row| (row, entry(row)));
            let (rows, entries): (Vec<u32>, Vec<Entry>) = all.filter(|(_, entry)| entry.time >= oldest).unzip();
            self.load(&keys, &rows, entries.into_iter());
        }
        Ok(())
    }

    /// Lets up to `most` keys go that no step has met since they were passed here last.
    fn spill(
        &mut self,
        most: usize,
        (layout, rule): (&KeyLayout, &UniqueRule),
        scratch: &Arc<dyn Scratch>,
    ) -> Result<usize, OperatorError> {
        let slots = self.index.idle_slots(&mut self.hand, most, |slot| self.changed.awaits(slot));
        if slots.is_empty() {
            return Ok(0);
        }
        let [times, records] = tables(self, &self.entries_of(Some(&slots)), layout)?;
        let parts = [(TIMES, times), (RECORDS, records)];
        let hashes = self.cold.put(&parts.map(|(name, rows)| StatePart::whole(name, width(layout), rows)), scratch)?;
        let mut behind = 0;
        for slot in &slots {
            let seen = std::mem::take(&mut self.seen[*slot as usize]);
            behind += seen.entries().len();
            // The entries of a key are in the order of time.
            if let Some(newest) = seen.entries().last() {
                self.away.add(rule.instant(newest.time), hashes[behind - 1]);
            }
            self.entries -= seen.entries().len();
            self.record_bytes -= seen.entries().iter().map(Entry::record_bytes).sum::<usize>();
        }
        self.index.let_out(&slots);
        Ok(slots.len())
    }
}

impl Spills for Unique {
    fn in_memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.index.len()).sum()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let Unique { layout, rule, shards, .. } = self;
        spill_shards(shards, most, |shard, most| shard.spill(most, (layout, rule), scratch))
    }

    fn cold(&self) -> Vec<&Cold> {
        self.shards.iter().map(|shard| &shard.cold).collect()
    }

    fn view(&self, tables: &[String]) -> Vec<ColdRows> {
        let [times, records] = self.below();
        let of_shard = |shard: &Shard| shard.cold.view(tables).from(TIMES, times).from(RECORDS, records);
        self.shards.iter().map(of_shard).collect()
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
    fn keys_leave_with_their_records_and_come_back_for_another_or_to_be_forgotten() {
        let scratch = Memory::new(usize::MAX) as Arc<dyn Scratch>;
        let mut unique = unique();
        let many: Vec<(i64, i64)> = (0..9_000).map(|order| (order, order / 180)).collect();
        assert_eq!(step(&mut unique, 0, &many).len(), 9_000);
        // Twelve before minute 49 no record is retracted any more; ten before that all is forgotten.
        let (times, records) = (23 * 180, 13 * 180);
        assert_eq!(unique.spill(9_000, &scratch).unwrap(), times);
        let out = |unique: &Unique| unique.cold().into_iter().map(|cold| cold.size().keys).sum::<usize>();
        assert_eq!((out(&unique), unique.in_memory()), (times, 0));

        // Both came in minute 36: ten minutes later it is a resent one, eleven later another.
        let (resent, another, in_minute_47) = (36 * 180, 36 * 180 + 1, 47 * 180);
        assert_eq!(step(&mut unique, 9_000, &[(resent, 46), (another, 47)]), [another]);
        assert_eq!(out(&unique), times - 2);

        // What is out is in a checkpoint as what is in memory is, and only there.
        let rows = |parts: &[StatePart], name: &str| {
            parts.iter().filter(|part| part.name == name).map(|part| part.batch.num_rows()).sum::<usize>()
        };
        let whole = unique.snapshot().unwrap();
        let names = [TIMES.to_string(), RECORDS.to_string()];
        let away: Vec<StatePart> = unique.view(&names).into_iter().flatten().flat_map(Result::unwrap).collect();
        assert_eq!((rows(&whole, TIMES), rows(&away, TIMES)), (4, times - 2));
        assert_eq!((rows(&whole, RECORDS), rows(&away, RECORDS)), (1, records));
        let mut loaded = self::unique();
        // In the order that is least like the one in which they were made.
        let mut pieces: Vec<StatePart> = away.into_iter().chain(whole).collect();
        pieces.sort_by(|one, other| one.name.cmp(&other.name));
        let without_rows: Vec<StatePart> = unique.snapshot().unwrap().iter().map(StatePart::without_rows).collect();
        for piece in pieces {
            let others = without_rows.iter().filter(|part| part.name != piece.name);
            loaded.load(&others.chain([&piece]).cloned().collect::<Vec<_>>()).unwrap();
        }
        assert_eq!((out(&loaded), loaded.size().0), (0, times + 2));

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
