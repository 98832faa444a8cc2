//! Keys of a join that leave memory, with their rows of both sides, and come back.

use std::sync::Arc;

use super::{Join, LEFT, RIGHT, Shard, TABLES, rows_of};
use crate::operator::cold::{Cold, Scratch, Spills, bring_in_parts, spill_shards};
use crate::operator::join::side::{self, Bytes, KeyRows};
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
        let goes = |key: &Bytes, rows: &mut KeyRows| {
            !std::mem::take(&mut rows.is_recent) && !awaited.iter().any(|keys| keys.contains(key.as_ref()))
        };
        let mut going = self.keys.extract_if(goes);
        let (mut idle, mut count): (Vec<(Bytes, KeyRows)>, usize) = (Vec::new(), 0);
        while count < most
            && let Some((key, rows)) = going.next()
        {
            count += rows.len();
            idle.push((key, rows));
        }
        drop(going);
        if idle.is_empty() {
            return Ok(0);
        }
        let part = |side: usize| -> Result<StatePart, OperatorError> {
            Ok(StatePart::whole(
                TABLES[side],
                2,
                side::batch(rows_of(idle.iter().map(|(key, rows)| (key, rows)), side).iter().copied())?,
            ))
        };
        let put = part(LEFT).and_then(|left| self.cold.put(&[left, part(RIGHT)?], scratch));
        if let Err(error) = put {
            self.keys.extend(idle);
            return Err(error);
        }
        for (_, gone) in idle {
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
        bring_in_parts(&mut self.shards, parts, |shard| &shard.cold, |shard, keys| shard.bring_in(keys.into_iter()))
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
