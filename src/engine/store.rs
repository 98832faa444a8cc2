//! The store on a thread of its own: it tries again while the server is away, renews the lease, and never loses what it
//! was given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::engine::dataflow::TagFault;
use crate::engine::status::{SharedStatus, update};
use crate::engine::stop::Stop;
use crate::sink::{CommitStats, Sink, SinkError, TagChanges};

/// Waits between two tries: doubled from the first up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How often whoever waits for the store looks whether the daemon is stopping.
const TURN: Duration = Duration::from_millis(50);
/// How often a table that somebody else keeps locked is tried before its tag is set aside: each try waits for seconds.
const BUSY_TRIES: u32 = 3;
/// A lease is renewed so many times in its length.
const RENEWALS: u32 = 3;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// Why a call did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store said no, for good.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The daemon is stopping and the store was away.
    #[error("the store did not answer before the daemon stopped; the next start goes on from what it holds")]
    Stopped,
}

/// A handle on the store's thread.
#[derive(Debug)]
pub struct StoreThread {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    status: SharedStatus,
}

/// What the thread tells besides its answers.
#[derive(Debug)]
struct Shared {
    stop: Arc<Stop>,
    /// What keeps the store from working.
    trouble: Mutex<Option<String>>,
    /// The store was opened and has worked.
    is_open: AtomicBool,
    /// Why this daemon may not write any more, until somebody has asked.
    superseded: Mutex<Option<SinkError>>,
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
    shared: Arc<Shared>,
    /// Between two renewals of the lease.
    renewal: Duration,
    renew_at: Instant,
}

impl StoreThread {
    /// Starts the thread; the store is not opened yet. Its lease, once it has one, is renewed `lease` after it was, at
    /// the latest. When the daemon stops, a store that is away is given up soon.
    pub fn start(sink: Box<dyn Sink>, lease: Duration, stop: Arc<Stop>, status: SharedStatus) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let shared = Arc::new(Shared {
            stop,
            trouble: Mutex::new(None),
            is_open: AtomicBool::new(false),
            superseded: Mutex::new(None),
        });
        let renewal = lease / RENEWALS;
        let mut worker = Worker { sink, shared: Arc::clone(&shared), renewal, renew_at: Instant::now() + renewal };
        let thread = std::thread::Builder::new().name("store".to_string()).spawn(move || worker.work(&queue))?;
        Ok(StoreThread { jobs: Some(jobs), thread: Some(thread), shared, status })
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
        self.wait(&answer)
    }

    /// Begins a commit of all given tags.
    pub fn commit(&self, changes: Vec<TagChanges>) -> InFlight {
        let (reply, answer) = channel();
        self.send(Box::new(move |worker| {
            let _ = reply.send(worker.commit(changes));
        }));
        InFlight(answer)
    }

    /// The outcome of a commit, waited for as long as the daemon may.
    pub fn outcome(&self, in_flight: &InFlight) -> Result<Committed, StoreError> {
        self.wait(&in_flight.0)
    }

    /// Waits for an answer, and tells meanwhile what keeps the store from giving it.
    fn wait<T>(&self, answer: &Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        loop {
            match answer.recv_timeout(TURN) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) if !self.shared.stop.is_over() => {
                    if let Some(trouble) = self.trouble() {
                        update(&self.status, |status| status.troubles = vec![trouble]);
                    }
                }
                Err(_) => return Err(StoreError::Stopped),
            }
        }
    }

    /// What keeps the store from working, if anything does.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().map(|trouble| trouble.clone()).unwrap_or_default()
    }

    /// From now on whatever goes wrong may pass, but for a newer writer and the faults of single tables.
    pub fn note_open(&self) {
        self.shared.is_open.store(true, Ordering::SeqCst);
    }

    /// An error once another daemon writes the store.
    pub fn check_lease(&self) -> Result<(), StoreError> {
        let superseded = self.shared.superseded.lock().map(|mut superseded| superseded.take()).unwrap_or_default();
        superseded.map_or(Ok(()), |error| Err(error.into()))
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
        self.shared.stop.begin();
        let Some(thread) = self.thread.take() else { return };
        match self.shared.stop.join(thread) {
            Some(Ok(())) => {}
            Some(Err(_)) => error!("the store's thread panicked"),
            // It waits for a server that is silent, and ends with the process.
            None => warn!("the store does not answer; the next start finds out what of the last commit it has"),
        }
    }
}

impl InFlight {
    /// The outcome, if it is known.
    pub fn try_outcome(&self) -> Option<Result<Committed, StoreError>> {
        self.wait(Duration::ZERO)
    }

    /// The outcome, if there is one within `wait`.
    pub fn wait(&self, wait: Duration) -> Option<Result<Committed, StoreError>> {
        match self.0.recv_timeout(wait) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(StoreError::Stopped)),
        }
    }
}

impl Worker {
    /// Until the handle is dropped; then the lease is given back.
    fn work(&mut self, queue: &Receiver<Job>) {
        loop {
            match queue.recv_timeout(self.renew_at.saturating_duration_since(Instant::now())) {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= self.renew_at {
                match self.renew() {
                    Ok(()) => self.works("renew the lease"),
                    Err(error) => self.is_away("renew the lease", &error),
                }
            }
        }
        if self.shared.trouble.lock().is_ok_and(|trouble| trouble.is_none())
            && let Err(error) = self.sink.release()
        {
            warn!(%error, "the lease could not be given back; it runs out");
        }
    }

    fn renew(&mut self) -> Result<(), SinkError> {
        let renewed = self.sink.renew();
        self.renew_at = Instant::now() + self.renewal;
        if let Err(error @ SinkError::Fenced { .. }) = renewed {
            if let Ok(mut superseded) = self.shared.superseded.lock() {
                *superseded = Some(error);
            }
            return Ok(());
        }
        renewed
    }

    fn retry<T>(
        &mut self,
        what: &str,
        call: &mut dyn FnMut(&mut dyn Sink) -> Result<T, SinkError>,
    ) -> Result<T, StoreError> {
        let mut wait = FIRST_WAIT;
        let mut busy = 0;
        loop {
            match call(self.sink.as_mut()) {
                Ok(value) => {
                    self.works(what);
                    return Ok(value);
                }
                Err(SinkError::Busy { table, message }) if busy + 1 == BUSY_TRIES => {
                    // It may stay locked for hours: that is this tag's trouble, not everybody's.
                    let message = format!("it was locked by somebody else for too long: {message}");
                    return Err(SinkError::Table { table, message }.into());
                }
                Err(error) if self.may_pass(&error) => {
                    busy += u32::from(matches!(error, SinkError::Busy { .. }));
                    self.is_away(what, &error);
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

    /// Once it has worked, a store that is set up wrong is one that somebody is working on: a password that changes, rights
    /// that were taken away. Nobody is stopped for that.
    fn may_pass(&self, error: &SinkError) -> bool {
        let has_worked = self.shared.is_open.load(Ordering::SeqCst);
        error.is_retryable() || has_worked && matches!(error, SinkError::Setup { .. })
    }

    fn works(&self, what: &str) {
        if self.set_trouble(None) {
            info!(what, "the store works again");
        }
    }

    fn is_away(&self, what: &str, error: &SinkError) {
        if !self.set_trouble(Some(error.to_string())) {
            warn!(what, %error, "the store is away; trying again");
        }
    }

    /// Sets what keeps the store from working; true when there was something before.
    fn set_trouble(&self, trouble: Option<String>) -> bool {
        self.shared.trouble.lock().is_ok_and(|mut known| std::mem::replace(&mut *known, trouble).is_some())
    }

    /// Sleeps; true when the daemon has been stopping for long enough.
    fn sleep(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.shared.stop.is_over() {
                return true;
            }
            // What keeps this call from working need not keep others: the lease must not run out meanwhile.
            if Instant::now() >= self.renew_at {
                let _ = self.renew();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}
