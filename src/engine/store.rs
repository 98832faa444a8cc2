//! The store on a thread of its own: it tries again while the server is away, and never loses what it was given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::engine::dataflow::TagFault;
use crate::sink::{CommitStats, Sink, SinkError, TagChanges};

/// Waits between two tries: doubled from the first up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(10);

/// How long a store that is away is still waited for once the daemon is stopping.
const STOP_DEADLINE: Duration = Duration::from_secs(8);

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// Why a call did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store said no, for good.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The daemon is stopping and the store was away.
    #[error("the store did not answer before the daemon stopped")]
    Stopped,
}

/// A handle on the store's thread.
#[derive(Debug)]
pub struct StoreThread {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    trouble: Arc<std::sync::Mutex<Option<String>>>,
}

/// What became of a commit.
#[derive(Debug)]
pub struct Committed {
    /// Rows written.
    pub stats: CommitStats,
    /// Tags whose tables refused their rows; the others are committed.
    pub faults: Vec<TagFault>,
    /// From the first try to the end.
    pub took: Duration,
}

/// A commit that is under way.
#[derive(Debug)]
pub struct InFlight(Receiver<Result<Committed, StoreError>>);

struct Worker {
    sink: Box<dyn Sink>,
    /// Set when the daemon is stopping, and since when.
    shutdown: Arc<AtomicBool>,
    stopping: Option<Instant>,
    trouble: Arc<std::sync::Mutex<Option<String>>>,
}

impl StoreThread {
    /// Starts the thread; the store is not opened yet. Once `shutdown` is set, a store that is away is given up soon.
    pub fn start(sink: Box<dyn Sink>, shutdown: Arc<AtomicBool>) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let trouble = Arc::new(std::sync::Mutex::new(None));
        let mut worker = Worker { sink, shutdown, stopping: None, trouble: Arc::clone(&trouble) };
        let thread = std::thread::Builder::new().name("store".to_string()).spawn(move || {
            for job in queue {
                job(&mut worker);
            }
        })?;
        Ok(StoreThread { jobs: Some(jobs), thread: Some(thread), trouble })
    }

    /// Runs `call` there, again and again while that can help, and waits for it.
    pub fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnMut(&mut dyn Sink) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = channel();
        let mut call = call;
        self.send(Box::new(move |worker| {
            let _ = reply.send(worker.retry(what, &mut call));
        }));
        answer.recv().unwrap_or(Err(StoreError::Stopped))
    }

    /// Begins a commit of all given tags.
    pub fn commit(&self, changes: Vec<TagChanges>) -> InFlight {
        let (reply, answer) = channel();
        self.send(Box::new(move |worker| {
            let _ = reply.send(worker.commit(changes));
        }));
        InFlight(answer)
    }

    /// What keeps the store from working, if anything does.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().map(|trouble| trouble.clone()).unwrap_or_default()
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            error!("the store's thread has ended");
        }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the store's thread panicked");
        }
    }
}

impl InFlight {
    /// The outcome, if there is one within `wait`.
    pub fn outcome(&self, wait: Duration) -> Option<Result<Committed, StoreError>> {
        match self.0.recv_timeout(wait) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(StoreError::Stopped)),
        }
    }
}

impl Worker {
    fn retry<T>(
        &mut self,
        what: &str,
        call: &mut dyn FnMut(&mut dyn Sink) -> Result<T, SinkError>,
    ) -> Result<T, StoreError> {
        let mut wait = FIRST_WAIT;
        loop {
            match call(self.sink.as_mut()) {
                Ok(value) => {
                    if self.set_trouble(None) {
                        info!(what, "the store works again");
                    }
                    return Ok(value);
                }
                Err(error) if error.is_retryable() => {
                    if !self.set_trouble(Some(error.to_string())) {
                        warn!(what, %error, "the store is away; trying again");
                    }
                    if self.sleep(wait) {
                        return Err(StoreError::Stopped);
                    }
                    wait = (wait * 2).min(LAST_WAIT);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn commit(&mut self, mut changes: Vec<TagChanges>) -> Result<Committed, StoreError> {
        let begun = Instant::now();
        let mut faults = Vec::new();
        loop {
            match self.retry("commit", &mut |sink| sink.commit(&changes)) {
                Ok(stats) => return Ok(Committed { stats, faults, took: begun.elapsed() }),
                Err(StoreError::Sink(SinkError::Table { table, message })) => {
                    // One tag's table refuses its rows: the others go on without it.
                    let Some(position) = changes.iter().position(|change| change.table.table == table) else {
                        return Err(SinkError::Table { table, message }.into());
                    };
                    let refused = changes.remove(position);
                    let reason = format!("table `{table}`: {message}");
                    faults.push(TagFault::passing(refused.progress.tag, reason));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sets what keeps the store from working; true when there was something before.
    fn set_trouble(&self, trouble: Option<String>) -> bool {
        self.trouble.lock().is_ok_and(|mut known| std::mem::replace(&mut *known, trouble).is_some())
    }

    /// Sleeps; true when the daemon has been stopping for long enough.
    fn sleep(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.shutdown.load(Ordering::SeqCst)
                && self.stopping.get_or_insert_with(Instant::now).elapsed() > STOP_DEADLINE
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}
