//! Who writes: this daemon, or another one that holds the state directory or the store.
//!
//! Enters: what the user wants of another daemon. Leaves: the lock on the state directory and an opened store, or word
//! of who keeps us from them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::info;

use super::{Daemon, DaemonError};
use crate::engine::state_dir;
use crate::engine::status::{Phase, update};
use crate::engine::store::StoreError;
use crate::file_lock::{self, Asked, FileLock};
use crate::sink::SinkError;
use crate::sink::lease::{Claim, Ends, Holder, Opened, Owner};

/// How often it is looked whether the other daemon is gone.
const LOOK: Duration = Duration::from_millis(250);

/// What this daemon does when another one writes the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherDaemon {
    /// Leave it alone, unless it turns out to be dead.
    #[default]
    Refuse,
    /// Wait until it is gone.
    WaitFor,
    /// Take the store from it.
    Replace,
}

/// The lock on the state directory.
struct StateLock {
    path: PathBuf,
    owner: Owner,
    lock: Option<FileLock>,
    /// Its present holder, or its last one where the lock is ours.
    other: Option<Owner>,
}

impl StateLock {
    fn ask(&mut self) -> Result<(), DaemonError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let asked = file_lock::ask(&self.path, &self.owner.to_text()).map_err(|source| self.failed(source))?;
        let text = match asked {
            Asked::Ours(lock, text) => {
                self.lock = Some(lock);
                text
            }
            Asked::Held(text) => text,
        };
        self.other = Owner::from_text(&text);
        Ok(())
    }

    /// An owner whose process is known to have ended: it had this lock, on this machine, where locks can be trusted.
    fn ended(&self) -> Option<&Owner> {
        self.other.as_ref().filter(|other| self.lock.is_some() && other.host == self.owner.host)
    }

    /// The lock, also from a holder that the store does not let write any more: it may be stopped, and wake up.
    fn take(mut self, superseded: Option<&Owner>) -> Result<FileLock, DaemonError> {
        self.ask()?;
        match self.lock.take() {
            Some(lock) => Ok(lock),
            None if self.other.is_some() && self.other.as_ref() == superseded => {
                file_lock::replace(&self.path, &self.owner.to_text()).map_err(|source| self.failed(source))
            }
            None => Err(self.in_use()),
        }
    }

    fn failed(&self, source: std::io::Error) -> DaemonError {
        DaemonError::Io { what: self.path.display().to_string(), source }
    }

    fn in_use(&self) -> DaemonError {
        let owner = self.other.as_ref().map_or_else(|| "another process".to_string(), Owner::to_string);
        DaemonError::StateInUse { path: self.path.clone(), owner }
    }
}

impl Daemon {
    /// Waits for the right to write and takes it. `None` when the daemon was stopped before.
    pub(super) fn claim(&mut self, wish: OtherDaemon) -> Result<Option<FileLock>, DaemonError> {
        let owner = Owner::new();
        let path = self.config.engine.state_dir.join("lock");
        let mut state = StateLock { path, owner: owner.clone(), lock: None, other: None };
        state.ask()?;
        if wish == OtherDaemon::Refuse && state.lock.is_none() {
            return Err(state.in_use());
        }
        let mut before: Option<Holder> = None;
        while !self.stop.is_asked() {
            let ends = match state.ended() {
                _ if wish == OtherDaemon::Replace => Ends::Anybody,
                Some(ended) => Ends::Owner(ended.id.clone()),
                None => Ends::Nobody,
            };
            let claim = Claim { owner: owner.clone(), length: self.config.engine.lease, ends };
            let holder = match self.store.call("open", move |sink| sink.open(&claim)) {
                Ok(opened) => return self.claimed(opened, state).map(Some),
                Err(StoreError::Sink(SinkError::Held { store, holder })) => {
                    let is_alive = before.as_ref().is_none_or(|before| before.expires_at != holder.expires_at);
                    let is_known_alive = holder.expires_at.is_none() || before.is_some() && is_alive;
                    if wish == OtherDaemon::Refuse && is_known_alive {
                        return Err(SinkError::Held { store, holder }.into());
                    }
                    holder
                }
                // Nothing was begun that would have to come to an end.
                Err(StoreError::Stopped) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if before.as_ref().is_none_or(|before| before.owner != holder.owner) {
                info!(%holder, "another daemon writes the store; waiting");
            }
            update(&self.status, |status| {
                status.phase = Phase::Standby;
                status.holder = Some(holder.to_string());
                status.troubles.clear();
            });
            before = Some(holder);
            let until = Instant::now() + LOOK;
            while Instant::now() < until && !self.stop.is_asked() {
                std::thread::sleep(Duration::from_millis(25));
            }
            state.ask()?;
            self.follow_files();
        }
        Ok(None)
    }

    fn claimed(&mut self, opened: Opened, state: StateLock) -> Result<FileLock, DaemonError> {
        let lock = state.take(opened.before.as_ref())?;
        self.checkpoints = self.checkpoints.clone().of_store(&opened.store);
        let state_dir = &self.config.engine.state_dir;
        self.state_name = state_dir::name_of(state_dir)
            .map_err(|source| DaemonError::Io { what: state_dir.display().to_string(), source })?;
        self.store.note_open();
        info!(generation = opened.generation, "this daemon writes the store now");
        update(&self.status, |status| {
            (status.generation, status.holder) = (Some(opened.generation), None);
            status.phase = Phase::Starting;
        });
        Ok(lock)
    }
}
