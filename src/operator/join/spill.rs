//! Keys of a join that leave memory, with their rows of both sides, and come back.

use std::sync::Arc;

use super::{Join, LEFT, RIGHT, Shard, TABLES};
use crate::operator::cold::{Cold, Scratch, Spills, keys_of_shard, spill_shards};
use crate::operator::join::side::{self, Bytes, Entry, KeyRows};
use crate::operator::{OperatorError, StatePart};

impl Shard {
    /// Takes those of these keys back that are out.
    pub(super) fn bring_in<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> Result<(), OperatorError> {
        if self.cold.is_empty() {
            return Ok(());
        }
        let parts = self.cold.take(keys)?;
        for side in [LEFT, RIGHT] {
            if parts.iter().any(|part| part.name == TABLES[side]) {
                side::each(&parts, TABLES[side], |key, row, entry| self.insert(side, key, row, entry))?;
            }
        }
        Ok(())
    }

    /// Lets keys go that were not met since this was called before, until so many rows are gone.
    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let awaited = [LEFT, RIGHT].map(|side| self.changed[side].awaited_keys());
        let (mut idle, mut count): (Vec<Bytes>, usize) = (Vec::new(), 0);
        for (key, rows) in &mut self.keys {
            if count >= most {
                break;
            }
            let stays = std::mem::take(&mut rows.is_recent) || awaited.iter().any(|keys| keys.contains(key.as_ref()));
            if !stays {
                count += rows.len();
                idle.push(key.clone());
            }
        }
        drop(awaited);
        if idle.is_empty() {
            return Ok(0);
        }
        let part = |side: usize| -> Result<StatePart, OperatorError> {
            let of_key = |key: &Bytes| -> Vec<(Bytes, Bytes, Entry)> {
                let rows = self.keys.get(key).into_iter().flat_map(|rows| rows.side(side));
                rows.map(|(row, entry)| (key.clone(), row.clone(), *entry)).collect()
            };
            let kept: Vec<_> = idle.iter().flat_map(of_key).collect();
            let kept = kept.iter().map(|(key, row, entry)| (key.as_ref(), row.as_ref(), *entry));
            Ok(StatePart::whole(TABLES[side], 2, side::batch(kept)?))
        };
        self.cold.put(&[part(LEFT)?, part(RIGHT)?], scratch)?;
        for key in &idle {
            let gone = self.keys.remove(key).unwrap_or_default();
            self.rows[LEFT] -= gone.left.len();
            self.rows[RIGHT] -= gone.right.len();
        }
        Ok(count)
    }
}

impl KeyRows {
    fn len(&self) -> usize {
        self.left.len() + self.right.len()
    }
}

impl Join {
    /// Takes those keys of parts of a state back that are out.
    pub(super) fn bring_in(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        let shards = self.shards.len();
        for (number, shard) in self.shards.iter_mut().enumerate().filter(|(_, shard)| !shard.cold.is_empty()) {
            shard.bring_in(keys_of_shard(parts, number, shards)?.into_iter())?;
        }
        Ok(())
    }
}

impl Spills for Join {
    fn in_memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows[LEFT] + shard.rows[RIGHT]).sum()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        spill_shards(&mut self.shards, most, |shard, most| shard.spill(most, scratch))
    }

    fn cold(&self) -> Vec<&Cold> {
        self.shards.iter().map(|shard| &shard.cold).collect()
    }
}
