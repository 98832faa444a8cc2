//! What has changed since the last checkpoint, as operators note it while they step.
//!
//! Nothing is noted before a first checkpoint, nor once more has changed than the checkpoint held: all is written then. So
//! notes take no more memory than the state does.

use hashbrown::HashSet;

/// Slots that have changed.
#[derive(Debug, Default)]
pub struct ChangedSlots {
    /// `None` where all must be taken as changed.
    slots: Option<Vec<u32>>,
    /// One bit for each slot: it is among them.
    noted: Vec<u64>,
}

impl ChangedSlots {
    /// Notes a slot.
    pub fn note(&mut self, slot: u32) {
        let Some(slots) = &mut self.slots else { return };
        let (word, bit) = (slot as usize / 64, 1_u64 << (slot % 64));
        if self.noted.len() <= word {
            self.noted.resize(word + 1, 0);
        }
        if self.noted[word] & bit == 0 {
            self.noted[word] |= bit;
            slots.push(slot);
        }
    }

    /// What was noted, `None` for everything; notes begin anew.
    pub fn take(&mut self) -> Option<Vec<u32>> {
        let slots = self.slots.replace(Vec::new())?;
        slots.iter().for_each(|slot| self.noted[*slot as usize / 64] = 0);
        Some(slots)
    }

    /// Whether a checkpoint holds what is here now.
    pub fn set_saved(&mut self, is_saved: bool) {
        self.take();
        self.slots = is_saved.then(Vec::new);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.noted.capacity() * 8 + self.slots.as_ref().map_or(0, Vec::capacity) * 4
    }
}

/// Rows that have changed, each under a key.
#[derive(Debug, Default)]
pub struct ChangedRows {
    /// The length of the key, the key, the row; `None` where all must be taken as changed.
    rows: Option<HashSet<Box<[u8]>>>,
    /// With more than these it is less to write all.
    most: usize,
    scratch: Vec<u8>,
}

/// Rows that were noted.
#[derive(Debug, Default)]
pub struct NotedRows(HashSet<Box<[u8]>>);

impl ChangedRows {
    /// Notes a row.
    pub fn note(&mut self, key: &[u8], row: &[u8]) {
        let Some(rows) = &mut self.rows else { return };
        self.scratch.clear();
        self.scratch.extend((key.len() as u32).to_le_bytes());
        self.scratch.extend(key);
        self.scratch.extend(row);
        if rows.contains(self.scratch.as_slice()) {
            return;
        }
        if rows.len() >= self.most {
            self.rows = None;
            return;
        }
        rows.insert(self.scratch.as_slice().into());
    }

    /// What was noted, `None` for everything; notes begin anew, over so many rows as there are now.
    pub fn take(&mut self, rows: usize) -> Option<NotedRows> {
        let noted = self.rows.as_mut()?;
        self.most = rows;
        Some(NotedRows(std::mem::take(noted)))
    }

    /// Whether a checkpoint holds what is here now, which is so many rows.
    pub fn set_saved(&mut self, is_saved: bool, rows: usize) {
        self.rows = is_saved.then(HashSet::new);
        self.most = rows;
    }
}

impl NotedRows {
    /// Keys and rows.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().filter_map(|bytes| {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        })
    }
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
