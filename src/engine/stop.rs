//! When a daemon that was told to stop waits for nobody any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a server that does not answer is still waited for once the daemon is stopping: what follows must fit into
/// the ten seconds that supervisors give.
const DEADLINE: Duration = Duration::from_secs(7);

/// How often it is looked whether a thread has ended.
const LOOK: Duration = Duration::from_millis(2);

/// The wish to stop, and since when it is known.
#[derive(Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    since: OnceLock<Instant>,
}

impl Stop {
    /// Waits for a thread to end; `None` where it is left behind, since nobody is waited for any more.
    pub fn join<T>(&self, thread: JoinHandle<T>) -> Option<thread::Result<T>> {
        while !thread.is_finished() {
            if self.is_over() {
                return None;
            }
            thread::sleep(LOOK);
        }
        Some(thread.join())
    }

    /// As when it was asked for long ago.
    #[cfg(test)]
    pub(crate) fn over() -> Self {
        let since = Instant::now().checked_sub(DEADLINE * 2).expect("the machine runs longer than that");
        Stop { asked: Arc::new(AtomicBool::new(true)), since: OnceLock::from(since) }
    }

    /// Watches a flag that is set from outside.
    pub fn new(asked: Arc<AtomicBool>) -> Self {
        Stop { asked, since: OnceLock::new() }
    }

    /// Stops by itself.
    pub fn begin(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.since.get_or_init(Instant::now);
    }

    /// True once it is to stop.
    pub fn is_asked(&self) -> bool {
        let asked = self.asked.load(Ordering::SeqCst);
        if asked {
            self.since.get_or_init(Instant::now);
        }
        asked
    }

    /// True once nobody is waited for any more.
    pub fn is_over(&self) -> bool {
        self.is_asked() && self.since.get().is_some_and(|since| since.elapsed() > DEADLINE)
    }
}
