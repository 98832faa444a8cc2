//! Sets of encoded values by slot: for COUNT(DISTINCT), MIN and MAX.

use hashbrown::HashTable;

use crate::operator::changed::{ChangedRows, NotedRows, SlotSet};
use crate::operator::rows::{self, Multiset};

/// Values of slots, each with its weight: none where the value is gone.
pub type Entries = Vec<(u32, Box<[u8]>, i64)>;

/// How often each value occurs in each slot.
#[derive(Debug, Default)]
pub struct ValueCounts {
    table: HashTable<Occurrence>,
    distinct: Vec<i64>,
    value_bytes: usize,
    changed: ChangedRows,
}

#[derive(Debug)]
struct Occurrence {
    slot: u32,
    weight: i64,
    value: Box<[u8]>,
}

fn hash(slot: u32, value: &[u8]) -> u64 {
    rows::mix(rows::hash_bytes(value) ^ u64::from(slot))
}

impl ValueCounts {
    /// Makes room for that many slots.
    pub fn grow(&mut self, slots: usize) {
        self.distinct.resize(slots, 0);
    }

    /// Adds `weight` occurrences; a value counts as long as its weights sum up to more than none.
    pub fn add(&mut self, slot: u32, value: &[u8], weight: i64) {
        self.changed.note(&slot.to_le_bytes(), value);
        self.put(slot, value, weight);
    }

    /// The same for what a checkpoint has already.
    pub fn put(&mut self, slot: u32, value: &[u8], weight: i64) {
        let hash_value = hash(slot, value);
        let found = self.table.find_entry(hash_value, |known| known.slot == slot && *known.value == *value);
        match found {
            Ok(mut entry) => {
                let before = entry.get().weight;
                let after = before + weight;
                self.distinct[slot as usize] += i64::from(after > 0) - i64::from(before > 0);
                if after == 0 {
                    let (removed, _) = entry.remove();
                    self.value_bytes -= rows::heap_bytes(removed.value.len());
                } else {
                    entry.get_mut().weight = after;
                }
            }
            Err(_) => {
                self.distinct[slot as usize] += i64::from(weight > 0);
                self.value_bytes += rows::heap_bytes(value.len());
                let new = Occurrence { slot, weight, value: value.into() };
                self.table.insert_unique(hash_value, new, |known| hash(known.slot, &known.value));
            }
        }
    }

    /// How many different values the slot has.
    pub fn distinct(&self, slot: u32) -> i64 {
        self.distinct[slot as usize]
    }

    /// Forgets a slot. It scans nothing when the slot is empty, which is when slots are given back.
    pub fn clear(&mut self, slot: u32) {
        if self.distinct[slot as usize] != 0 {
            self.table.retain(|known| known.slot != slot);
            self.distinct[slot as usize] = 0;
        }
    }

    /// All values of all slots.
    pub fn entries(&self) -> Entries {
        self.table.iter().map(|known| (known.slot, known.value.clone(), known.weight)).collect()
    }

    /// All values of these slots.
    pub fn entries_of(&self, slots: &SlotSet) -> Entries {
        let own = self.table.iter().filter(|known| slots.has(known.slot));
        own.map(|known| (known.slot, known.value.clone(), known.weight)).collect()
    }

    /// Forgets these slots, whatever they hold.
    pub fn let_out(&mut self, slots: &SlotSet) {
        for known in self.table.extract_if(|known| slots.has(known.slot)) {
            self.value_bytes -= rows::heap_bytes(known.value.len());
            self.distinct[known.slot as usize] = 0;
        }
    }

    /// The values that have changed; `None` for all.
    pub fn changed_entries(&mut self) -> Option<Entries> {
        let weight = |slot: u32, value: &[u8]| {
            let found = self.table.find(hash(slot, value), |known| known.slot == slot && *known.value == *value);
            found.map_or(0, |known| known.weight)
        };
        self.changed.take(self.table.len()).map(|noted| entries_of(&noted, weight))
    }

    /// Whether a checkpoint holds what is here now.
    pub fn set_saved(&mut self, is_saved: bool) {
        self.changed.set_saved(is_saved, self.table.len());
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        self.table.allocation_size() + self.value_bytes + self.distinct.capacity() * 8
    }
}

fn entries_of(noted: &NotedRows, weight: impl Fn(u32, &[u8]) -> i64) -> Entries {
    let entry = |(slot, value): (&[u8], &[u8])| {
        let slot = u32::from_le_bytes(slot.try_into().ok()?);
        Some((slot, value.into(), weight(slot, value)))
    };
    noted.iter().filter_map(entry).collect()
}

/// All values of each slot in their order, with their weights.
#[derive(Debug, Default)]
pub struct Multisets {
    by_slot: Vec<Multiset>,
    /// Values of all slots.
    values: usize,
    changed: ChangedRows,
}

impl Multisets {
    /// Makes room for that many slots.
    pub fn grow(&mut self, slots: usize) {
        self.by_slot.resize(slots, Multiset::default());
    }

    /// Adds `weight` occurrences.
    pub fn add(&mut self, slot: usize, value: &[u8], weight: i64) {
        self.changed.note(&(slot as u32).to_le_bytes(), value);
        self.put(slot, value, weight);
    }

    /// The same for what a checkpoint has already.
    pub fn put(&mut self, slot: usize, value: &[u8], weight: i64) {
        let values = &mut self.by_slot[slot];
        let before = values.len();
        rows::add(values, value, weight);
        self.values = self.values + values.len() - before;
    }

    /// The values of a slot.
    pub fn of(&self, slot: usize) -> &Multiset {
        &self.by_slot[slot]
    }

    /// Forgets a slot.
    pub fn clear(&mut self, slot: usize) {
        self.values -= self.by_slot[slot].len();
        self.by_slot[slot].clear();
    }

    /// All values of all slots.
    pub fn entries(&self) -> Entries {
        self.entries_of(0..self.by_slot.len() as u32)
    }

    /// All values of these slots.
    pub fn entries_of(&self, slots: impl Iterator<Item = u32>) -> Entries {
        let of_slot = |slot: u32| {
            let values = self.by_slot[slot as usize].iter();
            values.map(move |(value, weight)| (slot, value.clone(), *weight)).collect::<Vec<_>>()
        };
        slots.flat_map(of_slot).collect()
    }

    /// The values that have changed; `None` for all.
    pub fn changed_entries(&mut self) -> Option<Entries> {
        let weight = |slot: u32, value: &[u8]| {
            self.by_slot.get(slot as usize).and_then(|values| values.get(value)).copied().unwrap_or(0)
        };
        self.changed.take(self.values).map(|noted| entries_of(&noted, weight))
    }

    /// Whether a checkpoint holds what is here now.
    pub fn set_saved(&mut self, is_saved: bool) {
        self.changed.set_saved(is_saved, self.values);
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        self.by_slot.capacity() * size_of::<Multiset>() + self.by_slot.iter().map(Multiset::bytes).sum::<usize>()
    }
}

/// The smallest or largest value of each slot.
#[derive(Debug)]
pub struct Extreme {
    largest: bool,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// Nothing is ever taken away: the best one is enough.
    Best(Vec<Option<Box<[u8]>>>),
    /// All values, since the best one may be retracted.
    All(Multisets),
}

impl Extreme {
    /// Of the largest values, or the smallest.
    pub fn new(largest: bool, append_only: bool) -> Self {
        Extreme {
            largest,
            values: if append_only { Values::Best(Vec::new()) } else { Values::All(Multisets::default()) },
        }
    }

    /// Makes room for that many slots.
    pub fn grow(&mut self, slots: usize) {
        match &mut self.values {
            Values::Best(best) => best.resize(slots, None),
            Values::All(all) => all.grow(slots),
        }
    }

    /// Adds `weight` occurrences.
    pub fn add(&mut self, slot: usize, value: &[u8], weight: i64) {
        match &mut self.values {
            Values::All(all) => all.add(slot, value, weight),
            Values::Best(_) => self.put(slot, value, weight),
        }
    }

    /// The same for what a checkpoint has already.
    pub fn put(&mut self, slot: usize, value: &[u8], weight: i64) {
        match &mut self.values {
            Values::Best(best) => {
                let better = match &best[slot] {
                    None => true,
                    Some(known) if self.largest => value > known.as_ref(),
                    Some(known) => value < known.as_ref(),
                };
                if better {
                    best[slot] = Some(value.into());
                }
            }
            Values::All(all) => all.put(slot, value, weight),
        }
    }

    /// The slot's value.
    pub fn get(&self, slot: usize) -> Option<&[u8]> {
        match &self.values {
            Values::Best(best) => best[slot].as_deref(),
            Values::All(all) if self.largest => all.of(slot).last().map(AsRef::as_ref),
            Values::All(all) => all.of(slot).first().map(AsRef::as_ref),
        }
    }

    /// Forgets a slot.
    pub fn clear(&mut self, slot: usize) {
        match &mut self.values {
            Values::Best(best) => best[slot] = None,
            Values::All(all) => all.clear(slot),
        }
    }

    /// The one value that is kept of a slot, where that is how values are kept.
    pub fn best(&self, slot: usize) -> Option<&[u8]> {
        match &self.values {
            Values::Best(best) => best[slot].as_deref(),
            Values::All(_) => None,
        }
    }

    /// All values that are kept, where more than one of a slot is.
    pub fn all(&self) -> Option<&Multisets> {
        match &self.values {
            Values::Best(_) => None,
            Values::All(all) => Some(all),
        }
    }

    /// The same, to be asked what has changed.
    pub fn all_mut(&mut self) -> Option<&mut Multisets> {
        match &mut self.values {
            Values::Best(_) => None,
            Values::All(all) => Some(all),
        }
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::Best(best) => {
                best.capacity() * 16 + best.iter().flatten().map(|value| rows::heap_bytes(value.len())).sum::<usize>()
            }
            Values::All(all) => all.bytes(),
        }
    }
}
