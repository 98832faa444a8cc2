//! When checkpoints are taken: the loop hands over what has changed, and goes on while it is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{Daemon, DaemonError};
use crate::engine::checkpoint::{CheckpointError, CheckpointThread, OperatorFiles, Position, Saved, TagVersion, Taken};
use crate::engine::dataflow::TagFault;
use crate::engine::status::update;
use crate::source::known_topics;

/// Between two checkpoints lies at least so many times what the loop spends on one.
const SHARE: u32 = 20;
/// How often a place is asked that does not answer.
const LOOK: Duration = Duration::from_secs(1);

/// The thread that writes checkpoints, and what it was asked for.
#[derive(Debug)]
pub(super) struct Checkpointing {
    thread: CheckpointThread,
    taken_at: Instant,
    /// How long the loop stood still for the last one.
    pause: Duration,
    /// The epoch up to which the store must come for the one that is on its way.
    awaited: Option<u64>,
    /// What the last one was of.
    last: Option<Position>,
    /// One is due, whenever the last was.
    is_due: bool,
}

impl Daemon {
    /// Waits a while for a place that does not answer; false when the daemon was stopped meanwhile.
    pub(super) fn wait_for_place(&mut self, error: &CheckpointError) -> Result<bool, DaemonError> {
        let trouble = format!("checkpoints: {error}");
        let until = Instant::now() + LOOK;
        while Instant::now() < until {
            if self.stopping() {
                return Ok(false);
            }
            self.store.check_lease()?;
            self.write_status(std::slice::from_ref(&trouble));
            std::thread::sleep(Duration::from_millis(25));
        }
        Ok(true)
    }

    /// Starts the thread; the operators' state was loaded from `resting_on`.
    pub(super) fn start_checkpoints(&mut self, resting_on: BTreeMap<String, OperatorFiles>) -> Result<(), DaemonError> {
        let keeping = self.config.engine.keeping;
        let letters = Arc::clone(&self.world.context.dead_letters);
        let thread = CheckpointThread::start(&self.checkpoints, keeping, resting_on, Arc::clone(&self.stop), letters);
        let thread =
            thread.map_err(|source| DaemonError::Io { what: "the checkpoints' thread".to_string(), source })?;
        self.checkpointing = Some(Checkpointing {
            thread,
            taken_at: Instant::now(),
            pause: Duration::ZERO,
            awaited: None,
            last: None,
            is_due: false,
        });
        Ok(())
    }

    /// True where the store must come to the present epoch, whether or not anything has changed.
    pub(super) fn awaits_commit(&self) -> bool {
        let awaited = self.checkpointing.as_ref().and_then(|checkpointing| checkpointing.awaited);
        awaited.is_some_and(|epoch| epoch > self.committed_epoch)
    }

    /// The store holds all up to the epoch of the last commit.
    pub(super) fn tell_committed(&mut self) {
        let Some(checkpointing) = &mut self.checkpointing else { return };
        checkpointing.thread.committed(self.committed_epoch);
        checkpointing.awaited = checkpointing.awaited.filter(|epoch| *epoch > self.committed_epoch);
    }

    /// Takes a checkpoint when it is time to.
    pub(super) fn follow_checkpoints(&mut self) -> Result<(), DaemonError> {
        let Some(checkpointing) = &mut self.checkpointing else { return Ok(()) };
        if let Some(saved) = checkpointing.thread.saved(Duration::ZERO) {
            self.checkpoint_saved(&saved);
        }
        let Some(checkpointing) = &mut self.checkpointing else { return Ok(()) };
        // Only what has come from the last good checkpoint heals what cannot be read here any more.
        if let Some(error) = checkpointing.thread.failure() {
            return Err(error.into());
        }
        let interval = self.config.engine.checkpoint_interval.max(checkpointing.pause * SHARE);
        let is_due = checkpointing.is_due || checkpointing.taken_at.elapsed() >= interval;
        if is_due && !checkpointing.thread.is_busy() && self.meeting.is_none() {
            self.take_checkpoint()?;
        }
        Ok(())
    }

    /// Lets a checkpoint be taken as soon as none is on its way.
    pub(super) fn hasten_checkpoint(&mut self) {
        if let Some(checkpointing) = &mut self.checkpointing {
            checkpointing.is_due = true;
        }
    }

    /// What keeps checkpoints from being written.
    pub(super) fn checkpoint_trouble(&self) -> Option<String> {
        self.checkpointing.as_ref()?.thread.trouble()
    }

    fn take_checkpoint(&mut self) -> Result<(), DaemonError> {
        let begun = Instant::now();
        let position = self.position();
        let Some(checkpointing) = &mut self.checkpointing else { return Ok(()) };
        checkpointing.taken_at = begun;
        checkpointing.is_due = false;
        let is_known = checkpointing.last.as_ref() == Some(&position);
        if position.tags.is_empty() || is_known || checkpointing.thread.has_ended() {
            return Ok(());
        }
        let (state, further) = match self.dataflow.graph.changes() {
            Ok(changes) => changes,
            Err(fault) => {
                // Of the others the next one holds all.
                checkpointing.is_due = true;
                let of_tag = |tag| TagFault::lasting(tag, &fault.error);
                self.faults(fault.tags.into_iter().map(of_tag).collect());
                return Ok(());
            }
        };
        checkpointing.last = Some(position.clone());
        checkpointing.awaited = Some(position.epoch).filter(|epoch| *epoch > self.committed_epoch);
        let taken = Taken { position, state, further };
        // What was committed before the thread began it was not told; what is on its way may fail yet.
        if self.in_flight.is_none() {
            checkpointing.thread.committed(self.committed_epoch);
        }
        checkpointing.thread.write(taken, chrono::Utc::now().timestamp_millis());
        checkpointing.pause = begun.elapsed();
        Ok(())
    }

    /// Where the dataflow stands.
    fn position(&self) -> Position {
        let mut beginnings = self.dataflow.beginnings();
        let of_tag = |(tag, plan): (&str, &str)| {
            let version = self.version_of(tag);
            let beginnings = beginnings.remove(tag).unwrap_or_default();
            (tag.to_string(), TagVersion { plan: plan.to_string(), version, beginnings })
        };
        let tags = self.dataflow.tags().map(of_tag).collect();
        Position {
            epoch: self.dataflow.epoch,
            clock: self.dataflow.clock,
            watermarks: self.dataflow.watermarks.clone(),
            offsets: self.dataflow.offsets.clone(),
            tags,
            topics: known_topics(&self.config.engine.state_dir).unwrap_or_else(|error| {
                warn!(%error, "which topics the offsets mean is not known to the checkpoint");
                BTreeMap::new()
            }),
            state_dir: self.state_name.clone(),
        }
    }

    fn checkpoint_saved(&mut self, saved: &Saved) {
        update(&self.status, |status| status.checkpoint_epoch = Some(saved.epoch));
        self.world.context.tables.checkpointed(&saved.kept_from);
        if !saved.is_sound {
            self.dataflow.graph.set_saved(false);
            if let Some(checkpointing) = &mut self.checkpointing {
                (checkpointing.last, checkpointing.is_due) = (None, true);
            }
        }
    }

    /// The checkpoint of what the store holds, before the daemon ends. One that is not written in time is let go: what it
    /// would have held is replayed.
    pub(super) fn last_checkpoint(&mut self) -> Result<(), DaemonError> {
        self.settle()?;
        for is_last in [false, true] {
            while let Some(checkpointing) = &mut self.checkpointing
                && checkpointing.thread.is_busy()
            {
                if let Some(saved) = checkpointing.thread.saved(Duration::from_millis(50)) {
                    self.checkpoint_saved(&saved);
                } else if self.stop.is_over() {
                    warn!("the last checkpoint is not written in time; the next start replays from the one before");
                    return Ok(());
                }
            }
            if !is_last && !self.stop.is_over() {
                self.take_checkpoint()?;
            }
        }
        Ok(())
    }
}
