//! What the daemon says of itself: written by the epoch loop, read by the console and the command line.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};

use crate::delta::Lost;

/// Where the daemon is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Opening the store, loading the checkpoint.
    #[default]
    Starting,
    /// Waiting for the daemon that writes the store to be gone.
    Standby,
    /// Going through the records again that were taken between the checkpoint and the store's progress.
    Replaying,
    /// Tags follow their streams, or are being filled.
    Running,
    /// Writing the rest and a last checkpoint.
    Stopping,
}

/// Where a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagState {
    /// Its table follows.
    Live,
    /// It is being filled for the first time.
    #[default]
    Filling,
    /// Its table follows the version before, while the new one is being filled.
    Replacing,
    /// Filled, but less complete than the version that runs: `tagflow accept` lets it in.
    Waiting,
    /// Set aside because of a fault.
    Failed,
}

/// One tag.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TagStatus {
    /// Its name.
    pub tag: String,
    /// Folders below `tags/`.
    pub folder: String,
    /// From the header.
    pub title: Option<String>,
    /// Where it is.
    pub state: TagState,
    /// Why, where there is more to say.
    pub message: Option<String>,
    /// Rows in its table.
    pub rows: u64,
    /// Changed rows since the start.
    pub changes: u64,
    /// Changed rows a second, lately.
    pub changes_per_second: f64,
    /// Rows left out because their key holds a NULL.
    pub null_keys: u64,
    /// Rows that it skipped since the start, since an expression failed.
    #[serde(default)]
    pub skipped: u64,
    /// Values that have no label, in columns whose header gives labels.
    pub outside_labels: u64,
    /// The fingerprint of the plan that runs.
    pub plan: String,
    /// The operators with state that it uses.
    pub operators: Vec<OperatorStatus>,
    /// Keys and rows of operators that it uses.
    pub state_rows: u64,
    /// Bytes of operators that it uses, in memory and out of it.
    pub state_bytes: u64,
    /// From when on it is complete, milliseconds since the Unix epoch, where history is too short or has gaps.
    pub complete_from: Option<i64>,
    /// Records that it lacks, since they were gone before they were read.
    #[serde(default)]
    pub lost: Vec<Lost>,
    /// The version that its table shows; 0 as long as there is none.
    #[serde(default)]
    pub version: u64,
    /// Set where the project's files say otherwise, since somebody let the tag go back.
    #[serde(default)]
    pub rolled_back: Option<RolledBack>,
}

/// A tag that went back to a version before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RolledBack {
    /// The version.
    pub version: u64,
    /// Who asked for it.
    pub by: Option<String>,
}

/// A version that is not live any more and follows all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeptStatus {
    /// The tag.
    pub tag: String,
    /// The version.
    pub version: u64,
    /// Its table.
    pub table: String,
    /// Rows in it.
    pub rows: u64,
    /// Keys and rows of operators that it uses, those that it shares with others in full.
    pub state_rows: u64,
    /// Bytes of these operators, in memory and out of it.
    pub state_bytes: u64,
    /// When its grace period ends, milliseconds since the Unix epoch.
    pub until: i64,
}

/// One operator of a tag.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OperatorStatus {
    /// Its index in the plan.
    pub node: usize,
    /// Keys or rows kept.
    pub rows: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The stream.
    pub stream: String,
    /// The partition.
    pub partition: i32,
    /// The next record to read.
    pub next_offset: i64,
    /// The offset behind the last record.
    pub end_offset: i64,
    /// Broker time of the newest record read, milliseconds since the Unix epoch.
    pub newest_timestamp: Option<i64>,
}

/// A fill.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FillStatus {
    /// Its tags.
    pub tags: Vec<String>,
    /// Rows read.
    pub rows: u64,
    /// Records known to wait.
    pub lag: i64,
    /// Rows a second, lately.
    #[serde(default)]
    pub rows_per_second: f64,
    /// How long it takes still, at that speed; `None` as long as nothing is known of it.
    #[serde(default)]
    pub seconds_left: Option<f64>,
    /// It waits for running tags that are further behind than `fill_lag`.
    #[serde(default)]
    pub is_held: bool,
}

/// The archive of a stream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// The stream.
    pub stream: String,
    /// Its folder, below the project's.
    pub path: String,
    /// The next offset of each partition that is not in it.
    pub next: BTreeMap<i32, i64>,
    /// Records in it since it was begun.
    pub records: u64,
    /// Records of the topic that are known and are not in it yet.
    pub lag: i64,
    /// Broker time of the newest record in it, milliseconds since the Unix epoch.
    pub newest_timestamp: Option<i64>,
    /// Records that were gone before they were archived, since the start.
    pub lost: u64,
    /// How often it could not be written or its topic not be read, since the start.
    pub errors: u64,
    /// Why it is not written now.
    pub trouble: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The version of tagflow.
    pub version: String,
    /// The profile.
    pub profile: Option<String>,
    /// Where the daemon is in its life.
    pub phase: Phase,
    /// Counts the writers of the store; `None` as long as this daemon is none.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The daemon that is waited for.
    #[serde(default)]
    pub holder: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub started_at: i64,
    /// The last epoch.
    pub epoch: u64,
    /// The engine's clock, milliseconds since the Unix epoch.
    pub clock: i64,
    /// Events since the start.
    pub events: u64,
    /// Events a second, lately.
    pub events_per_second: f64,
    /// Records known to wait.
    pub lag: i64,
    /// How long the oldest record has waited that is known to be there and is not in the store, milliseconds.
    #[serde(default)]
    pub delay_millis: u64,
    /// Up to when each stream is known, in event time, milliseconds since the Unix epoch.
    pub watermarks: BTreeMap<String, i64>,
    /// Partitions of all streams.
    pub partitions: Vec<PartitionStatus>,
    /// Tags.
    pub tags: Vec<TagStatus>,
    /// Versions before, which tags can go back to.
    #[serde(default)]
    pub kept: Vec<KeptStatus>,
    /// Bytes in memory of state of all operators, shared ones once.
    pub state_bytes: u64,
    /// Bytes of their state that is out of memory.
    pub spilled_bytes: u64,
    /// Keys and rows of all operators, shared ones once.
    pub state_rows: u64,
    /// What is being filled.
    pub fill: Option<FillStatus>,
    /// Keys that wait for the store.
    pub pending_keys: u64,
    /// Milliseconds that the last commit took.
    pub flush_millis: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Rows written since the start.
    pub written: u64,
    /// Keys that no index holds, left out since the start.
    pub rejected_keys: u64,
    /// The epoch of the last checkpoint.
    pub checkpoint_epoch: Option<u64>,
    /// Dead letters by stream.
    pub dead_letters: BTreeMap<String, u64>,
    /// Of them, events that decode and came too late for a tag.
    #[serde(default)]
    pub late_events: BTreeMap<String, u64>,
    /// Of them, rows that tags skipped since an expression failed.
    #[serde(default)]
    pub skipped: BTreeMap<String, u64>,
    /// Dead letters that are kept, by stream, since whenever.
    #[serde(default)]
    pub letters_kept: BTreeMap<String, u64>,
    /// Dead letters that went for newer ones since the start, by stream.
    #[serde(default)]
    pub letters_dropped: BTreeMap<String, u64>,
    /// Dead letters that could not be written since the start, by stream.
    #[serde(default)]
    pub letters_lost: BTreeMap<String, u64>,
    /// When the newest dead letter since the start was put aside, by stream, milliseconds since the Unix epoch.
    #[serde(default)]
    pub newest_letter: BTreeMap<String, i64>,
    /// Values that did not fit their columns and were read as NULL, by stream, since the start.
    pub nulls: BTreeMap<String, u64>,
    /// Records that were dropped as resent, by stream, since the beginning of its history.
    pub resent: BTreeMap<String, u64>,
    /// Records that were too late to tell whether they were resent, likewise.
    pub too_late: BTreeMap<String, u64>,
    /// Records that were gone before they were read, of streams that went on, by stream, since the start.
    #[serde(default)]
    pub lost: BTreeMap<String, u64>,
    /// Archives of streams that have one.
    #[serde(default)]
    pub archives: Vec<ArchiveStatus>,
    /// Passing faults of sources and store.
    pub troubles: Vec<String>,
    /// What is wrong in the project's files, if the last reload was not accepted.
    pub project_errors: Vec<String>,
}

/// The status, shared.
pub type SharedStatus = Arc<RwLock<Status>>;

/// A copy of the status as it is.
pub fn read(status: &SharedStatus) -> Status {
    status.read().map(|status| status.clone()).unwrap_or_default()
}

/// Changes the status.
pub fn update(status: &SharedStatus, change: impl FnOnce(&mut Status)) {
    if let Ok(mut status) = status.write() {
        change(&mut status);
    }
}

/// A rate over the last few seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    last: u64,
    smoothed: Option<f64>,
}

impl Rate {
    /// Takes a total after `seconds` more; gives the smoothed rate a second.
    pub fn update(&mut self, total: u64, seconds: f64) -> f64 {
        let current = total.saturating_sub(self.last) as f64 / seconds.max(1e-3);
        self.last = total;
        let smoothed = self.smoothed.map_or(current, |smoothed| smoothed * 0.6 + current * 0.4);
        self.smoothed = Some(smoothed);
        smoothed
    }
}
