//! What `schemas/` declares: streams with their columns, and views.
//!
//! Enters: text of `schemas/*.toml` and `schemas/*.sql`. Leaves: a validated [`Catalog`], or diagnostics.
//! Never does I/O: `project` reads the files.

mod avro;
mod columns;
mod history;
mod kind;
mod load;
mod protobuf;
mod record_schema;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono_tz::Tz;

use crate::diagnostic::Levels;

pub use avro::{AvroField, AvroSchema, AvroType, TypeId};
pub(crate) use load::{FOLDER, connections_named, is_stream_name, load, place_of_column, place_of_key};
pub use protobuf::{Descriptor, Framing, ProtoField, ProtoKind, ProtoMessage, ProtobufFormat};
pub(crate) use record_schema::{Attached, files_named};

/// Every stream and view that tags can read, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// Streams by name.
    pub streams: BTreeMap<String, Arc<Stream>>,
    /// Views by name.
    pub views: BTreeMap<String, Arc<View>>,
}

/// How a record's bytes are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json,
    /// One line of comma separated values a record; a file's first line names the columns.
    Csv,
    /// Changes of a table, as Debezium writes them.
    Debezium,
    /// As Canal does: one record may hold several rows.
    Canal,
    /// As Maxwell does.
    Maxwell,
    /// One value of a schema. `None`: each record says, in Confluent's wire format, by which schema of the connection's
    /// registry it was written.
    Avro(Option<Arc<AvroSchema>>),
    /// One message of a descriptor.
    Protobuf(Arc<ProtobufFormat>),
    /// A file that is read as a whole.
    Parquet,
}

impl Format {
    /// True where records are changes of a table, and not events.
    pub fn is_changes(&self) -> bool {
        matches!(self, Format::Debezium | Format::Canal | Format::Maxwell)
    }
}

/// The place of a field among those of a record: the one of exactly this name, else one whatever its case.
pub(crate) fn place_of_name<'n>(names: impl Iterator<Item = &'n str> + Clone, name: &str) -> Option<usize> {
    let lower = name.to_lowercase();
    names
        .clone()
        .position(|known| known == name)
        .or_else(|| names.clone().position(|known| known.to_lowercase() == lower))
}

/// What a stream's records are to each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Kind {
    /// Each stands for itself: events, or changes of a table where the format says so.
    #[default]
    Records,
    /// The newest record of a key in a Kafka topic is the key's row; an empty one deletes it.
    Upserts,
    /// Rows of a file that are read anew when it has changed.
    File,
    /// Rows of a table in a database.
    Mysql {
        /// How changed rows are found at once, if they are.
        polls: Option<Polls>,
        /// How often the whole table is read.
        resync: Duration,
    },
}

/// Changed rows of a table are asked for again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polls {
    /// The column that says when a row was written.
    pub column: String,
    /// How often.
    pub every: Duration,
}

impl Kind {
    /// What a schema file calls it; nothing where it says nothing.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Records => "",
            Kind::Upserts => "kafka-upsert",
            Kind::File => "file",
            Kind::Mysql { .. } => "mysql",
        }
    }

    /// True for a table that is looked at, and not told of by records.
    pub fn is_outside(&self) -> bool {
        matches!(self, Kind::File | Kind::Mysql { .. })
    }
}

/// One stream: where it comes from, its columns, its event time.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// The file name without `.toml`; what SQL calls it.
    pub name: String,
    /// The schema file, relative to the project's root.
    pub file: PathBuf,
    /// For people.
    pub title: Option<String>,
    /// Name of the connection in `tagflow.toml`.
    pub connection: String,
    /// The Kafka topic; the file or folder below the connection's path; the generator's stream; the database's table.
    pub topic: String,
    /// How a record's bytes are read; `Json` for a table of a database.
    pub format: Format,
    /// What the records are to each other.
    pub kind: Kind,
    /// The project's zone, in which `_timestamp` is an instant.
    pub timezone: Tz,
    /// Where reading starts when there is no checkpoint.
    pub start: Start,
    /// Parquet files with records that the topic may not have any more: a pattern below the project's root.
    pub history: Option<String>,
    /// Where the daemon keeps the stream's records, which are its history then.
    pub archive: Option<Archive>,
    /// The event time and how late events may be.
    pub time: Option<EventTime>,
    /// The primary key of the table whose changes the records are; empty for events.
    pub key: Vec<String>,
    /// A TRUNCATE among the changes empties the table; without it such a record is a dead letter.
    pub truncates: bool,
    /// What tells an event that was sent again.
    pub unique: Option<Unique>,
    /// What becomes of the stream when records are gone before they were read.
    pub on_lost: OnLost,
    /// The declared columns in order. System columns (`_offset` …) are not among them: see [`SYSTEM_COLUMNS`].
    pub columns: Vec<Column>,
}

/// A folder in which the daemon keeps a stream's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The folder, below the project's root.
    pub path: PathBuf,
    /// How long records wait at most before they are in a file that counts.
    pub every: Duration,
    /// Bytes at which a file ends.
    pub size: u64,
}

/// Where a stream is first read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The oldest record that is still there.
    #[default]
    Earliest,
    /// Records that arrive from now on.
    Latest,
    /// Records of this broker time and later, in milliseconds since the Unix epoch.
    Timestamp(i64),
}

/// What a stream does when retention has taken records that were not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLost {
    /// It stands still, and its tags with it.
    #[default]
    Stop,
    /// It goes on behind them, and says what its tags lack.
    Skip,
}

/// The column that says when an event happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTime {
    /// Its name among the stream's columns; a TIMESTAMP.
    pub column: String,
    /// How far behind the newest event one may still arrive.
    pub lateness: Duration,
    /// A partition from which nothing has come for so long does not hold the watermark back.
    pub idle: Duration,
}

/// Events alike in some columns that lie close to one another in event time are one event, sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// Names of the columns; an event with a NULL in one of them is like no other.
    pub columns: Vec<String>,
    /// How far behind the one before a resent event lies at most.
    pub within: Duration,
}

/// One declared column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name in SQL.
    pub name: String,
    /// Its arrow type. TIMESTAMP(p) is `Timestamp(unit, None)`: wall time in the project's zone;
    /// TIMESTAMP(p) WITH TIME ZONE is `Timestamp(unit, Some(project zone))`: an instant.
    pub data_type: DataType,
    /// False for `NOT NULL`: a record without a value is a dead letter.
    pub nullable: bool,
    /// The object keys that lead to the value in a JSON record; `[name]` unless `path` says otherwise.
    pub path: Vec<String>,
    /// How a timestamp is written.
    pub timestamp_format: TimestampFormat,
    /// What becomes of a value that does not fit.
    pub misfits: Misfits,
}

/// What becomes of a value that does not fit its column. Where NULL cannot be, it is a dead letter in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misfits {
    /// The record is put aside.
    #[default]
    DeadLetter,
    /// The value is NULL, and counted.
    Null,
}

/// How a timestamp is written in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum TimestampFormat {
    /// ISO 8601 text, `T` or a space between date and time. For TIMESTAMP, text with an offset or `Z` is
    /// converted to wall time in the project's zone; for TIMESTAMP WITH TIME ZONE, text without one is read as that wall time.
    #[default]
    Iso,
    /// Seconds since the Unix epoch, UTC.
    EpochSeconds,
    /// Milliseconds since the Unix epoch, UTC.
    EpochMillis,
    /// Microseconds since the Unix epoch, UTC.
    EpochMicros,
}

/// A query that tags read like a stream; it has no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The file name without `.sql`.
    pub name: String,
    /// The file, relative to the project's root.
    pub file: PathBuf,
    /// The whole text of the file, header comment included, so that spans are those of the file.
    pub sql: String,
    /// For people.
    pub title: Option<String>,
    /// What becomes of warnings about it.
    pub lints: Levels,
}

impl Stream {
    /// The same records with the columns of the key alone, in its order.
    pub fn of_key(&self) -> Stream {
        let column = |name: &String| self.columns.iter().find(|column| column.name == *name).cloned();
        Stream { columns: self.key.iter().filter_map(column).collect(), time: None, unique: None, ..self.clone() }
    }

    /// The same stream without its files: the records that the topic holds.
    pub fn of_topic(&self) -> Stream {
        Stream { history: None, archive: None, ..self.clone() }
    }

    /// The arrow schema that SQL sees: declared columns, then the system columns.
    pub fn schema(&self) -> SchemaRef {
        let declared =
            self.columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable));
        let marks = match (self.is_table(), self.truncates) {
            (true, true) => MARKS,
            (true, false) => &MARKS[..1],
            (false, _) => &[],
        };
        let marks = marks.iter().map(|mark| Field::new(*mark, DataType::Boolean, false));
        Arc::new(Schema::new(declared.chain(system_columns(self.timezone)).chain(marks).collect::<Vec<_>>()))
    }

    /// True where the records describe a table: SQL reads the table, and not the records.
    pub fn is_table(&self) -> bool {
        self.format.is_changes() || self.kind != Kind::Records
    }
}

/// The column of a table's records that says that a key is gone.
pub const DELETED: &str = "_deleted";
/// The column that says that all keys are gone; there where the stream's `truncates` is set.
pub const TRUNCATED: &str = "_truncated";
/// The columns of a table's records that SQL does not see.
pub const MARKS: &[&str] = &[DELETED, TRUNCATED];

/// Names of the columns that every stream has beside the declared ones.
pub const SYSTEM_COLUMNS: &[&str] = &["_topic", "_partition", "_offset", "_timestamp", "_key"];

/// [`SYSTEM_COLUMNS`]: `_timestamp` is the broker's time, an instant in the project's zone, in milliseconds; `_key` the
/// text of the record's key.
fn system_columns(timezone: Tz) -> [Field; 5] {
    let instant = DataType::Timestamp(TimeUnit::Millisecond, Some(timezone.name().into()));
    [
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", instant, true),
        Field::new("_key", DataType::Utf8, true),
    ]
}
