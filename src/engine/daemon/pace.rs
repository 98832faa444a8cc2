//! How far the running tags are behind, and the fill that waits for them where it is too far; tags that are to be filled again.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Instant;

use tracing::warn;

use super::Daemon;

/// The folder below the state directory in which `tagflow backfill` names tags by empty files.
pub const BACKFILLS: &str = "backfills";

impl Daemon {
    /// Looks how long records wait, and lets a fill wait while that is too long.
    pub(super) fn follow_delay(&mut self) {
        let (now, partitions) = (Instant::now(), &self.intake.partitions);
        self.delay.know(partitions.values().map(|state| state.end.max(state.next)).sum(), now);
        if self.in_flight.is_none() && self.dataflow.pending_keys() == 0 {
            self.delay.settle(self.taken());
        }
        let is_behind = self.delay.of(now) > self.config.engine.fill_lag;
        // Where both meet, the running tags wait for the fill.
        let is_held = is_behind && self.meeting.is_none();
        if let Some(fill) = &self.fill {
            fill.hold(is_held);
        }
    }

    /// Records that the dataflow has taken, counted as [`Delay`](crate::engine::delay::Delay) does.
    pub(super) fn taken(&self) -> i64 {
        self.intake.partitions.values().map(|state| state.next).sum()
    }

    /// The tags that `tagflow backfill` has named and that run, so that there is something to fill again.
    pub(super) fn look_for_backfills(&mut self) {
        let Ok(entries) = std::fs::read_dir(self.config.engine.state_dir.join(BACKFILLS)) else { return };
        let named: BTreeSet<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        self.backfills = named.into_iter().filter(|tag| self.running.contains_key(tag)).collect();
    }

    /// A tag was filled: what was asked for is done.
    pub(super) fn end_backfill(&mut self, tag: &str) {
        self.backfills.remove(tag);
        match std::fs::remove_file(self.config.engine.state_dir.join(BACKFILLS).join(tag)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!(tag, %error, "the wish for a backfill cannot be taken back; the tag is filled again");
            }
            _ => {}
        }
    }
}
