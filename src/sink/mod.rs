//! Where tags go: one table a tag in MySQL or SQLite, and the registry that describes them.
//!
//! Enters: net changes of tags between two epochs. Leaves: committed rows, with the progress in the same transaction.
//! Never knows sources, plans or operators.

pub mod cells;
pub mod collapse;
pub mod keys;
pub mod lease;
pub mod mysql;
pub mod names;
pub mod read_back;
pub mod registry;
pub mod sqlite;
mod try_out;
pub mod types;
pub mod versions;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use self::lease::{Claim, Holder, Opened};
pub use self::try_out::{StoreFault, try_store};
use self::versions::{Origin, Version};
use crate::config::Store;
use crate::delta::{Clock, Lost, Offsets, Watermarks};

/// The table in which a tag is filled before it is swapped in.
pub fn shadow_table(tag: &str) -> String {
    format!("_tagflow_new_{tag}")
}

/// The store that the project's settings name, not yet opened. A relative SQLite path is below `root`;
/// DATETIME columns are wall time of `timezone`.
///
/// # Errors
/// When the URL cannot be read.
pub fn open_store(store: &Store, root: &Path, timezone: Tz) -> Result<Box<dyn Sink>, SinkError> {
    Ok(match store {
        Store::Mysql(address) => Box::new(mysql::MysqlSink::new(address, timezone)?),
        Store::Sqlite(path) => Box::new(sqlite::SqliteSink::new(&root.join(path), timezone)),
    })
}

/// One column of a tag's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkColumn {
    /// Its name.
    pub name: String,
    /// Its arrow type.
    #[serde(with = "data_type_text")]
    pub data_type: DataType,
}

/// The shape of a tag's table: key columns first, then the values; `_updated_at` is added by the sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagTable {
    /// The table's name.
    pub table: String,
    /// The primary key.
    pub key: Vec<SinkColumn>,
    /// The value columns; empty for a segment.
    pub columns: Vec<SinkColumn>,
}

/// What one tag's table must become: net changes, one entry a key at most.
#[derive(Debug, Clone)]
pub struct TagChanges {
    /// The table.
    pub table: Arc<TagTable>,
    /// Rows to insert or replace: key columns, then value columns. No key twice, none with a NULL in the key.
    pub upserts: RecordBatch,
    /// Keys to delete: the key columns. None of them is in `upserts`.
    pub deletes: RecordBatch,
    /// The progress that becomes true with these rows.
    pub progress: TagProgress,
}

/// How far a tag's table is: what is committed in the same transaction as its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagProgress {
    /// The tag.
    pub tag: String,
    /// The fingerprint of the plan whose answer the table holds.
    pub fingerprint: String,
    /// The epoch that the table shows.
    pub epoch: u64,
    /// The next records to read of every partition that the tag reads.
    pub offsets: Offsets,
    /// The engine's clock of that epoch, nanoseconds since the Unix epoch.
    pub clock: Clock,
    /// The watermarks of that epoch, of the streams that the tag reads.
    #[serde(default)]
    pub watermarks: Watermarks,
    /// Up to when the table is true in event time, milliseconds since the Unix epoch, where that is known. Told to readers
    /// and not read back.
    #[serde(default)]
    pub event_time: Option<i64>,
    /// Rows in the table.
    pub rows: u64,
}

/// What other programs read of a tag in `_tagflow_tags` and `_tagflow_columns`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TagRegistration {
    /// The tag, which is also its table's name.
    pub tag: String,
    /// Folders below `tags/`, joined by `/`.
    pub folder: String,
    /// Titles of those folders, outermost first.
    pub folder_titles: Vec<String>,
    /// The entity.
    pub entity: String,
    /// Counts up with every change of the plan.
    pub version: u64,
    /// The commit that last touched the file, where the project is a git checkout.
    pub git_commit: Option<String>,
    /// The file, relative to the project's root.
    pub file: String,
    /// From the header.
    pub title: Option<String>,
    /// From the header.
    pub description: Option<String>,
    /// From the header.
    pub owner: Option<String>,
    /// From the header: stat, rule, mining, manual.
    pub method: Option<String>,
    /// From the header: live, deprecated.
    pub status: String,
    /// The query.
    pub sql: String,
    /// The project's time zone, in which DATETIME columns are.
    pub timezone: String,
    /// Milliseconds since the Unix epoch from which on the answer is complete; `None` when history reaches back far enough.
    pub complete_from: Option<i64>,
    /// Records that the answer lacks, since they were gone before they were read.
    pub lost: Vec<Lost>,
    /// The columns, keys first.
    pub columns: Vec<ColumnRegistration>,
}

/// One column of a tag in the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnRegistration {
    /// Its name.
    pub name: String,
    /// Its SQL type in the store.
    pub sql_type: String,
    /// True for a key column.
    pub is_key: bool,
    /// From the header.
    pub title: Option<String>,
    /// From the header.
    pub unit: Option<String>,
    /// From the header: what readers take when a user has no row.
    pub default: Option<String>,
    /// From the header: value to display name, as a JSON object.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// The store of tag tables, blocking: it runs on a thread of its own.
///
/// Every method returns an error that knows whether trying again can help; nothing is lost by trying again.
pub trait Sink: Send {
    /// Creates the `_tagflow_*` tables where missing and claims the store for this writer, unless another one's lease
    /// keeps it out. From then on the commits of every older writer fail.
    fn open(&mut self, claim: &Claim) -> Result<Opened, SinkError>;

    /// Makes the lease last longer; an error when a newer writer has claimed the store. To be called at least three times
    /// in its length, also when nothing is written; a call that takes longer than that renews it by itself.
    fn renew(&mut self) -> Result<(), SinkError>;

    /// Gives the lease back, so that the next writer need not wait for its end.
    fn release(&mut self) -> Result<(), SinkError>;

    /// The committed progress of every tag's own table.
    fn progress(&mut self) -> Result<Vec<TagProgress>, SinkError>;

    /// Creates an empty table of that shape, dropping a left-over of that name. For new tags and for shadow tables while a tag is filled.
    fn create_table(&mut self, table: &TagTable) -> Result<(), SinkError>;

    /// True when a table of that name and shape is there.
    fn table_matches(&mut self, table: &TagTable) -> Result<bool, SinkError>;

    /// Rows and progress of all given tags in one transaction. Trying the same again after an error is safe, even
    /// when the error came too late to stop the commit.
    fn commit(&mut self, changes: &[TagChanges]) -> Result<CommitStats, SinkError>;

    /// Makes `filled` the table of `live` in one atomic rename, and `progress`, registration and version with it;
    /// the table that was there is kept as a retired one. `filled` may be a retired one itself.
    ///
    /// After a passing error the table may or may not be the new one: the same call has to be made again, until it
    /// succeeds, before anything else of this tag is committed. A swap that was carried out is not done twice.
    fn swap_table(
        &mut self,
        filled: &str,
        live: &str,
        progress: &TagProgress,
        registration: &TagRegistration,
        origin: &Origin,
    ) -> Result<(), SinkError>;

    /// Renames a tag's table aside and takes the tag out of registry and progress.
    fn retire_table(&mut self, tag: &str) -> Result<(), SinkError>;

    /// The retired tables of versions that were not given up, each with how far it is. The progress bears the version's
    /// name, [`Version::name`]: it is written on under that.
    fn versions_aside(&mut self) -> Result<Vec<(String, TagProgress)>, SinkError>;

    /// Everything that is known of the versions of all tags, in the order of time.
    fn versions(&mut self) -> Result<Vec<Version>, SinkError>;

    /// Gives a version up that was set aside: its table stays as it is until its grace period ends.
    fn give_version_up(&mut self, tag: &str, version: u64, reason: &str) -> Result<(), SinkError>;

    /// Drops tables retired longer ago than `grace` by the store's clock; returns their names.
    fn drop_retired(&mut self, grace: std::time::Duration) -> Result<Vec<String>, SinkError>;

    /// Writes registry rows (metadata only).
    fn register(&mut self, registrations: &[TagRegistration]) -> Result<(), SinkError>;

    /// All rows of a tag whose first key column's text is `key`, column name and text value, for `tagflow show`.
    fn rows_of(&mut self, table: &TagTable, key: &str) -> Result<Vec<TextRow>, SinkError>;

    /// Some rows of a tag, column name and text value, for people who want to see what they look like.
    fn first_rows(&mut self, table: &TagTable, most: usize) -> Result<Vec<TextRow>, SinkError>;

    /// Every value of a column as text, NULL as `None`, with the number of its rows.
    fn value_counts(&mut self, table: &TagTable, column: &SinkColumn) -> Result<Vec<(Option<String>, u64)>, SinkError>;

    /// The registry, for `tagflow show` and `status` without a daemon.
    fn registrations(&mut self) -> Result<Vec<TagRegistration>, SinkError>;

    /// What the table of a tag shows, for readers beside the writer: nothing is locked. `None` where the store has no table of
    /// that tag. While the table is being replaced the error is a passing one.
    fn read_shown(&mut self, table: &TagTable, keep: Keep<'_>) -> Result<Option<Shown>, SinkError>;

    /// The whole table in the tag's types, key columns first, sorted by key; `_updated_at` is left out.
    fn read_table(&mut self, table: &TagTable) -> Result<RecordBatch, SinkError>;

    /// The SQL type of every column in this store, keys first, for the registry. An error for a type that no store has.
    fn column_types(&mut self, table: &TagTable) -> Result<Vec<String>, SinkError>;
}

/// What a reader keeps of some rows of a table, so that it need not hold all of them.
pub type Keep<'a> = &'a dyn Fn(RecordBatch) -> Result<RecordBatch, ArrowError>;

/// Rows of a table and what they are the answer to, as of one moment.
#[derive(Debug, Clone)]
pub struct Shown {
    /// How far the table is.
    pub progress: TagProgress,
    /// What was kept of its rows, as [`Sink::read_table`] gives them, in any order.
    pub rows: RecordBatch,
}

/// One row as column names and texts, `None` for NULL.
pub type TextRow = Vec<(String, Option<String>)>;

/// What a commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Rows inserted or replaced.
    pub upserted: u64,
    /// Keys deleted.
    pub deleted: u64,
    /// Values that became NULL because the store has none like them (NaN, infinity, years outside 1 to 9999).
    pub nulled: u64,
    /// Rows that were not written because the store's index cannot hold their key.
    pub rejected_keys: u64,
    /// Table, key column and reason of one of them, for the log.
    pub rejected_sample: Option<String>,
}

impl CommitStats {
    /// Counts in the rows that [`keys::fit_keys`] has left out.
    fn count_rejected(&mut self, table: &str, fitting: &mut keys::FittingRows) {
        self.rejected_keys += fitting.rejected;
        if let (None, Some(sample)) = (&self.rejected_sample, fitting.sample.take()) {
            self.rejected_sample = Some(format!("table `{table}`: {sample}"));
        }
    }
}

/// What can go wrong at the store.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The server is away or busy; trying again may help.
    #[error("store {store}: {message}")]
    Unavailable {
        /// The store without its password.
        store: String,
        /// What the driver says.
        message: String,
    },
    /// A newer daemon has claimed the store.
    #[error("store {store}: another tagflow daemon (generation {generation}) has taken over")]
    Fenced {
        /// The store without its password.
        store: String,
        /// The newer one's generation.
        generation: u64,
    },
    /// Another daemon writes this store, and this claim does not end its lease.
    #[error(
        "store {store} is written by another tagflow daemon: {holder}; `tagflow run --standby` waits for it, \
         --take-over takes the store from it"
    )]
    Held {
        /// The store without its password.
        store: String,
        /// The other daemon.
        holder: Holder,
    },
    /// One tag's table refuses its rows; trying the same again will not help.
    #[error("table `{table}`: {message}")]
    Table {
        /// The table.
        table: String,
        /// What the server says, and what to do.
        message: String,
    },
    /// Somebody else keeps one tag's table locked; trying again may help.
    #[error("table `{table}` is locked by somebody else: {message}")]
    Busy {
        /// The table.
        table: String,
        /// What the server says.
        message: String,
    },
    /// No daemon has written this store yet.
    #[error("store {store}: {message}; `tagflow run` makes the _tagflow_* tables")]
    Unused {
        /// The store without its password.
        store: String,
        /// What the driver says.
        message: String,
    },
    /// The store is not usable as it is set up (wrong password, missing right, no such database).
    #[error("store {store}: {message}")]
    Setup {
        /// The store without its password.
        store: String,
        /// What the driver says.
        message: String,
    },
}

impl SinkError {
    /// True when the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, SinkError::Unavailable { .. } | SinkError::Busy { .. })
    }
}

mod data_type_text {
    use arrow::datatypes::DataType;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(data_type: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_type.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| D::Error::custom(format!("`{text}` is no arrow type: {error}")))
    }
}
