//! Where events come from: Kafka, files, the generator, tables outside. Bytes become Arrow here, and nowhere else.
//!
//! Enters: a [`Stream`](crate::catalog::Stream), the columns that any tag needs, and where to start.
//! Leaves: [`SourceBatch`]es on one bounded channel, and dead letters for what does not decode.
//! Never keeps an offset of its own: the engine's checkpoint does, and hands it back at the start.
//!
//! What a reader promises: the records of a partition in order, each once, from the offset that it was given; what is
//! not there any more is [`SourceEvent::Failed`], and only skipped, as [`SourceEvent::Lost`], where the stream says so; a fault that may pass is one
//! [`SourceEvent::Trouble`] until [`SourceEvent::Recovered`]. Threads wait on the bounded channel, so a slow engine
//! slows reading and memory stays bounded. The clock is read for pacing only, never for what a record becomes.

pub(crate) mod archive;
mod batch;
pub mod dead_letter;
pub mod decode;
mod emit;
mod file;
pub mod generator;
mod kafka;
mod registry;
pub mod sample;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use arrow::array::RecordBatch;
use chrono_tz::Tz;

use self::emit::{Emitter, StopFlag, Stopped};
use crate::catalog::Stream;
use crate::config::Connection;
use crate::delta::{Lost, Partition};

pub use self::dead_letter::DeadLetters;
pub use self::emit::SourceHandle;
pub(crate) use self::file::lines::{Line, LineReader};
pub(crate) use self::kafka::known_topic_id;
pub use self::kafka::{KnownTopic, known_topics, remember_topics};
pub use self::registry::Registries;
pub use self::table::Tables;

/// Some records of one partition in offset order, decoded.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// Where they are from.
    pub partition: Arc<Partition>,
    /// The requested columns, in the requested order.
    pub batch: RecordBatch,
    /// The offset of each row of `batch`, ascending. Records that became dead letters leave holes.
    pub offsets: Vec<i64>,
    /// The next record to read after this batch, dead letters included.
    pub next_offset: i64,
    /// The partition's end as last heard of (the offset behind its last record), for the lag.
    pub end_offset: i64,
    /// Newest broker timestamp among the records, milliseconds since the Unix epoch; for the lag in time.
    pub newest_timestamp: Option<i64>,
    /// Bytes of the raw records, for limits and metrics.
    pub raw_bytes: usize,
}

/// What a source is asked to read.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Indices into [`Stream::schema`] of the columns that are needed; only they are decoded, and
    /// every NOT NULL column is looked at all the same, so that what is a dead letter does not depend on the tags.
    pub columns: Vec<usize>,
    /// Next record to read of the partitions already known. Where none is, all start where the stream's `start` says;
    /// a partition that is missing beside known ones is new and starts at its beginning.
    pub from: BTreeMap<i32, i64>,
    /// Where each partition ends for this reader (exclusive), for a fill or a replay; `None` reads on for ever.
    pub until: Option<BTreeMap<i32, i64>>,
    /// How much of it may be in memory.
    pub room: ReadRoom,
}

/// How much of a stream's records is in memory on its way.
#[derive(Debug, Clone, Copy)]
pub struct ReadRoom {
    /// Most raw bytes of a batch, but for a record that is longer.
    pub batch: usize,
    /// Raw bytes that readers may hold ahead of their batches.
    pub ahead: usize,
}

impl Default for ReadRoom {
    /// As much as serves.
    fn default() -> Self {
        ReadRoom { batch: 16 << 20, ahead: 64 << 20 }
    }
}

/// What a source tells the engine.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records.
    Batch(SourceBatch),
    /// A reader with an end has delivered everything before it, or a file that is not followed has been read.
    Finished {
        /// The stream.
        stream: String,
    },
    /// A partition was seen for the first time: its first and its end offset, and where reading starts.
    /// `beginning` above 0 means that retention has already dropped older records.
    Partition {
        /// Which.
        partition: Arc<Partition>,
        /// The oldest record that is still there.
        beginning: i64,
        /// The offset behind the last record.
        end: i64,
        /// The next record to be read.
        next: i64,
    },
    /// All partitions that the stream has were told; those that turn up from now on are new.
    Announced {
        /// The stream.
        stream: String,
    },
    /// Records are gone that were to be taken, and the stream is one that goes on behind them.
    Lost(Lost),
    /// A read without an end has given all that can be read of a partition for now, whatever offsets are left before its
    /// end: transaction markers, records that compaction took, the beginning of a line. Told once for each partition,
    /// and again where offsets are left.
    AtEnd {
        /// Which.
        partition: Arc<Partition>,
    },
    /// A passing fault (broker away): for status and log; the source goes on trying.
    Trouble {
        /// The stream.
        stream: String,
        /// What happened.
        message: String,
    },
    /// The broker answers, again and again, that the topic does not exist: there is nothing to read until it is made.
    Missing {
        /// The stream.
        stream: String,
    },
    /// The trouble is over.
    Recovered {
        /// The stream.
        stream: String,
    },
    /// The source cannot go on (records lost to retention, topic gone, wrong password).
    Failed {
        /// The stream.
        stream: String,
        /// What happened and what to do.
        message: String,
    },
}

/// The wall clock: milliseconds since the Unix epoch.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The world of a source, the same for all readers.
#[derive(Clone)]
pub struct SourceContext {
    /// The project's zone.
    pub timezone: Tz,
    /// The project's folder, below which files of history lie.
    pub root: PathBuf,
    /// Where records go that do not decode.
    pub dead_letters: Arc<DeadLetters>,
    /// The logs of tables outside.
    pub tables: Arc<Tables>,
    /// Where a source may keep what must not change between two starts (the generator's epoch).
    pub state_dir: PathBuf,
    /// The time for pacing and dead letters; never for what a record becomes.
    pub wall_clock: WallClock,
    /// The schema registries of the connections.
    pub registries: Registries,
}

/// Why a source cannot even start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A setting or a column that cannot be used.
    #[error("stream {stream:?}: {message}")]
    Setup {
        /// The stream.
        stream: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A file or thread that the machine refuses.
    #[error("stream {stream:?}: {path}: {error}", path = path.display())]
    Io {
        /// The stream.
        stream: String,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Starts reading: events go to `events` until the end of the request, a failure, or the handle's drop.
///
/// Several readers of one stream may run at the same time. A broker that is away is no error here: the source waits
/// for it and says [`SourceEvent::Trouble`].
pub fn start_source(
    request: ReadRequest,
    connection: &Connection,
    context: &SourceContext,
    events: SyncSender<SourceEvent>,
) -> Result<SourceHandle, SourceError> {
    let stop = Arc::new(StopFlag::default());
    let emitter = Emitter::new(&request.stream.name, events, stop.clone());
    // A column that cannot be decoded is found here and not in a thread.
    decode::Decoder::new(&request.stream, &request.columns)
        .map_err(|error| SourceError::Setup { stream: request.stream.name.clone(), message: error.to_string() })?;
    let threads = match connection {
        _ if request.stream.kind.is_outside() => table::start(request, connection, context, emitter)?,
        Connection::Kafka { brokers, properties, registry } => {
            let registry = registry.as_ref().map(|address| context.registries.at(address));
            kafka::start(request, brokers, properties, registry, context, emitter)?
        }
        Connection::File { path, follow } => file::start(request, path, *follow, context, emitter)?,
        Connection::Mysql(_) => {
            let message = "a database has no topics: read a table of it by kind = \"mysql\"".to_string();
            return Err(SourceError::Setup { stream: request.stream.name.clone(), message });
        }
        Connection::Generator(config) => generator::start(request, config, context, emitter)?,
    };
    Ok(SourceHandle::new(stop, threads))
}

/// Runs one thread of a reader. A panic in it is told as a failure: a stream must never stand still in silence.
fn spawn(
    emitter: &Emitter,
    role: &str,
    body: impl FnOnce() -> Result<(), Stopped> + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, SourceError> {
    let stream = emitter.stream().to_string();
    let teller = emitter.clone();
    let guarded = move || {
        // What the body owns is dropped by the unwinding, and nothing else sees it.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
            // A stopped reader needs no farewell: whoever stopped it knows.
            Ok(Ok(()) | Err(Stopped)) => {}
            Err(_) => {
                let message = "a reading thread panicked: this is a bug of tagflow, its log has the place";
                let Stopped = teller.failed(message);
            }
        }
    };
    // The role comes first since Linux cuts names at 15 bytes.
    let builder = std::thread::Builder::new().name(format!("{role}-{stream}"));
    builder.spawn(guarded).map_err(|error| SourceError::Io { stream, path: "thread".into(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn panic_of_a_reading_thread_is_a_failure() {
        let (events, received) = sync_channel(1);
        let emitter = Emitter::new("orders", events, Arc::default());
        let thread = spawn(&emitter, "test", || panic!("on purpose")).unwrap();
        let Ok(SourceEvent::Failed { stream, message }) = received.recv() else { panic!("the failure should be told") };
        assert_eq!(stream, "orders");
        assert!(message.starts_with("a reading thread panicked"), "{message}");
        thread.join().unwrap();
        assert_eq!(emitter.stop().check(), Err(Stopped));
    }

    #[test]
    fn column_that_cannot_be_decoded_is_an_error_of_the_start() {
        let column = crate::catalog::Column {
            name: "blob".into(),
            data_type: arrow::datatypes::DataType::Binary,
            nullable: true,
            path: vec!["blob".into()],
            timestamp_format: crate::catalog::TimestampFormat::Iso,
            misfits: Default::default(),
        };
        let stream = Stream {
            name: "orders".into(),
            file: "schemas/orders.toml".into(),
            title: None,
            connection: "files".into(),
            topic: "orders".into(),
            format: crate::catalog::Format::Json,
            timezone: chrono_tz::UTC,
            start: crate::catalog::Start::Earliest,
            time: None,
            kind: Default::default(),
            key: vec![],
            truncates: false,
            on_lost: Default::default(),
            history: None,
            archive: None,
            unique: None,
            columns: vec![column],
        };
        let wall_clock: WallClock = Arc::new(|| 0);
        let context = SourceContext {
            timezone: chrono_tz::UTC,
            root: "nowhere".into(),
            dead_letters: Arc::new(DeadLetters::new("nowhere", 1 << 20, wall_clock.clone())),
            tables: Arc::new(Tables::new(std::path::Path::new("nowhere"))),
            state_dir: "nowhere".into(),
            wall_clock,
            registries: Registries::default(),
        };
        let request = ReadRequest {
            stream: Arc::new(stream),
            columns: vec![0],
            from: BTreeMap::new(),
            until: None,
            room: ReadRoom::default(),
        };
        let connection = Connection::File { path: "nowhere".into(), follow: false };
        let error = start_source(request, &connection, &context, sync_channel(1).0).err().unwrap();
        assert_eq!(error.to_string(), "stream \"orders\": column \"blob\": no record can be read as Binary");
    }
}
