//! Notices that files of the project have changed, and reads and plans the whole project again.
//!
//! Events of the file system are hints only: after a quiet moment everything is read and hashed, and every 30 s too,
//! since watchers miss events. Nothing that runs is touched here; the epoch loop gets the outcome.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tracing::{info, warn};

use crate::config::Config;
use crate::diagnostic::{Diagnostic, hold_back};
use crate::engine::desired::{Desired, is_sound, plan_project};
use crate::engine::replays::{self, Replays};
use crate::engine::rollbacks::{self, Rollbacks};
use crate::project;

/// Quiet after the last event before files are read.
const QUIET: Duration = Duration::from_millis(500);
/// Longest wait for quiet.
const LONGEST_UNREST: Duration = Duration::from_secs(5);
/// Files are read this often even without an event.
const PATROL: Duration = Duration::from_secs(30);

/// What reading the project again gave.
#[derive(Debug)]
pub enum ReloadOutcome {
    /// A sound project, and the tags whose files are gone or unreadable for sure or not: see `missing`.
    Changed(Box<Reloaded>),
    /// The project has errors; what runs stays as it is.
    Refused(Vec<Diagnostic>),
}

/// A project that was read again.
#[derive(Debug)]
pub struct Reloaded {
    /// What should run.
    pub desired: Desired,
    /// Files that are there but could not be read: their tags are not gone.
    pub unreadable: BTreeSet<PathBuf>,
}

/// The watching thread. Dropping it ends it.
pub struct Reloader {
    /// Outcomes, in order.
    pub outcomes: Receiver<ReloadOutcome>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reloader {
    /// Starts watching; `known` is the fingerprint of the files as they were loaded and planned.
    pub fn start(profile: Option<String>, known: String, desired: &Desired) -> std::io::Result<Self> {
        let Config { root, engine, .. } = desired.project.config.clone();
        let (sender, outcomes) = channel();
        let (stop, stopped) = channel();
        // The watcher is there before the thread, so that no change is lost between.
        let (hint, hints) = channel();
        let mut watcher = notify::recommended_watcher(move |_event| {
            let _ = hint.send(());
        });
        let folders = ["tags", "schemas", "functions"].map(|folder| (root.join(folder), RecursiveMode::Recursive));
        let single = [root.clone(), engine.state_dir].map(|folder| (folder, RecursiveMode::NonRecursive));
        for (path, mode) in folders.into_iter().chain(single) {
            if let Ok(watcher) = &mut watcher
                && path.exists()
                && let Err(error) = watcher.watch(&path, mode)
            {
                warn!(path = %path.display(), %error, "changes are noticed only every 30 s");
            }
        }
        let asked = (desired.replays.clone(), desired.rollbacks.clone());
        let watch = Watch { root, profile, known, asked, hints, stopped, outcomes: sender };
        let thread = std::thread::Builder::new().name("reload".to_string()).spawn(move || {
            // Kept for as long as the thread runs.
            let _watcher = watcher;
            watch.run();
        })?;
        Ok(Reloader { outcomes, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the reloader panicked");
        }
    }
}

struct Watch {
    root: PathBuf,
    profile: Option<String>,
    known: String,
    /// What commands have left word of.
    asked: (Replays, Rollbacks),
    hints: Receiver<()>,
    stopped: Receiver<()>,
    outcomes: Sender<ReloadOutcome>,
}

impl Watch {
    fn run(mut self) {
        while self.wait_for_change() {
            let loaded = project::load(&self.root, self.profile.as_deref());
            let state_dir = loaded.project.as_ref().map(|project| project.config.engine.state_dir.as_path());
            // What cannot be read is told when the files are planned.
            let (replays, rollbacks) = self.asked.clone();
            let replays = state_dir.map_or(Ok(replays.clone()), replays::read).unwrap_or(replays);
            let rollbacks = state_dir.map_or(Ok(rollbacks.clone()), rollbacks::read).unwrap_or(rollbacks);
            let asked = (replays, rollbacks);
            if loaded.fingerprint == self.known && asked == self.asked {
                continue;
            }
            self.known = loaded.fingerprint;
            self.asked = asked;
            let outcome = match loaded.project {
                None => ReloadOutcome::Refused(hold_back(loaded.diagnostics)),
                Some(project) => {
                    let (desired, planned) = plan_project(&project);
                    let diagnostics: Vec<Diagnostic> = loaded.diagnostics.into_iter().chain(planned).collect();
                    if is_sound(&diagnostics) {
                        ReloadOutcome::Changed(Box::new(Reloaded { desired, unreadable: loaded.unreadable }))
                    } else {
                        ReloadOutcome::Refused(hold_back(diagnostics))
                    }
                }
            };
            info!("the project's files have changed, dead letters are replayed, or a tag goes back");
            if self.outcomes.send(outcome).is_err() {
                return;
            }
        }
    }

    /// Waits for a hint and the quiet after it, or for the patrol. False when it is time to end.
    fn wait_for_change(&self) -> bool {
        let patrol = Instant::now() + PATROL;
        loop {
            if self.is_stopped() {
                return false;
            }
            match self.hints.recv_timeout(Duration::from_millis(100)) {
                Ok(()) => break,
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(100)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= patrol {
                return true;
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < LONGEST_UNREST && !self.is_stopped() {
            if self.hints.recv_timeout(QUIET) == Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        !self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
    }
}
