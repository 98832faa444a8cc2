//! Memory within `memory_limit`: where nothing else makes room a checkpoint does, and until then nothing is read.

use std::time::{Duration, Instant};

use super::{Daemon, MOST_PENDING_BYTES, MOST_PENDING_KEYS};
use crate::engine::memory::{MemoryPlan, pending};

/// How often it is tried again to let keys leave memory.
const RETRY: Duration = Duration::from_millis(100);

impl Daemon {
    /// Gives state the room that it may take now, and looks whether all fits.
    pub(super) fn follow_memory(&mut self) {
        let Some(memory) = &self.memory else { return };
        self.is_out_of_memory = memory.follow();
        // Before tags run, and while they wait for those that are filled, no checkpoint is taken.
        let is_urgent = self.checkpointing.is_none() || self.meeting.is_some();
        self.dataflow.graph.set_room(memory.of_running(self.fill.is_some(), is_urgent));
        if (self.is_out_of_memory || self.is_state_too_large()) && self.last_room.elapsed() >= RETRY {
            self.last_room = Instant::now();
            self.dataflow.graph.keep_in_room();
            if self.dataflow.graph.fit().awaits_checkpoint {
                self.hasten_checkpoint();
            }
        }
    }

    /// Rows of an epoch at most.
    pub(super) fn epoch_rows(&self) -> usize {
        let most = self.config.engine.epoch_rows;
        self.memory.as_ref().map_or(most, |memory| memory.epoch_rows(most))
    }

    fn is_state_too_large(&self) -> bool {
        let fit = self.dataflow.graph.fit();
        fit.awaits_checkpoint || fit.trouble.is_some()
    }

    /// True where nothing more is read until the store has caught up or all fits again.
    pub(super) fn is_full(&self) -> bool {
        self.dataflow.pending_keys() > MOST_PENDING_KEYS
            || self.dataflow.pending_bytes() > pending(self.memory.as_ref(), MOST_PENDING_BYTES)
            || self.is_out_of_memory
            || self.is_state_too_large()
    }

    /// Why state, or the process, does not fit.
    pub(super) fn memory_trouble(&self) -> Option<String> {
        let of_state = self.dataflow.graph.fit().trouble.as_ref();
        let of_state = of_state.map(|trouble| format!("{trouble}; nothing is read until it can"));
        of_state.or_else(|| self.memory.as_ref().and_then(MemoryPlan::trouble))
    }
}
