//! What has changed since the last checkpoint, as operators note it while they step.
//!
//! Nothing is noted before a first checkpoint, nor once more has changed than the checkpoint held: all is written then. So
//! notes take no more memory than the state does.

use hashbrown::HashSet;

use crate::operator::rows::heap_bytes;

/// A set of slots, one bit for each.
#[derive(Debug, Default)]
pub struct SlotSet(Vec<u64>);

impl SlotSet {
    /// Adds a slot; false where it is there already.
    pub fn insert(&mut self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / 64, 1_u64 << (slot % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Takes a slot out; false where it is not there.
    pub fn remove(&mut self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / 64, 1_u64 << (slot % 64));
        let is_there = self.has(slot);
        if is_there {
            self.0[word] &= !bit;
        }
        is_there
    }

    /// Whether a slot is there.
    pub fn has(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * 8
    }
}

impl<'a> Extend<&'a u32> for SlotSet {
    fn extend<I: IntoIterator<Item = &'a u32>>(&mut self, slots: I) {
        for slot in slots {
            self.insert(*slot);
        }
    }
}

/// Slots that have changed.
#[derive(Debug, Default)]
pub struct ChangedSlots {
    /// `None` where all must be taken as changed.
    slots: Option<Vec<u32>>,
    /// Those among them.
    noted: SlotSet,
}

impl ChangedSlots {
    /// Notes a slot.
    pub fn note(&mut self, slot: u32) {
        let Some(slots) = &mut self.slots else { return };
        if self.noted.insert(slot) {
            slots.push(slot);
        }
    }

    /// Whether the next checkpoint asks for this slot: what is here may differ from what the last one has of it.
    pub fn awaits(&self, slot: u32) -> bool {
        self.slots.is_some() && self.noted.has(slot)
    }

    /// What was noted, `None` for everything; notes begin anew.
    pub fn take(&mut self) -> Option<Vec<u32>> {
        let slots = self.slots.replace(Vec::new())?;
        for slot in &slots {
            self.noted.remove(*slot);
        }
        Some(slots)
    }

    /// Whether a checkpoint holds what is here now.
    pub fn set_saved(&mut self, is_saved: bool) {
        self.take();
        self.slots = is_saved.then(Vec::new);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.noted.bytes() + self.slots.as_ref().map_or(0, Vec::capacity) * 4
    }
}

/// Rows that have changed, each under a key.
#[derive(Debug, Default)]
pub struct ChangedRows {
    /// The length of the key, the key, the row; `None` where all must be taken as changed.
    rows: Option<HashSet<Box<[u8]>>>,
    /// With more than these it is less to write all.
    most: usize,
    /// Bytes of those that are noted.
    bytes: usize,
    scratch: Vec<u8>,
}

/// Rows that were noted.
#[derive(Debug, Default)]
pub struct NotedRows(HashSet<Box<[u8]>>);

impl ChangedRows {
    /// Notes a row.
    pub fn note(&mut self, key: &[u8], row: &[u8]) {
        let Some(rows) = &mut self.rows else { return };
        join_key(&mut self.scratch, key, row);
        if rows.contains(self.scratch.as_slice()) {
            return;
        }
        if rows.len() >= self.most {
            (self.rows, self.bytes) = (None, 0);
            return;
        }
        self.bytes += heap_bytes(self.scratch.len());
        rows.insert(self.scratch.as_slice().into());
    }

    /// What was noted, `None` for everything; notes begin anew, over so many rows as there are now.
    pub fn take(&mut self, rows: usize) -> Option<NotedRows> {
        let noted = self.rows.as_mut()?;
        (self.most, self.bytes) = (rows, 0);
        Some(NotedRows(std::mem::take(noted)))
    }

    /// Whether the next checkpoint asks for this row.
    pub fn awaits(&mut self, key: &[u8], row: &[u8]) -> bool {
        let Some(rows) = &self.rows else { return false };
        join_key(&mut self.scratch, key, row);
        rows.contains(self.scratch.as_slice())
    }

    /// The keys of the rows that the next checkpoint asks for.
    pub fn awaited_keys(&self) -> HashSet<&[u8]> {
        self.rows.iter().flatten().filter_map(|bytes| Some(split_key(bytes)?.0)).collect()
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        self.bytes + self.rows.as_ref().map_or(0, HashSet::allocation_size)
    }

    /// Whether a checkpoint holds what is here now, which is so many rows.
    pub fn set_saved(&mut self, is_saved: bool, rows: usize) {
        self.rows = is_saved.then(HashSet::new);
        (self.most, self.bytes) = (rows, 0);
    }
}

impl NotedRows {
    /// Keys and rows.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().filter_map(|bytes| split_key(bytes))
    }
}

fn join_key(bytes: &mut Vec<u8>, key: &[u8], row: &[u8]) {
    bytes.clear();
    bytes.extend((key.len() as u32).to_le_bytes());
    bytes.extend(key);
    bytes.extend(row);
}

fn split_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_noted_once_and_only_after_a_checkpoint() {
        let mut changed = ChangedSlots::default();
        changed.note(3);
        assert_eq!(changed.take(), None);
        for slot in [70, 3, 70] {
            changed.note(slot);
        }
        assert_eq!(changed.take(), Some(vec![70, 3]));
        changed.note(3);
        assert_eq!(changed.take(), Some(vec![3]));
        changed.set_saved(false);
        assert_eq!(changed.take(), None);
    }

    #[test]
    fn more_rows_than_there_were_are_all_rows() {
        let mut changed = ChangedRows::default();
        changed.set_saved(true, 2);
        for row in [b"a", b"b", b"a"] {
            changed.note(b"key", row);
        }
        let noted = changed.take(2).unwrap();
        let mut noted: Vec<_> = noted.iter().collect();
        noted.sort_unstable();
        assert_eq!(noted, [(&b"key"[..], &b"a"[..]), (b"key", b"b")]);
        for row in [b"a", b"b", b"c"] {
            changed.note(b"key", row);
        }
        assert!(changed.take(3).is_none());
    }
}
