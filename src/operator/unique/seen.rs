//! The event times that are remembered of each key of one shard.

use arrow::array::RecordBatch;

use super::Records;
use super::state::entry_columns;
use crate::operator::OperatorError;
use crate::operator::aggregate::keys::{BatchKeys, KeyIndex, KeyLayout};
use crate::operator::changed::ChangedSlots;
use crate::operator::cold::{Away, Cold, Hand};

/// An event time of a key, and the first record that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// The number of the record among the kept ones, if it is out.
    pub(super) number: Option<u64>,
}

/// The entries of one key in the order of time; most keys have one.
#[derive(Debug, Clone, Default)]
pub(super) enum Seen {
    #[default]
    Nothing,
    One(Entry),
    Many(Vec<Entry>),
}

/// What a step has changed in a shard.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rows of the batch that are out, unless a later one of them retracts them.
    pub(super) shown: Vec<u32>,
    /// Numbers of records that were out and are so no more.
    pub(super) retracted: Vec<u64>,
}

/// The keys of one shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: KeyIndex,
    /// By slot of the index.
    pub(super) seen: Vec<Seen>,
    /// Of the keys in memory.
    pub(super) entries: usize,
    /// Slots with new entries; what is forgotten goes by itself.
    pub(super) changed: ChangedSlots,
    /// Keys that are out of memory.
    pub(super) cold: Cold,
    /// The same, by the oldest entry.
    pub(super) away: Away,
    pub(super) hand: Hand,
}

impl Shard {
    pub(super) fn new(layout: &KeyLayout) -> Result<Self, OperatorError> {
        Ok(Shard {
            index: layout.index(),
            seen: Vec::new(),
            entries: 0,
            changed: ChangedSlots::default(),
            cold: Cold::new(entry_columns(layout)?),
            away: Away::default(),
            hand: Hand::default(),
        })
    }

    /// Bytes in use, estimated.
    pub(super) fn bytes(&self) -> usize {
        let further = self.entries.saturating_sub(self.index.len()) * size_of::<Entry>();
        let beside = self.changed.bytes() + self.cold.size().memory + self.away.bytes();
        self.index.bytes() + self.seen.capacity() * size_of::<Seen>() + further + beside
    }

    /// Compares rows of a batch, the first of which has the number `first`; their keys are in memory.
    pub(super) fn take(&mut self, records: &Records<'_>, rows: &[u32], first: u64, within: i64) -> Changes {
        let mut changes = Changes::default();
        let slots = self.index.intern(&records.keys, rows);
        self.hand.note(&slots);
        self.seen.resize(self.index.slots(), Seen::Nothing);
        for (slot, taken) in slots.into_iter().zip(rows) {
            let row = *taken as usize;
            self.changed.note(slot);
            let new = Entry {
                time: records.times.value(row),
                partition: records.partitions.value(row),
                offset: records.offsets.value(row),
                number: Some(first + u64::from(*taken)),
            };
            let seen = &mut self.seen[slot as usize];
            let before = seen.entries().len();
            let (is_shown, retracted) = seen.add(new, within);
            self.entries += seen.entries().len() - before;
            changes.shown.extend(is_shown.then_some(*taken));
            changes.retracted.extend(retracted);
        }
        changes
    }

    /// Lets go the entries before `oldest`, and keys without any.
    pub(super) fn forget(&mut self, oldest: i64) {
        for (slot, seen) in self.seen.iter_mut().enumerate() {
            let before = seen.entries().len();
            if before > 0 && seen.forget(oldest) {
                self.index.remove(slot as u32);
            }
            self.entries -= before - seen.entries().len();
        }
    }

    /// Slots that have changed; `None` for all, or most.
    pub(super) fn take_changed(&mut self) -> Option<Vec<u32>> {
        let keys = self.index.len() + self.cold.size().keys;
        self.changed.take().filter(|changed| changed.len() <= keys / 2)
    }

    pub(super) fn set_saved(&mut self, is_saved: bool) {
        self.changed.set_saved(is_saved);
    }

    /// The entries of these slots, or all, and their keys.
    pub(super) fn entries_of(
        &self,
        slots: Option<&[u32]>,
        layout: &KeyLayout,
    ) -> Result<(Vec<Entry>, RecordBatch), OperatorError> {
        let mut entries = Vec::new();
        let mut of_entries = Vec::new();
        let mut take = |slot: u32, seen: &Seen| {
            entries.extend(seen.entries());
            of_entries.resize(entries.len(), slot);
        };
        match slots {
            Some(slots) => slots.iter().for_each(|slot| take(*slot, &self.seen[*slot as usize])),
            None => self.seen.iter().enumerate().for_each(|(slot, seen)| take(slot as u32, seen)),
        }
        Ok((entries, RecordBatch::try_new(layout.schema(), self.index.columns(layout, &of_entries)?)?))
    }

    /// Takes up entries of a checkpoint.
    pub(super) fn load(&mut self, keys: &BatchKeys, rows: &[u32], entries: impl Iterator<Item = Entry>) {
        let slots = self.index.intern(keys, rows);
        self.seen.resize(self.index.slots(), Seen::Nothing);
        for (slot, entry) in slots.into_iter().zip(entries) {
            let seen = &mut self.seen[slot as usize];
            seen.insert(seen.entries().partition_point(|known| known.time < entry.time), entry);
            self.entries += 1;
        }
    }
}

impl Seen {
    pub(super) fn entries(&self) -> &[Entry] {
        match self {
            Seen::Nothing => &[],
            Seen::One(entry) => std::slice::from_ref(entry),
            Seen::Many(entries) => entries,
        }
    }

    fn entry(&mut self, place: usize) -> Option<&mut Entry> {
        match self {
            Seen::Nothing => None,
            Seen::One(entry) => Some(entry).filter(|_| place == 0),
            Seen::Many(entries) => entries.get_mut(place),
        }
    }

    fn insert(&mut self, place: usize, new: Entry) {
        match self {
            Seen::Nothing => *self = Seen::One(new),
            Seen::One(known) => {
                let mut entries = Vec::with_capacity(2);
                entries.push(*known);
                entries.insert(place, new);
                *self = Seen::Many(entries);
            }
            Seen::Many(entries) => entries.insert(place, new),
        }
    }

    /// Adds a record: is it out, and which record that was out is so no more.
    ///
    /// A record never makes another one appear: what lies behind it comes closer to the one before, never further.
    fn add(&mut self, mut new: Entry, within: i64) -> (bool, Option<u64>) {
        let entries = self.entries();
        let place = entries.partition_point(|entry| entry.time < new.time);
        let is_close = |entry: &Entry| new.time.abs_diff(entry.time) <= within.unsigned_abs();
        let is_shown = !entries[..place].last().is_some_and(is_close);
        match self.entry(place) {
            Some(same) if same.time == new.time => {
                if (same.partition, same.offset) < (new.partition, new.offset) {
                    return (false, None);
                }
                // The first of an event time is out or none of them is.
                let retracted = same.number;
                new.number = new.number.filter(|_| is_shown);
                *same = new;
                (is_shown, retracted)
            }
            behind => {
                let retracted = behind.filter(|behind| is_close(behind)).and_then(|behind| behind.number.take());
                new.number = new.number.filter(|_| is_shown);
                self.insert(place, new);
                (is_shown, retracted)
            }
        }
    }

    /// Lets go the entries before `oldest`; true when none is left.
    fn forget(&mut self, oldest: i64) -> bool {
        match self {
            Seen::Nothing => {}
            Seen::One(entry) if entry.time < oldest => *self = Seen::Nothing,
            Seen::One(_) => {}
            Seen::Many(entries) => {
                let gone = entries.partition_point(|entry| entry.time < oldest);
                if gone > 0 {
                    match entries[gone..] {
                        [] => *self = Seen::Nothing,
                        [only] => *self = Seen::One(only),
                        _ => drop(entries.drain(..gone)),
                    }
                }
            }
        }
        matches!(self, Seen::Nothing)
    }
}
