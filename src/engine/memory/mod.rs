//! Memory within `memory_limit`: how it is divided, and how the process is held to it.
//!
//! What the process takes before it holds anything, its code above all, comes off first; the rest is for state, for what is
//! read and for what waits for the store. Sizes of these are estimates, and an allocator keeps holes. So the process itself is
//! looked at between epochs: near its limit free memory is given back to the machine, then state gets less room, and in the
//! end nothing is read until there is some again.

mod process;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use self::process::Resident;
use crate::engine::scratch;
use crate::operator::cold::Scratch;
use crate::operator::graph::Room;

/// So much of what there is to work with for each row of an epoch.
const OF_ROW: usize = 8 << 10;
/// So much of what is left of it for each: what a row may take beside state, in all operators that it passes.
const LEFT_OF_ROW: usize = 4 << 10;
/// An epoch takes so many rows, however little is left.
const LEAST_ROWS: usize = 256;
/// What is needed beside what the process takes at its start.
const LEAST: usize = 64 << 20;
/// Where the process has more than so many 64ths of its limit, free memory is given back, and state gets less room.
const HIGH: usize = 54;
/// Where it has more than so many, nothing is read.
const FULL: usize = 60;
/// Where it has less than so many, state gets its room again.
const LOW: usize = 44;
/// State loses and gains so many parts of its room at a time.
const PARTS: usize = 16;
/// So many parts are never taken.
const LEAST_PARTS: usize = 2;
/// How often something is done about it.
const TURN: Duration = Duration::from_millis(200);
/// How long the process has little before state gets a part of its room again.
const EASY: Duration = Duration::from_secs(2);
/// How long nothing was read before that is told.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// `memory_limit` leaves no room to work in.
#[derive(Debug, thiserror::Error)]
#[error(
    "memory_limit is {}, of which the process takes {} before it holds anything: it needs {} at least",
    ByteSize(*limit as u64),
    ByteSize(*base as u64),
    ByteSize((base + LEAST) as u64)
)]
pub struct TooSmall {
    limit: usize,
    base: usize,
}

/// Bytes of rows that may wait for the store, at most so many. They are there several times while they are handed over.
pub fn pending(memory: Option<&MemoryPlan>, most: usize) -> usize {
    memory.map_or(most, |memory| most.min(memory.rest() / 16))
}

/// How the memory of the process is divided, and how much of it there is.
#[derive(Debug, Clone)]
pub struct MemoryPlan {
    limit: usize,
    /// What the process had at its start but for its files, of which more are read as it goes.
    base: usize,
    scratch: Arc<dyn Scratch>,
    held: Arc<Mutex<Held>>,
}

/// What was seen of the process, and done about it.
#[derive(Debug)]
struct Held {
    /// Bytes at the last look.
    all: usize,
    files: usize,
    /// The parts of its room that state has.
    parts: usize,
    /// When the last was taken or given.
    turned: Instant,
    full_since: Option<Instant>,
}

impl MemoryPlan {
    /// Within `limit` bytes; what does not fit goes below the state directory. To be made before anything is held.
    pub fn new(limit: u64, state_dir: &Path) -> Result<Self, TooSmall> {
        process::keep_little();
        process::allow_files();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let Resident { all, files } = Resident::now().unwrap_or(Resident { all: 0, files: 0 });
        if limit < all + LEAST {
            return Err(TooSmall { limit, base: all });
        }
        let held = Held { all, files, parts: PARTS, turned: Instant::now(), full_since: None };
        let scratch = scratch::below(state_dir);
        Ok(MemoryPlan { limit, base: all - files, scratch, held: Arc::new(Mutex::new(held)) })
    }

    fn held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes beside those that the process has for itself.
    fn rest(&self) -> usize {
        self.limit.saturating_sub(self.base + self.held(|held| held.files))
    }

    /// Looks at the process. True where nothing should be read.
    pub fn follow(&self) -> bool {
        let Some(mut now) = Resident::now() else { return false };
        let share = |parts: usize| self.limit / 64 * parts;
        self.held(|held| {
            let since = held.turned.elapsed();
            if now.all > share(HIGH) && since >= TURN {
                process::give_back();
                now = Resident::now().unwrap_or(now);
                if now.all > share(HIGH) {
                    held.parts = (held.parts - 1).max(LEAST_PARTS);
                }
                held.turned = Instant::now();
            } else if now.all < share(LOW) && since >= EASY && held.parts < PARTS {
                held.parts += 1;
                held.turned = Instant::now();
            }
            (held.all, held.files) = (now.all, now.files);
            let is_full = now.all > share(FULL);
            held.full_since = is_full.then(|| held.full_since.unwrap_or_else(Instant::now));
            is_full
        })
    }

    /// What keeps the process from reading, where nothing was for a while.
    pub fn trouble(&self) -> Option<String> {
        let (all, since) = self.held(|held| (held.all, held.full_since));
        since.filter(|since| since.elapsed() >= TOLD_AFTER).map(|_| {
            format!(
                "the process has {} of the {} of memory_limit, and no more of it can go; nothing is read until it can",
                ByteSize(all as u64),
                ByteSize(self.limit as u64)
            )
        })
    }

    fn room(&self, bytes: usize, is_urgent: bool) -> Room {
        let parts = self.held(|held| held.parts);
        Room { scratch: Arc::clone(&self.scratch), bytes: bytes / PARTS * parts, is_urgent }
    }

    /// The room of the running tags' state, smaller while others are filled beside them. A checkpoint takes as much again
    /// while it is written.
    pub fn of_running(&self, is_filling: bool, is_urgent: bool) -> Room {
        self.room(self.rest() / 16 * if is_filling { 3 } else { 5 }, is_urgent)
    }

    /// The room of tags that are being filled. There are no checkpoints of them.
    pub fn of_filling(&self) -> Room {
        self.room(self.rest() / 16 * 3, true)
    }

    /// What all archives may have in memory, of what they read and what they write.
    pub fn archiving(&self) -> usize {
        self.rest() / 16
    }

    /// True where nothing should be read, as far as was seen at the last look.
    pub fn is_full(&self) -> bool {
        self.held(|held| held.full_since.is_some())
    }

    /// Rows of an epoch, at most so many: the process is looked at between epochs, and fewer come the nearer it is to its
    /// limit.
    pub fn epoch_rows(&self, most: usize) -> usize {
        let left = self.limit.saturating_sub(self.held(|held| held.all));
        most.min((self.rest() / OF_ROW).min(left / LEFT_OF_ROW).max(LEAST_ROWS))
    }

    /// What one intake may have in memory, all of its streams together.
    pub fn reading(&self) -> usize {
        self.rest() / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_become_smaller_towards_the_limit_and_never_empty() {
        let folder = tempfile::tempdir().unwrap();
        let plan = MemoryPlan::new(1 << 36, folder.path()).unwrap();
        let rows = |all: usize| {
            plan.held(|held| held.all = all);
            plan.epoch_rows(1 << 30)
        };
        assert!(rows(0) > 1_000_000);
        assert_eq!(rows(plan.limit - (8 << 20)), 2048);
        assert_eq!(rows(plan.limit + 1), LEAST_ROWS);
        // More pages of files may be there by now than all that is allowed.
        plan.held(|held| held.files = plan.limit);
        assert_eq!(rows(0), LEAST_ROWS);
        assert_eq!(plan.epoch_rows(100), 100);
    }
}
