//! The writer on a thread of its own: the epoch loop hands over what has changed and goes on.
//!
//! Segments are written at once, the manifest when the store is known to hold that epoch: a lost checkpoint replays, an
//! early one would lose rows. What fails is tried again with what it carries, so no change is lost; meanwhile no other
//! checkpoint is taken.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{error, info, warn};

use super::manifest::{Manifest, OperatorFiles};
use super::place::Place;
use super::writer::{Taken, Writer};
use super::{CheckpointError, Checkpoints};
use crate::config::Keeping;
use crate::delta::Offsets;
use crate::engine::stop::Stop;
use crate::source::dead_letter::DeadLetters;

/// Waits between two tries: doubled from the first up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(10);

/// A checkpoint that is written.
#[derive(Debug)]
pub struct Saved {
    /// Its epoch.
    pub epoch: u64,
    /// The least offsets at which a checkpoint that is kept goes on.
    pub kept_from: Offsets,
    /// False where files that it rests on cannot be read any more: the next one must hold all.
    pub is_sound: bool,
}

enum Message {
    Write(Box<Taken>, i64),
    Committed(u64),
}

/// A handle on the thread.
#[derive(Debug)]
pub struct CheckpointThread {
    messages: Option<Sender<Message>>,
    saved: Receiver<Saved>,
    thread: Option<JoinHandle<Result<(), CheckpointError>>>,
    trouble: Arc<Mutex<Option<String>>>,
    stop: Arc<Stop>,
    is_busy: bool,
}

impl CheckpointThread {
    /// Starts it. `resting_on` is what the operators' state was loaded from; `stop` gives up what does not work; the records
    /// of `letters` lie before the offsets of checkpoints, and are on the disk when these are.
    pub fn start(
        checkpoints: &Checkpoints,
        keeping: Keeping,
        resting_on: BTreeMap<String, OperatorFiles>,
        stop: Arc<Stop>,
        letters: Arc<DeadLetters>,
    ) -> std::io::Result<Self> {
        let (messages, received) = channel();
        let (done, saved) = channel();
        let trouble = Arc::new(Mutex::new(None));
        let checkpoints = checkpoints.clone();
        let (place, waits) = (Arc::clone(&checkpoints.place), Arc::clone(&stop));
        let place = Patient { place, stop: waits, trouble: Arc::clone(&trouble) };
        let thread = std::thread::Builder::new().name("checkpoints".to_string()).spawn(move || {
            let stop = Arc::clone(&place.stop);
            let told = Arc::clone(&place.trouble);
            let checkpoints = Checkpoints { place: Arc::new(place), ..checkpoints };
            let tell = |error: &CheckpointError| {
                error!(%error, "no more checkpoints are written");
                if let Ok(mut told) = told.lock() {
                    *told = Some(format!("no more checkpoints are written: {error}"));
                }
            };
            match Writer::open(checkpoints, keeping, resting_on) {
                Ok(writer) => follow(writer, &received, &done, &stop, &letters).inspect_err(tell),
                // The place is not for us: tags run without it.
                Err(error) => {
                    tell(&error);
                    Ok(())
                }
            }
        })?;
        Ok(CheckpointThread { messages: Some(messages), saved, thread: Some(thread), trouble, stop, is_busy: false })
    }

    /// True while a checkpoint is on its way.
    pub fn is_busy(&self) -> bool {
        self.is_busy && !self.has_ended()
    }

    /// True where no checkpoint is written any more.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Why a checkpoint could not be written that was on its way, once: state that the daemon has cannot be read.
    pub fn failure(&mut self) -> Option<CheckpointError> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        thread.join().unwrap_or(Err(CheckpointError::Panicked)).err()
    }

    /// Begins to write; `now` is in milliseconds since the Unix epoch. Not while another is on its way.
    pub fn write(&mut self, taken: Taken, now: i64) {
        self.is_busy = true;
        self.send(Message::Write(Box::new(taken), now));
    }

    /// The store holds all up to this epoch.
    pub fn committed(&self, epoch: u64) {
        self.send(Message::Committed(epoch));
    }

    /// The checkpoint that was on its way, if it is written within `wait`.
    pub fn saved(&mut self, wait: Duration) -> Option<Saved> {
        let saved = self.saved.recv_timeout(wait).ok()?;
        self.is_busy = false;
        Some(saved)
    }

    /// What keeps it from writing, if anything does.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().map(|trouble| trouble.clone()).unwrap_or_default()
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages
            && messages.send(message).is_err()
            && self.trouble().is_none()
            && let Ok(mut trouble) = self.trouble.lock()
        {
            *trouble = Some("the thread that writes checkpoints has ended".to_string());
        }
    }
}

impl Drop for CheckpointThread {
    fn drop(&mut self) {
        self.messages = None;
        let Some(thread) = self.thread.take() else { return };
        // A server that does not answer keeps no daemon from ending: what it is asked for is not needed.
        if self.stop.join(thread).is_some_and(|outcome| outcome.is_err()) {
            error!("{}", CheckpointError::Panicked);
        }
    }
}

fn follow(
    mut writer: Writer,
    messages: &Receiver<Message>,
    done: &Sender<Saved>,
    stop: &Stop,
    letters: &DeadLetters,
) -> Result<(), CheckpointError> {
    let mut waiting: Option<(Manifest, u64, Instant)> = None;
    let mut committed = 0;
    for message in messages {
        match message {
            Message::Committed(epoch) => committed = epoch.max(committed),
            Message::Write(taken, now) => {
                let (before, begun) = (writer.bytes(), Instant::now());
                waiting = Some((writer.write(*taken, now)?, before, begun));
            }
        }
        let is_due = |(manifest, ..): &mut (Manifest, u64, Instant)| manifest.position.epoch <= committed;
        let Some((manifest, before, begun)) = waiting.take_if(is_due) else { continue };
        let epoch = manifest.position.epoch;
        letters.sync();
        writer.publish(manifest)?;
        let (bytes, millis) = (writer.bytes() - before, begun.elapsed().as_millis() as u64);
        info!(epoch, bytes, millis, "checkpoint");
        let is_sound = writer.join_runs(&|| stop.is_asked())?;
        if done.send(Saved { epoch, kept_from: writer.kept_from(), is_sound }).is_err() {
            break;
        }
    }
    Ok(())
}

/// A place that is asked again until it answers or the daemon stops.
#[derive(Debug)]
struct Patient {
    place: Arc<dyn Place>,
    stop: Arc<Stop>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Patient {
    fn retry<T>(&self, act: impl Fn() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
        let mut wait = FIRST_WAIT;
        loop {
            let error = match act() {
                Err(error @ CheckpointError::Io { .. }) => error,
                outcome => {
                    if self.set_trouble(None) {
                        info!("checkpoints can be written again");
                    }
                    return outcome;
                }
            };
            if !self.set_trouble(Some(format!("checkpoints: {error}"))) {
                warn!(%error, "checkpoints cannot be written; trying again");
            }
            let until = Instant::now() + wait;
            while Instant::now() < until {
                if self.stop.is_over() {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    /// Sets what is in the way; true when there was something before.
    fn set_trouble(&self, trouble: Option<String>) -> bool {
        self.trouble.lock().is_ok_and(|mut known| std::mem::replace(&mut *known, trouble).is_some())
    }
}

impl Place for Patient {
    fn describe(&self, name: &str) -> String {
        self.place.describe(name)
    }

    fn put(&self, name: &str, bytes: &Bytes) -> Result<(), CheckpointError> {
        self.retry(|| self.place.put(name, bytes))
    }

    fn get(&self, name: &str, most: u64) -> Result<Vec<u8>, CheckpointError> {
        self.retry(|| self.place.get(name, most))
    }

    fn get_all(&self, names: &[String], most: u64) -> Result<Vec<Result<Vec<u8>, CheckpointError>>, CheckpointError> {
        self.retry(|| self.place.get_all(names, most))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, CheckpointError> {
        self.retry(|| self.place.list(folder))
    }

    fn remove(&self, names: &[String]) -> Result<(), CheckpointError> {
        self.retry(|| self.place.remove(names))
    }
}
