//! Tables outside: a file, or a table of a database, as a stream of its changes.
//!
//! What changes outside cannot be read a second time, and everything here rests on that it can. So one watcher a table
//! looks at it again and again and keeps what differs in a log of its own (`<state_dir>/tables/<stream>/rows.log`);
//! readers read that log, by offsets, as they would a topic of one partition: after a crash, for a fill, for `verify`.
//! The log is the history; without it the table is read anew, and tags are filled anew.
//!
//! A watcher serves all readers of its table in this process, and lives on for a while without any: a fill that goes
//! from catching up to meeting the running tags must not have the table read again.

mod describe;
mod differ;
mod file;
mod log;
mod mysql;
mod parquet;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::describe::{DescribedColumn, DescribedTable, describe, is_binary};
use self::differ::{Differ, Keys};
use self::log::{LogReader, LogWriter, Record, Said, TableLog};
use super::batch::PartitionBatcher;
use super::decode::DecodeError;
use super::emit::{Emitter, StopFlag, Stopped};
use super::{ReadRequest, SourceContext, SourceError, SourceEvent, WallClock, spawn};
use crate::catalog::{Kind, Stream};
use crate::config::Connection;
use crate::delta::{Offsets, Partition};

/// How often a reader looks for new records.
const POLL: Duration = Duration::from_millis(20);
/// How often a watcher asks its table whether it is time to look.
const TICK: Duration = Duration::from_millis(250);
/// Pause after a fault.
const RETRY: Duration = Duration::from_secs(2);
/// How long a watcher lives that nobody reads.
const LINGER: Duration = Duration::from_secs(60);
/// The one partition of a log.
const PARTITION: i32 = 0;

/// A table outside.
trait Outside: Send {
    /// Looks at the table if it is time to, and gives `differ` what it sees.
    fn look(&mut self, differ: &mut Differ<'_>) -> Result<Looked, Setback>;
}

/// What a look gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// Nothing can be said yet.
    Waiting,
    /// The log says what is known.
    UpToDate,
    /// The whole table was seen.
    Whole,
}

/// Why a look gave nothing. What was seen before stays.
enum Setback {
    Stopped,
    /// It may pass by itself.
    Trouble(String),
    /// It will not.
    Failed(String),
}

impl From<Stopped> for Setback {
    fn from(_: Stopped) -> Self {
        Setback::Stopped
    }
}

/// The logs and watchers of a process, one a table.
pub struct Tables {
    folder: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    log: Arc<TableLog>,
    watcher: Option<(Arc<Watcher>, JoinHandle<()>)>,
}

/// One thread that looks at a table, as its readers see it.
struct Watcher {
    stream: Arc<Stream>,
    connection: Connection,
    wall_clock: WallClock,
    log: Arc<TableLog>,
    stop: StopFlag,
    state: Mutex<Watched>,
}

struct Watched {
    readers: usize,
    /// Since when there have been none.
    idle_since: Instant,
    /// It ends, and serves no new reader.
    is_over: bool,
    /// The log's end when the whole table had been seen for the first time.
    whole_at: Option<i64>,
    fault: Option<Fault>,
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    Trouble(String),
    Failed(String),
}

/// A reader's hold on a watcher.
struct Attached(Arc<Watcher>);

impl Tables {
    /// Logs below the state's folder.
    pub fn new(state_dir: &Path) -> Self {
        Tables { folder: state_dir.join("tables"), entries: Mutex::default() }
    }

    /// All checkpoints that are kept go on from here: records before need not be kept one by one.
    pub fn checkpointed(&self, offsets: &Offsets) {
        for (stream, entry) in self.lock().iter_mut() {
            let partition = Partition { stream: stream.clone(), number: PARTITION };
            if let Some(next) = offsets.next(&partition) {
                entry.log.forget_before(next);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry<'a>(&self, entries: &'a mut BTreeMap<String, Entry>, stream: &str) -> io::Result<&'a mut Entry> {
        if !entries.contains_key(stream) {
            let log = Arc::new(TableLog::open(self.folder.join(stream).join("rows.log"))?);
            entries.insert(stream.to_string(), Entry { log, watcher: None });
        }
        entries.get_mut(stream).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn log(&self, stream: &str) -> io::Result<Arc<TableLog>> {
        Ok(Arc::clone(&self.entry(&mut self.lock(), stream)?.log))
    }

    /// Holds on to the table's watcher, or starts one. One that watches by other settings makes room.
    fn attach(&self, request: &ReadRequest, connection: &Connection, context: &SourceContext) -> io::Result<Attached> {
        let mut entries = self.lock();
        let entry = self.entry(&mut entries, &request.stream.name)?;
        if let Some((watcher, _)) = &entry.watcher
            && watcher.watches(&request.stream)
            && watcher.join()
        {
            return Ok(Attached(Arc::clone(watcher)));
        }
        let watcher = Arc::new(Watcher {
            stream: Arc::clone(&request.stream),
            connection: connection.clone(),
            wall_clock: context.wall_clock.clone(),
            log: Arc::clone(&entry.log),
            stop: StopFlag::default(),
            state: Mutex::new(Watched {
                readers: 1,
                idle_since: Instant::now(),
                is_over: false,
                whole_at: None,
                fault: None,
            }),
        });
        let before = entry.watcher.take();
        let watching = Arc::clone(&watcher);
        let thread = std::thread::Builder::new().name(format!("watch-{}", request.stream.name)).spawn(move || {
            if let Some((before, thread)) = before {
                before.stop.set();
                // A panic of it has been told by itself.
                let _ = thread.join();
            }
            watching.run();
        })?;
        entry.watcher = Some((Arc::clone(&watcher), thread));
        Ok(Attached(watcher))
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        for entry in self.lock().values() {
            if let Some((watcher, _)) = &entry.watcher {
                watcher.stop.set();
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.readers -= 1;
        state.idle_since = Instant::now();
    }
}

impl Watcher {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True where a reader of `stream` wants to see what this one sees.
    fn watches(&self, stream: &Stream) -> bool {
        let own = &self.stream;
        let types = |stream: &Stream| -> Vec<_> {
            stream.columns.iter().map(|column| (column.path.clone(), column.data_type.clone())).collect()
        };
        (&own.kind, &own.topic, &own.format, &own.key) == (&stream.kind, &stream.topic, &stream.format, &stream.key)
            && types(own) == types(stream)
    }

    /// One more reader; false when the thread is about to end.
    fn join(&self) -> bool {
        let mut state = self.lock();
        state.readers += usize::from(!state.is_over);
        !state.is_over
    }

    fn run(&self) {
        let body = || match self.watch() {
            Ok(()) | Err(Stopped) => {}
        };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err();
        let mut state = self.lock();
        state.is_over = true;
        if panicked {
            let message = "the thread that watches the table panicked: this is a bug of tagflow, its log has the place";
            state.fault = Some(Fault::Failed(message.into()));
        }
    }

    fn watch(&self) -> Result<(), Stopped> {
        let mut outside: Box<dyn Outside> = match (&self.stream.kind, &self.connection) {
            (Kind::File, Connection::File { path, .. }) => Box::new(file::FileTable::new(path, &self.stream)),
            (Kind::Mysql { polls, resync }, Connection::Mysql(address)) => {
                Box::new(mysql::MysqlTable::new(address, &self.stream, polls.as_ref(), *resync))
            }
            _ => {
                let message = format!("the connection {:?} has no such tables", self.stream.connection);
                self.lock().fault = Some(Fault::Failed(message));
                return Ok(());
            }
        };
        let mut writer = None;
        loop {
            self.stop.check()?;
            let pause = match self.look(outside.as_mut(), &mut writer) {
                Ok(Looked::Waiting) => TICK,
                Ok(looked) => {
                    let mut state = self.lock();
                    if looked == Looked::Whole {
                        state.whole_at.get_or_insert(self.log.end());
                    }
                    state.fault = None;
                    TICK
                }
                Err(Setback::Stopped) => return Err(Stopped),
                Err(setback) => {
                    // Whatever the log's file has got meanwhile is looked at anew.
                    writer = None;
                    let fault = match setback {
                        Setback::Failed(message) => Fault::Failed(message),
                        Setback::Trouble(message) => Fault::Trouble(message),
                        Setback::Stopped => return Err(Stopped),
                    };
                    self.lock().fault = Some(fault);
                    RETRY
                }
            };
            {
                let mut state = self.lock();
                if state.readers == 0 && state.idle_since.elapsed() > LINGER {
                    state.is_over = true;
                    return Ok(());
                }
            }
            self.stop.wait(pause)?;
        }
    }

    fn look(&self, outside: &mut dyn Outside, writer: &mut Option<LogWriter>) -> Result<Looked, Setback> {
        let writer = match writer {
            Some(writer) => writer,
            None => {
                writer.insert(LogWriter::open(&self.log, &self.stream.key).map_err(|error| self.log_fault(&error))?)
            }
        };
        let keys = Keys::new(&self.stream).map_err(|error| Setback::Failed(error.to_string()))?;
        let mut differ = Differ::new(writer, keys, (self.wall_clock)(), &self.stop);
        let outcome = outside.look(&mut differ);
        differ.commit()?;
        outcome
    }

    fn log_fault(&self, error: &io::Error) -> Setback {
        let message = format!("{}: {error}", self.log.path().display());
        match error.kind() {
            io::ErrorKind::InvalidData => Setback::Failed(message),
            _ => Setback::Trouble(message),
        }
    }
}

/// Starts the one thread that reads a table's log.
pub(super) fn start(
    request: ReadRequest,
    connection: &Connection,
    context: &SourceContext,
    emitter: Emitter,
) -> Result<Vec<JoinHandle<()>>, SourceError> {
    let stream = request.stream.name.clone();
    let io = |error| SourceError::Io { stream: stream.clone(), path: context.tables.folder.join(&stream), error };
    let log = context.tables.log(&stream).map_err(io)?;
    // What was read once is read again from the log alone.
    let watcher = match request.until {
        None => Some(context.tables.attach(&request, connection, context).map_err(io)?),
        Some(_) => None,
    };
    let teller = emitter.clone();
    let reader = TableReader { request, context: context.clone(), log, watcher, emitter };
    Ok(vec![spawn(&teller, "table", move || reader.read())?])
}

struct TableReader {
    request: ReadRequest,
    context: SourceContext,
    log: Arc<TableLog>,
    watcher: Option<Attached>,
    emitter: Emitter,
}

impl TableReader {
    fn read(&self) -> Result<(), Stopped> {
        let request = &self.request;
        let until = request.until.as_ref().map(|until| until.get(&PARTITION).copied().unwrap_or(0));
        let next = request.from.get(&PARTITION).copied().unwrap_or(0);
        let end = self.log.end();
        let needed = next.max(until.unwrap_or(0));
        if needed > end {
            let path = self.log.path().display();
            return Err(self.emitter.failed(format!(
                "{path} ends at {end}, but had {needed} records once: bring it back, or remove the state's folder, so \
                 that the table is read and the tags are filled anew"
            )));
        }
        let partition = Arc::new(Partition { stream: request.stream.name.clone(), number: PARTITION });
        self.emitter.send(SourceEvent::Partition { partition, beginning: 0, end, next })?;
        let topic = request.stream.topic.as_str().into();
        let mut batcher = PartitionBatcher::new(request, &self.context, topic, PARTITION, next)
            .map_err(|error| self.emitter.failed(error.to_string()))?;
        let mut reader = LogReader::new(Arc::clone(&self.log), next);
        let mut is_announced = false;
        let mut told: Option<Fault> = None;
        loop {
            // Asked before reading: what was whole then has been read afterwards.
            let (whole_at, fault) = match &self.watcher {
                Some(Attached(watcher)) => {
                    let state = watcher.lock();
                    (state.whole_at, state.fault.clone())
                }
                None => (None, None),
            };
            self.take_records(&mut reader, &mut batcher, until.unwrap_or(i64::MAX))?;
            if until.is_some_and(|until| reader.next() >= until) {
                return self.emitter.finished();
            }
            if !is_announced && whole_at.is_some_and(|whole_at| reader.next() >= whole_at) {
                is_announced = true;
                self.emitter.announced()?;
            }
            if fault != told {
                match &fault {
                    Some(Fault::Failed(message)) => return Err(self.emitter.failed(message.clone())),
                    Some(Fault::Trouble(message)) => self.emitter.trouble(message.clone())?,
                    None => self.emitter.recovered()?,
                }
                told = fault;
            }
            self.emitter.stop().wait(POLL)?;
        }
    }

    /// Sends what the log has.
    fn take_records(&self, reader: &mut LogReader, batcher: &mut PartitionBatcher, until: i64) -> Result<(), Stopped> {
        loop {
            let outcome = reader.read(until, |record| {
                take(batcher, &record);
                batcher.is_full()
            });
            let is_end = outcome.map_err(|error| self.emitter.failed(error.to_string()))?;
            if is_end {
                batcher.skip_to(reader.next());
            }
            if let Some(batch) = batcher.take(self.log.end()) {
                self.emitter.batch(batch)?;
            }
            if is_end {
                return Ok(());
            }
        }
    }
}

fn take(batcher: &mut PartitionBatcher, record: &Record<'_>) {
    let (offset, next, at) = (record.offset, record.offset + 1, Some(record.at));
    let key = Some(record.key.as_bytes());
    match record.said {
        Said::Row => batcher.push(offset, next, at, key, Some(record.row.as_bytes())),
        Said::Gone => batcher.push(offset, next, at, key, None),
        Said::Unusable => {
            let error = DecodeError(record.key.to_string());
            batcher.refuse(offset, next, at, record.row.as_bytes(), &error);
        }
    }
}

#[cfg(test)]
mod tests;
