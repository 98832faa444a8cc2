//! Notices that files of the project have changed, and reads and plans the whole project again.
//!
//! Events of the file system are hints only: after a quiet moment everything is read and hashed, and every 30 s too,
//! since watchers miss events. Nothing that runs is touched here; the epoch loop gets the outcome.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tracing::{info, warn};

use crate::config::Config;
use crate::diagnostic::{Diagnostic, hold_back};
use crate::engine::commits::commits_of_tags;
use crate::engine::desired::{Desired, is_sound, plan_project};
use crate::engine::replays::{self, Replays};
use crate::engine::rollbacks::{self, Rollbacks};
use crate::engine::stop::Stop;
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

/// The watching thread. Who drops it is ending: the thread ends too, and one that is still planning then is left behind.
pub struct Reloader {
    /// Outcomes, in order.
    pub outcomes: Receiver<ReloadOutcome>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Reloader {
    /// Starts watching; `known` is the fingerprint of the files as they were loaded and planned.
    pub fn start(profile: Option<String>, known: String, desired: &Desired, stop: Arc<Stop>) -> std::io::Result<Self> {
        let Config { root, engine, .. } = desired.project.config.clone();
        let (sender, outcomes) = channel();
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
        let watch = Watch { root, profile, known, asked, hints, stop: Arc::clone(&stop), outcomes: sender };
        let thread = std::thread::Builder::new().name("reload".to_string()).spawn(move || {
            // Kept for as long as the thread runs.
            let _watcher = watcher;
            watch.run();
        })?;
        Ok(Reloader { outcomes, stop, thread: Some(thread) })
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        self.stop.begin();
        let Some(thread) = self.thread.take() else { return };
        // Nothing can be told any more, so a plan that takes its time is of no use to anybody.
        if self.stop.join(thread).is_some_and(|outcome| outcome.is_err()) {
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
    stop: Arc<Stop>,
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
                    let (mut desired, planned) = plan_project(&project);
                    let diagnostics: Vec<Diagnostic> = loaded.diagnostics.into_iter().chain(planned).collect();
                    if is_sound(&diagnostics) {
                        desired.commits = commits_of_tags(&self.root);
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
            if self.stop.is_asked() {
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
        while begun.elapsed() < LONGEST_UNREST && !self.stop.is_asked() {
            if self.hints.recv_timeout(QUIET) == Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        !self.stop.is_asked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reloader whose thread does `plan` when it is told to stop.
    fn reloader(stop: Stop, plan: impl FnOnce() + Send + 'static) -> Reloader {
        let stop = Arc::new(stop);
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !asked.is_asked() {
                std::thread::sleep(Duration::from_millis(1));
            }
            plan();
        });
        Reloader { outcomes: channel().1, stop, thread: Some(thread) }
    }

    #[test]
    fn thread_is_told_to_end_and_waited_for() {
        let (done, ended) = channel();
        drop(reloader(Stop::new(Arc::default()), move || done.send(()).unwrap()));
        assert_eq!(ended.try_recv(), Ok(()));
    }

    #[test]
    fn thread_that_plans_still_when_the_time_is_over_is_left_behind() {
        let (planned, planning) = channel::<()>();
        let (dropped, is_dropped) = channel();
        let reloader = reloader(Stop::over(), move || {
            let _ = planning.recv();
        });
        std::thread::spawn(move || {
            drop(reloader);
            let _ = dropped.send(());
        });
        assert_eq!(is_dropped.recv_timeout(Duration::from_secs(20)), Ok(()), "it waits for a plan that never ends");
        drop(planned);
    }
}
