//! The thread that keeps a stream's archive: a reader of its own, so that neither running tags nor fills wait for it, and all
//! columns are read whatever tags need.
//!
//! What fails (a full disk, a folder that cannot be written, a topic that cannot be read) ends nothing: it is told, and after a
//! while the archive is opened again and its topic read from where the last commit ends. Nothing but retention can take a
//! record from it then, and that is told too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, warn};

use crate::catalog::{OnLost, Stream};
use crate::engine::intake::World;
use crate::engine::memory::MemoryPlan;
use crate::engine::status::ArchiveStatus;
use crate::source::archive::{Archive, ArchiveError, Writer};
use crate::source::{ReadRequest, ReadRoom, SourceError, SourceEvent, SourceHandle, known_topic_id, start_source};

/// Bytes that an archive may have in memory where nothing limits them.
const UNLIMITED: usize = 96 << 20;
/// Batches that may wait in the channel.
const QUEUED: usize = 4;
/// How often it is looked whether something else is to be done.
const LOOK: Duration = Duration::from_millis(50);
/// When it is tried again after a fault: doubled from the first wait to the last, until something was archived.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);

/// What is wanted of the thread.
const GO_ON: u8 = 0;
/// What was read is still to be archived.
const FINISH: u8 = 1;
/// Nothing more is written.
const LEAVE: u8 = 2;

/// An archive that is being kept.
pub struct Archiver {
    stream: Arc<Stream>,
    wish: Arc<AtomicU8>,
    shared: Arc<Mutex<Shared>>,
    thread: JoinHandle<()>,
}

/// What the thread says of itself.
#[derive(Debug, Default)]
struct Shared {
    status: ArchiveStatus,
    /// Why nothing could be archived when it was last tried.
    fault: Option<String>,
    /// What the reader waits for.
    trouble: Option<String>,
    /// Everything that was there when it began was read.
    is_caught_up: bool,
}

/// What keeps a thread from going on.
enum Fault {
    Passing(String),
    /// Another daemon does it.
    Superseded(String),
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Superseded(_) => Fault::Superseded(error.to_string()),
            other => Fault::Passing(other.to_string()),
        }
    }
}

impl From<SourceError> for Fault {
    fn from(error: SourceError) -> Self {
        Fault::Passing(error.to_string())
    }
}

impl Archiver {
    /// Begins. `writer` is this process, and `archives` are so many.
    pub(crate) fn start(
        world: &World,
        stream: &Arc<Stream>,
        writer: &Arc<Writer>,
        memory: Option<MemoryPlan>,
        archives: usize,
    ) -> std::io::Result<Self> {
        let (wish, shared) = (Arc::new(AtomicU8::new(GO_ON)), Arc::default());
        let keeper = Keeper {
            world: world.clone(),
            stream: Arc::clone(stream),
            writer: Arc::clone(writer),
            room: memory.as_ref().map_or(UNLIMITED, |memory| memory.archiving() / archives.max(1)),
            memory,
            wish: Arc::clone(&wish),
            shared: Arc::clone(&shared),
        };
        keeper.tell(|told| {
            told.status.stream.clone_from(&stream.name);
            let path = stream.archive.as_ref().map(|archive| archive.path.display().to_string());
            told.status.path = path.unwrap_or_default();
        });
        // The role comes first since Linux cuts names at 15 bytes.
        let name = format!("archive-{}", stream.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || keeper.run())?;
        Ok(Archiver { stream: Arc::clone(stream), wish, shared, thread })
    }

    /// The stream as it is archived.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Lets it end: once what was read is in files, or at once.
    pub fn end(&self, is_finishing: bool) {
        self.wish.fetch_max(if is_finishing { FINISH } else { LEAVE }, Ordering::SeqCst);
    }

    /// True once it was told to end.
    pub fn is_ending(&self) -> bool {
        self.wish.load(Ordering::SeqCst) != GO_ON
    }

    /// True once it has ended, by itself or not.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Everything that was there when it began is read, or nothing comes of it for now.
    pub fn is_caught_up(&self) -> bool {
        let told = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        told.is_caught_up || told.fault.is_some() || self.has_ended()
    }

    /// What it says of itself.
    pub fn status(&self) -> ArchiveStatus {
        let told = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status = told.status.clone();
        status.trouble = told.fault.clone().or_else(|| told.trouble.clone());
        if self.has_ended() && !self.is_ending() {
            status
                .trouble
                .get_or_insert_with(|| "its thread panicked: this is a bug of tagflow, its log has the place".into());
        }
        status
    }
}

/// What the thread works with.
struct Keeper {
    world: World,
    stream: Arc<Stream>,
    writer: Arc<Writer>,
    memory: Option<MemoryPlan>,
    room: usize,
    wish: Arc<AtomicU8>,
    shared: Arc<Mutex<Shared>>,
}

/// What is read.
struct Reading {
    events: Receiver<SourceEvent>,
    _source: SourceHandle,
    partitions: BTreeMap<i32, Known>,
    is_announced: bool,
}

/// What is known of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Where reading began.
    begin: i64,
    /// The end as it was first heard of.
    first_end: i64,
    end: i64,
}

impl Keeper {
    fn tell(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn wish(&self) -> u8 {
        self.wish.load(Ordering::SeqCst)
    }

    fn run(self) {
        let stream = &self.stream.name;
        let mut wait = FIRST_WAIT;
        loop {
            let mut has_archived = false;
            let message = match self.keep(&mut has_archived) {
                Ok(()) => return,
                Err(Fault::Passing(message)) => message,
                Err(Fault::Superseded(message)) => {
                    error!(stream, message, "the stream is not archived any more");
                    self.tell(|told| told.fault = Some(message));
                    self.wait(Duration::MAX);
                    return;
                }
            };
            error!(stream, message, "the archive cannot be kept; it is tried again");
            self.tell(|told| {
                told.status.errors += 1;
                (told.fault, told.trouble) = (Some(message), None);
            });
            wait = if has_archived { FIRST_WAIT } else { wait };
            self.wait(wait);
            if self.wish() != GO_ON {
                return;
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    /// Waits so long, unless something else is wanted.
    fn wait(&self, time: Duration) {
        let begun = std::time::Instant::now();
        while begun.elapsed() < time && self.wish() == GO_ON {
            std::thread::sleep(LOOK);
        }
    }

    /// Archives what comes until something else is wanted.
    fn keep(&self, has_archived: &mut bool) -> Result<(), Fault> {
        let root = &self.world.context.root;
        let mut archive = Archive::open(root, &self.stream, &self.writer, self.room / 2)?;
        let mut reading = self.read(archive.next())?;
        self.report(&archive, &reading);
        let begun = archive.head().number;
        loop {
            match self.wish() {
                GO_ON => {}
                FINISH => {
                    archive.commit()?;
                    self.report(&archive, &reading);
                    return Ok(());
                }
                _ => return Ok(()),
            }
            if self.memory.as_ref().is_some_and(MemoryPlan::is_full) {
                std::thread::sleep(LOOK);
            } else {
                match reading.events.recv_timeout(LOOK) {
                    Ok(event) => self.take(event, &mut archive, &mut reading)?,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(Fault::Passing("nothing is read of its topic any more".to_string()));
                    }
                }
            }
            if archive.is_due() {
                archive.commit()?;
            }
            *has_archived |= archive.head().number != begun;
            let waits = self.report(&archive, &reading);
            // An archive that was opened need not take more than its folder did.
            if *has_archived || !waits {
                self.tell(|told| told.fault = None);
            }
        }
    }

    /// Reads the topic, and the topic alone, on behind what is archived. What retention takes it goes past: to stand still would
    /// lose more.
    fn read(&self, from: BTreeMap<i32, i64>) -> Result<Reading, Fault> {
        let name = &self.stream.connection;
        let connection = self.world.connections.get(name);
        let connection =
            connection.ok_or_else(|| Fault::Passing(format!("connection `{name}` is not in tagflow.toml")))?;
        let (sender, events) = sync_channel(QUEUED);
        let request = ReadRequest {
            stream: Arc::new(Stream { on_lost: OnLost::Skip, ..self.stream.of_topic() }),
            columns: (0..self.stream.schema().fields().len()).collect(),
            from,
            until: None,
            room: ReadRoom { batch: self.room / 4 / QUEUED, ahead: self.room / 4 },
        };
        let source = start_source(request, connection, &self.world.context, sender)?;
        Ok(Reading { events, _source: source, partitions: BTreeMap::new(), is_announced: false })
    }

    fn take(&self, event: SourceEvent, archive: &mut Archive, reading: &mut Reading) -> Result<(), Fault> {
        match event {
            SourceEvent::Partition { partition, end, next, .. } => {
                let (state_dir, stream) = (&self.world.context.state_dir, &self.stream);
                let id = known_topic_id(state_dir, &stream.name, &stream.topic);
                archive.recognise(id.map_err(|error| Fault::Passing(format!("which topic it is: {error}")))?)?;
                archive.begin(partition.number, next);
                reading.partitions.insert(partition.number, Known { begin: next, first_end: end, end });
            }
            SourceEvent::Batch(batch) => {
                let known = reading.partitions.entry(batch.partition.number).or_default();
                known.end = known.end.max(batch.end_offset);
                archive.take(batch)?;
            }
            SourceEvent::Lost(lost) => {
                warn!(stream = self.stream.name, "{lost} were gone before they were archived");
                archive.lose(&lost)?;
                self.tell(|told| told.status.lost += (lost.next - lost.first).unsigned_abs());
            }
            SourceEvent::AtEnd { partition } => {
                if let Some(known) = reading.partitions.get_mut(&partition.number) {
                    let next = archive.taken().get(&partition.number).copied().unwrap_or(known.begin);
                    (known.first_end, known.end) = (known.first_end.min(next), next);
                }
            }
            // It has no partition then, and nothing to read.
            SourceEvent::Announced { .. } | SourceEvent::Missing { .. } => reading.is_announced = true,
            SourceEvent::Trouble { message, .. } => self.tell(|told| told.trouble = Some(message)),
            SourceEvent::Recovered { .. } => self.tell(|told| told.trouble = None),
            SourceEvent::Failed { message, .. } => return Err(Fault::Passing(message)),
            SourceEvent::Finished { .. } => {}
        }
        Ok(())
    }

    /// True while something waits to be archived, or nothing is known of it.
    fn report(&self, archive: &Archive, reading: &Reading) -> bool {
        let (head, taken) = (archive.head(), archive.taken());
        let next: BTreeMap<i32, i64> = head.partitions.iter().map(|(number, known)| (*number, known.next)).collect();
        let behind = |(number, known): (&i32, &Known)| (known.end - next.get(number).unwrap_or(&known.begin)).max(0);
        let lag: i64 = reading.partitions.iter().map(behind).sum();
        let is_read = |(number, known): (&i32, &Known)| *taken.get(number).unwrap_or(&known.begin) >= known.first_end;
        let is_caught_up = reading.is_announced && reading.partitions.iter().all(is_read);
        self.tell(|told| {
            told.is_caught_up = is_caught_up;
            (told.status.next, told.status.lag) = (next, lag);
            (told.status.records, told.status.newest_timestamp) = (head.records, head.newest);
        });
        lag > 0 || !is_caught_up
    }
}

#[cfg(test)]
pub(in crate::engine) mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// A stream with an archive at this path below `root`, and the world of its project.
    pub(in crate::engine) fn project(root: &Path, archive: &str) -> (World, Arc<Stream>) {
        let settings = "timezone = \"UTC\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
                        [connection.shop]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:1\"\n[store]\nurl = \"sqlite:x\"\n";
        let schema = format!(
            "connection = \"shop\"\ntopic = \"t\"\nformat = \"json\"\narchive = \"{archive}\"\n[columns]\nid = \"BIGINT\"\n"
        );
        let files = [("tagflow.toml", settings.to_string()), ("schemas/orders.toml", schema)];
        let contents = files.map(|(file, text)| (PathBuf::from(file), text.into_bytes())).into();
        let mut project = crate::project::load_from_memory(&contents, &|_| None).project.unwrap();
        project.config.root = root.to_path_buf();
        project.config.engine.state_dir = root.join(".tagflow");
        (World::beside_the_daemon(&project.config), Arc::clone(&project.catalog.streams["orders"]))
    }

    #[test]
    fn panic_of_its_thread_is_told_and_not_waited_for() {
        let (_, stream) = project(Path::new("/nowhere"), "past");
        let thread = std::thread::spawn(|| panic!("on purpose"));
        let archiver = Archiver { stream, wish: Arc::new(AtomicU8::new(GO_ON)), shared: Arc::default(), thread };
        while !archiver.has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(archiver.is_caught_up());
        assert!(archiver.status().trouble.unwrap().starts_with("its thread panicked"));
        archiver.end(true);
        assert_eq!(archiver.status().trouble, None, "it was to end");
    }
}
