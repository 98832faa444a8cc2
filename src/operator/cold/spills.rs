//! What an operator does whose state by key can leave memory.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Cold, ColdRows, Scratch};
use crate::operator::state::binary_column;
use crate::operator::{OperatorError, StatePart, rows};

/// State by key, of which some can be out of memory.
pub trait Spills {
    /// Keys or rows in memory.
    fn in_memory(&self) -> usize;

    /// Lets about so many of them go of whose changes no checkpoint waits, those first that were not asked for of late;
    /// fewer where there are not so many. With an error all that there was is still there.
    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError>;

    /// What is out of each shard.
    fn cold(&self) -> Vec<&Cold>;

    /// The rows of some tables that are out of each shard.
    fn view(&self, tables: &[String]) -> Vec<ColdRows> {
        self.cold().into_iter().map(|cold| cold.view(tables)).collect()
    }
}

/// In so many lots a shard spills its share: each is in memory several times over while it is written.
const LOTS: usize = 16;
/// A lot has so many keys at least.
const SMALLEST_LOT: usize = 1024;

/// Lets each shard spill its share. `spill` lets go what was not asked for since it passed it before, so that what was
/// asked for of late leaves only where the rest is not enough.
pub fn spill_shards<S: Send>(
    shards: &mut [S],
    most: usize,
    spill: impl Fn(&mut S, usize) -> Result<usize, OperatorError> + Sync,
) -> Result<usize, OperatorError> {
    let each = most.div_ceil(shards.len());
    let gone = shards.par_iter_mut().map(|shard| {
        let lot = (each / LOTS).max(SMALLEST_LOT);
        let (mut gone, mut was_idle) = (0, false);
        while gone < each {
            match spill(shard, lot.min(each - gone))? {
                0 if was_idle => break,
                0 => was_idle = true,
                more => (gone, was_idle) = (gone + more, false),
            }
        }
        Ok(gone)
    });
    Ok(gone.collect::<Result<Vec<usize>, OperatorError>>()?.into_iter().sum())
}

/// Takes those keys of parts of a state back that are out, where the first column is the encoded key.
pub fn bring_in_parts<S>(
    shards: &mut [S],
    parts: &[StatePart],
    cold: impl Fn(&S) -> &Cold,
    bring_in: impl Fn(&mut S, Vec<&[u8]>) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    let count = shards.len();
    let with_cold = shards.iter_mut().enumerate().filter(|(_, shard)| !cold(shard).is_empty());
    with_cold.into_iter().try_for_each(|(number, shard)| bring_in(shard, keys_of_shard(parts, number, count)?))
}

/// The keys of parts that are of one of so many shards.
fn keys_of_shard(parts: &[StatePart], shard: usize, shards: usize) -> Result<Vec<&[u8]>, OperatorError> {
    let mut own = Vec::new();
    for part in parts {
        let keys = binary_column(&part.batch, 0)?;
        let all = (0..part.batch.num_rows()).map(|row| keys.value(row));
        own.extend(all.filter(|key| rows::shard_of(rows::hash_bytes(key), shards) == shard));
    }
    Ok(own)
}
