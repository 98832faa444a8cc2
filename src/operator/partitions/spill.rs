//! Partitions that leave memory and come back.

use std::sync::Arc;

use super::{Kept, Partitions, ROWS, Shard, batch, each};
use crate::operator::cold::{Cold, Scratch, Spills, keys_of_shard, spill_shards};
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
        let (mut idle, mut count): (Vec<Box<[u8]>>, usize) = (Vec::new(), 0);
        for (key, kept) in &mut self.partitions {
            if count >= most {
                break;
            }
            if !std::mem::take(&mut kept.is_recent) && !awaited.contains(key.as_ref()) {
                count += kept.rows.len();
                idle.push(key.clone());
            }
        }
        drop(awaited);
        if idle.is_empty() {
            return Ok(0);
        }
        let of_key = |key: &[u8]| {
            let rows = self.get(key).into_iter().flatten();
            rows.map(|(row, weight)| (Box::from(key), row.clone(), *weight))
                .collect::<Vec<(Box<[u8]>, Box<[u8]>, i64)>>()
        };
        let kept: Vec<_> = idle.iter().flat_map(|key| of_key(key)).collect();
        let kept = kept.iter().map(|(key, row, weight)| (key.as_ref(), row.as_ref(), *weight));
        self.cold.put(&[StatePart::whole(ROWS, 2, batch(kept)?)], scratch)?;
        for key in &idle {
            self.rows -= self.partitions.remove(key).map_or(0, |Kept { rows, .. }| rows.len());
        }
        Ok(count)
    }
}

impl Partitions {
    /// Takes those keys of parts of a state back that are out.
    pub(super) fn bring_in(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        let shards = self.shards.len();
        for (number, shard) in self.shards.iter_mut().enumerate().filter(|(_, shard)| !shard.cold.is_empty()) {
            shard.bring_in(keys_of_shard(parts, number, shards)?.into_iter())?;
        }
        Ok(())
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
