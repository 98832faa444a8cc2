//! Partitions that leave memory and come back.

use std::sync::Arc;

use super::{Kept, Key, Partitions, ROWS, Shard, batch, each, rows_of};
use crate::operator::cold::{Cold, Scratch, Spills, bring_in_parts, spill_shards};
use crate::operator::{OperatorError, StatePart};

impl Shard {
    /// Takes those of these partitions back that are out.
    pub fn bring_in<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> Result<(), OperatorError> {
        if self.cold.is_empty() {
            return Ok(());
        }
        let parts = self.cold.take(keys)?;
        if parts.is_empty() { Ok(()) } else { each(&parts, |key, row, weight| self.insert(key, row, weight)) }
    }

    /// Lets partitions go that were not met since this was called before, until so many rows are gone.
    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let awaited = self.changed.awaited_keys();
        let goes = |key: &Key, kept: &mut Kept| !std::mem::take(&mut kept.is_recent) && !awaited.contains(key.as_ref());
        let mut going = self.partitions.extract_if(goes);
        let (mut idle, mut count): (Vec<(Key, Kept)>, usize) = (Vec::new(), 0);
        while count < most
            && let Some((key, kept)) = going.next()
        {
            count += kept.rows.len();
            idle.push((key, kept));
        }
        drop(going);
        if idle.is_empty() {
            return Ok(0);
        }
        let rows = batch(rows_of(idle.iter().map(|(key, kept)| (key, kept))).iter().copied());
        let put = rows.and_then(|rows| self.cold.put(&[StatePart::whole(ROWS, 2, rows)], scratch));
        if let Err(error) = put {
            self.partitions.extend(idle);
            return Err(error);
        }
        self.rows -= count;
        Ok(count)
    }
}

impl Partitions {
    /// Takes those keys of parts of a state back that are out.
    pub(super) fn bring_in(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        bring_in_parts(&mut self.shards, parts, |shard| &shard.cold, |shard, keys| shard.bring_in(keys.into_iter()))
    }
}

impl Spills for Partitions {
    fn in_memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        spill_shards(&mut self.shards, most, |shard, most| shard.spill(most, scratch))
    }

    fn cold(&self) -> Vec<&Cold> {
        self.shards.iter().map(|shard| &shard.cold).collect()
    }
}
