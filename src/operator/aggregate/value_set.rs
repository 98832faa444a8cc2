//! Sets of encoded values by slot: for COUNT(DISTINCT), MIN and MAX.

use std::collections::HashMap;

use hashbrown::HashTable;

use crate::operator::aggregate::accumulator::Entries;
use crate::operator::rows::{self, Multiset};

/// How often each value occurs in each slot.
#[derive(Debug, Default)]
pub struct ValueCounts {
    table: HashTable<Occurrence>,
    distinct: Vec<i64>,
    value_bytes: usize,
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
        let hash_value = hash(slot, value);
        let found = self.table.find_entry(hash_value, |known| known.slot == slot && *known.value == *value);
        match found {
            Ok(mut entry) => {
                let before = entry.get().weight;
                let after = before + weight;
                self.distinct[slot as usize] += i64::from(after > 0) - i64::from(before > 0);
                if after == 0 {
                    let (removed, _) = entry.remove();
                    self.value_bytes -= removed.value.len();
                } else {
                    entry.get_mut().weight = after;
                }
            }
            Err(_) => {
                self.distinct[slot as usize] += i64::from(weight > 0);
                self.value_bytes += value.len();
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

    /// All values of these slots.
    pub fn entries(&self, slots: &[u32]) -> Entries {
        let positions: HashMap<u32, u32> =
            slots.iter().enumerate().map(|(position, slot)| (*slot, position as u32)).collect();
        self.table
            .iter()
            .filter_map(|known| Some((*positions.get(&known.slot)?, known.value.clone(), known.weight)))
            .collect()
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        self.table.capacity() * (size_of::<Occurrence>() + 1) + self.value_bytes + self.distinct.capacity() * 8
    }
}

/// All values of each slot in their order, with their weights.
#[derive(Debug, Default)]
pub struct Multisets(Vec<Multiset>);

impl Multisets {
    /// Makes room for that many slots.
    pub fn grow(&mut self, slots: usize) {
        self.0.resize(slots, Multiset::new());
    }

    /// Adds `weight` occurrences.
    pub fn add(&mut self, slot: usize, value: &[u8], weight: i64) {
        rows::add(&mut self.0[slot], value, weight);
    }

    /// The values of a slot.
    pub fn of(&self, slot: usize) -> &Multiset {
        &self.0[slot]
    }

    /// Forgets a slot.
    pub fn clear(&mut self, slot: usize) {
        self.0[slot].clear();
    }

    /// All values of these slots.
    pub fn entries(&self, slots: &[u32]) -> Entries {
        let of_slot = |(position, slot): (usize, &u32)| {
            let values = self.0[*slot as usize].iter();
            values.map(move |(value, weight)| (position as u32, value.clone(), *weight)).collect::<Vec<_>>()
        };
        slots.iter().enumerate().flat_map(of_slot).collect()
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * 24 + self.0.iter().flat_map(Multiset::keys).map(|value| value.len() + 32).sum::<usize>()
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
            Values::All(all) => all.add(slot, value, weight),
        }
    }

    /// The slot's value.
    pub fn get(&self, slot: usize) -> Option<&[u8]> {
        match &self.values {
            Values::Best(best) => best[slot].as_deref(),
            Values::All(all) if self.largest => all.of(slot).last_key_value().map(|(value, _)| value.as_ref()),
            Values::All(all) => all.of(slot).first_key_value().map(|(value, _)| value.as_ref()),
        }
    }

    /// Forgets a slot.
    pub fn clear(&mut self, slot: usize) {
        match &mut self.values {
            Values::Best(best) => best[slot] = None,
            Values::All(all) => all.clear(slot),
        }
    }

    /// All values that are kept of these slots.
    pub fn entries(&self, slots: &[u32]) -> Entries {
        match &self.values {
            Values::Best(best) => {
                let best = slots.iter().map(|slot| &best[*slot as usize]).enumerate();
                best.filter_map(|(position, value)| Some((position as u32, value.clone()?, 1))).collect()
            }
            Values::All(all) => all.entries(slots),
        }
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::Best(best) => best.capacity() * 16 + best.iter().flatten().map(|value| value.len()).sum::<usize>(),
            Values::All(all) => all.bytes(),
        }
    }
}
