//! How the threads of a source speak to the engine and how they are told to stop.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{SourceBatch, SourceEvent};
use crate::delta::{Lost, Partition};

/// The reader was told to stop, or nobody listens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// A flag that can be waited for.
#[derive(Debug, Default)]
pub(super) struct StopFlag {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl StopFlag {
    pub(super) fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits that long, or less when the flag is set meanwhile.
    pub(super) fn wait(&self, timeout: Duration) -> Result<(), Stopped> {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_set, timeout, |is_set| !*is_set);
        let (is_set, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_set { Err(Stopped) } else { Ok(()) }
    }

    pub(super) fn check(&self) -> Result<(), Stopped> {
        match *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) {
            true => Err(Stopped),
            false => Ok(()),
        }
    }
}

/// Sends the events of one reader; a full channel makes it wait, a stop ends the waiting.
#[derive(Clone)]
pub(super) struct Emitter {
    stream: Arc<str>,
    events: SyncSender<SourceEvent>,
    stop: Arc<StopFlag>,
}

/// Pause between two tries at a full channel: short against an epoch, long against a spin.
const FULL_PAUSE: Duration = Duration::from_millis(1);

impl Emitter {
    pub(super) fn new(stream: &str, events: SyncSender<SourceEvent>, stop: Arc<StopFlag>) -> Self {
        Emitter { stream: stream.into(), events, stop }
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    pub(super) fn stop(&self) -> &StopFlag {
        &self.stop
    }

    pub(super) fn send(&self, mut event: SourceEvent) -> Result<(), Stopped> {
        self.stop.check()?;
        loop {
            match self.events.try_send(event) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Stopped),
                Err(TrySendError::Full(back)) => event = back,
            }
            self.stop.wait(FULL_PAUSE)?;
        }
    }

    pub(super) fn batch(&self, batch: SourceBatch) -> Result<(), Stopped> {
        self.send(SourceEvent::Batch(batch))
    }

    pub(super) fn finished(&self) -> Result<(), Stopped> {
        self.send(SourceEvent::Finished { stream: self.stream.to_string() })
    }

    pub(super) fn trouble(&self, message: impl Into<String>) -> Result<(), Stopped> {
        let message = message.into();
        tracing::warn!(stream = %self.stream, message, "source in trouble");
        self.send(SourceEvent::Trouble { stream: self.stream.to_string(), message })
    }

    pub(super) fn announced(&self) -> Result<(), Stopped> {
        self.send(SourceEvent::Announced { stream: self.stream.to_string() })
    }

    pub(super) fn at_end(&self, number: i32) -> Result<(), Stopped> {
        let partition = Arc::new(Partition { stream: self.stream.to_string(), number });
        self.send(SourceEvent::AtEnd { partition })
    }

    pub(super) fn lost(&self, lost: Lost) -> Result<(), Stopped> {
        self.send(SourceEvent::Lost(lost))
    }

    pub(super) fn missing(&self) -> Result<(), Stopped> {
        self.send(SourceEvent::Missing { stream: self.stream.to_string() })
    }

    pub(super) fn recovered(&self) -> Result<(), Stopped> {
        tracing::info!(stream = %self.stream, "source works again");
        self.send(SourceEvent::Recovered { stream: self.stream.to_string() })
    }

    /// Says that the source cannot go on; the caller's thread ends, and with it the reader's others.
    pub(super) fn failed(&self, message: impl Into<String>) -> Stopped {
        let message = message.into();
        tracing::error!(stream = %self.stream, message, "source failed");
        let event = SourceEvent::Failed { stream: self.stream.to_string(), message };
        if self.send(event).is_ok() {
            self.stop.set();
        }
        Stopped
    }
}

/// The threads of one reader. Dropping it stops them, as [`SourceHandle::stop`] does.
///
/// A stopped reader sends nothing more; what it has already sent may still be in the channel.
pub struct SourceHandle {
    stop: Arc<StopFlag>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// A thread that is inside a call to a broker that does not answer is left to end on its own after this.
const LONGEST_STOP: Duration = Duration::from_millis(150);

impl SourceHandle {
    pub(super) fn new(stop: Arc<StopFlag>, threads: Vec<std::thread::JoinHandle<()>>) -> Self {
        SourceHandle { stop, threads }
    }

    /// Stops reading, within 200 ms even when the channel is full.
    pub fn stop(mut self) {
        self.end();
    }

    /// True once all threads have ended: after `Finished`, `Failed` or a stop.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(std::thread::JoinHandle::is_finished)
    }

    fn end(&mut self) {
        self.stop.set();
        let deadline = Instant::now() + LONGEST_STOP;
        while !self.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.threads.clear();
    }
}

impl Drop for SourceHandle {
    fn drop(&mut self) {
        self.end();
    }
}
