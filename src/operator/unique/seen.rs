//! The event times that are remembered of each key of one shard, and the records that are out.

use super::Records;
use super::state::key_columns;
use crate::operator::OperatorError;
use crate::operator::aggregate::keys::{BatchKeys, KeyIndex, KeyLayout};
use crate::operator::changed::ChangedSlots;
use crate::operator::cold::{Away, Cold, Hand};
use crate::operator::rows::heap_bytes;

/// An event time of a key, and the first record that has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// The whole record, encoded, while it is out and may be retracted.
    pub(super) record: Option<Box<[u8]>>,
}

impl Entry {
    pub(super) fn record_bytes(&self) -> usize {
        self.record.as_ref().map_or(0, |record| heap_bytes(record.len()))
    }
}

/// The entries of one key in the order of time; most keys have one.
#[derive(Debug, Default)]
pub(super) enum Seen {
    #[default]
    Nothing,
    One(Entry),
    Many(Vec<Entry>),
}

/// What a step has changed in a shard.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rows of the batch that are out.
    pub(super) shown: Vec<u32>,
    /// Records that were out and are so no more, encoded; those of the batch may be among them.
    pub(super) retracted: Vec<Box<[u8]>>,
}

/// The keys of one shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: KeyIndex,
    /// By slot of the index.
    pub(super) seen: Vec<Seen>,
    /// Of the keys in memory.
    pub(super) entries: usize,
    /// Bytes of the records of these.
    pub(super) record_bytes: usize,
    /// Slots with new entries; what is forgotten goes by itself.
    pub(super) changed: ChangedSlots,
    /// Keys that are out of memory.
    pub(super) cold: Cold,
    /// The same, by their newest entries.
    pub(super) away: Away,
    pub(super) hand: Hand,
}

impl Shard {
    pub(super) fn new(layout: &KeyLayout) -> Result<Self, OperatorError> {
        Ok(Shard {
            index: layout.index(),
            seen: Vec::new(),
            entries: 0,
            record_bytes: 0,
            changed: ChangedSlots::default(),
            cold: Cold::new(key_columns(layout)?),
            away: Away::default(),
            hand: Hand::default(),
        })
    }

    /// Bytes in use, estimated.
    pub(super) fn bytes(&self) -> usize {
        let further = self.entries.saturating_sub(self.index.len()) * size_of::<Entry>();
        let beside = self.changed.bytes() + self.cold.size().memory + self.away.bytes();
        self.index.bytes() + self.seen.capacity() * size_of::<Seen>() + further + self.record_bytes + beside
    }

    /// Compares rows of a batch, whose keys are in memory.
    pub(super) fn take(&mut self, records: &Records<'_>, rows: &[u32], within: i64) -> Changes {
        let mut changes = Changes::default();
        let slots = self.index.intern(&records.keys, rows);
        self.hand.note(&slots);
        self.seen.resize_with(self.index.slots(), Seen::default);
        for (slot, taken) in slots.into_iter().zip(rows) {
            let row = *taken as usize;
            self.changed.note(slot);
            let new = Entry {
                time: records.times.value(row),
                partition: records.partitions.value(row),
                offset: records.offsets.value(row),
                record: Some(records.whole.row(row).data().into()),
            };
            let bytes = new.record_bytes();
            let seen = &mut self.seen[slot as usize];
            let before = seen.entries().len();
            let (is_shown, retracted) = seen.add(new, within);
            self.entries += seen.entries().len() - before;
            if is_shown {
                self.record_bytes += bytes;
                changes.shown.push(*taken);
            }
            self.record_bytes -= retracted.as_ref().map_or(0, |record| heap_bytes(record.len()));
            changes.retracted.extend(retracted);
        }
        changes
    }

    /// Lets go the entries before `oldest`, keys without any, and the records before `settled`.
    pub(super) fn forget(&mut self, oldest: i64, settled: i64) {
        for (slot, seen) in self.seen.iter_mut().enumerate() {
            let before = seen.entries().len();
            if before == 0 {
                continue;
            }
            for entry in seen.entries_mut().iter_mut().take_while(|entry| entry.time < settled) {
                self.record_bytes -= entry.record_bytes();
                entry.record = None;
            }
            if seen.forget(oldest) {
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

    /// The entries of these slots, or of all, each with its slot.
    pub(super) fn entries_of(&self, slots: Option<&[u32]>) -> Vec<(u32, &Entry)> {
        let of_slot = |slot: u32| self.seen[slot as usize].entries().iter().map(move |entry| (slot, entry));
        match slots {
            Some(slots) => slots.iter().flat_map(|slot| of_slot(*slot)).collect(),
            None => (0..self.seen.len() as u32).flat_map(of_slot).collect(),
        }
    }

    /// Takes up entries; of one that is there already its record alone.
    pub(super) fn load(&mut self, keys: &BatchKeys, rows: &[u32], entries: impl Iterator<Item = Entry>) {
        let slots = self.index.intern(keys, rows);
        self.seen.resize_with(self.index.slots(), Seen::default);
        for (slot, entry) in slots.into_iter().zip(entries) {
            let seen = &mut self.seen[slot as usize];
            let place = seen.place_of(entry.time);
            self.record_bytes += entry.record_bytes();
            match seen.entries_mut().get_mut(place) {
                Some(known) if known.time == entry.time => known.record = entry.record.or(known.record.take()),
                _ => {
                    seen.insert(place, entry);
                    self.entries += 1;
                }
            }
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

    fn entries_mut(&mut self) -> &mut [Entry] {
        match self {
            Seen::Nothing => &mut [],
            Seen::One(entry) => std::slice::from_mut(entry),
            Seen::Many(entries) => entries,
        }
    }

    /// The place of an event time, or where it would be.
    fn place_of(&self, time: i64) -> usize {
        self.entries().partition_point(|entry| entry.time < time)
    }

    fn insert(&mut self, place: usize, new: Entry) {
        *self = match std::mem::take(self) {
            Seen::Nothing => Seen::One(new),
            Seen::One(known) if place == 0 => Seen::Many(vec![new, known]),
            Seen::One(known) => Seen::Many(vec![known, new]),
            Seen::Many(mut entries) => {
                entries.insert(place, new);
                Seen::Many(entries)
            }
        };
    }

    /// Adds a record: is it out, and which record that was out is so no more.
    ///
    /// A record never makes another one appear: what lies behind it comes closer to the one before, never further.
    fn add(&mut self, mut new: Entry, within: i64) -> (bool, Option<Box<[u8]>>) {
        let place = self.place_of(new.time);
        let (time, at) = (new.time, (new.partition, new.offset));
        let is_close = |entry: &Entry| time.abs_diff(entry.time) <= within.unsigned_abs();
        let entries = self.entries_mut();
        let is_shown = !entries[..place].last().is_some_and(is_close);
        new.record = new.record.filter(|_| is_shown);
        match entries.get_mut(place) {
            Some(same) if same.time == time => {
                if (same.partition, same.offset) < at {
                    return (false, None);
                }
                // The first of an event time is out or none of them is.
                (is_shown, std::mem::replace(same, new).record)
            }
            behind => {
                let retracted = behind.filter(|behind| is_close(behind)).and_then(|behind| behind.record.take());
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
                drop(entries.drain(..gone));
                if entries.len() < 2 {
                    *self = entries.pop().map_or(Seen::Nothing, Seen::One);
                }
            }
        }
        matches!(self, Seen::Nothing)
    }
}
