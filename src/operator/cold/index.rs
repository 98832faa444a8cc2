//! Which keys are out: for the hash of each, where its record is.

use hashbrown::HashTable;

use super::log::Place;
use crate::operator::rows;

/// Hashes and places; several keys may have one hash.
#[derive(Debug, Default)]
pub(super) struct Index(HashTable<(u32, Place)>);

fn spread(hash: u32) -> u64 {
    rows::mix(u64::from(hash))
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * (size_of::<(u32, Place)>() + 1)
    }

    pub(super) fn has(&self, hash: u32) -> bool {
        self.0.find(spread(hash), |(known, _)| *known == hash).is_some()
    }

    pub(super) fn places(&self, hash: u32) -> impl Iterator<Item = Place> {
        let same = self.0.iter_hash(spread(hash)).filter(move |(known, _)| *known == hash);
        same.map(|(_, place)| *place)
    }

    pub(super) fn insert(&mut self, hash: u32, place: Place) {
        self.0.insert_unique(spread(hash), (hash, place), |(known, _)| spread(*known));
    }

    pub(super) fn remove(&mut self, hash: u32, place: Place) {
        if let Ok(entry) = self.0.find_entry(spread(hash), |known| *known == (hash, place)) {
            entry.remove();
        }
    }
}
