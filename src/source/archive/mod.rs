//! `archive = "PATH"` of a stream: its records as Parquet files, `PATH/dt=2026-01-31/orders-….parquet`, kept by the daemon.
//!
//! Enters: every record of the topic that decodes, late ones and such that no tag needs included, with all columns of the schema.
//! Leaves: files in the form that `kafka/history.rs` reads, which therefore are the stream's history. `dt` is the date of the
//! event time in the project's zone; of a record without one, that of its broker time; Hive's name for nothing where there
//! is neither. Dead letters and what a transaction has aborted are not there.
//!
//! Where the archive ends is said by the archive alone, so that it outlives the state directory and may be read by anybody:
//!
//! 1. Files are written under a hidden name that does not end in `.parquet`, closed and synced.
//! 2. The *commit* ([`Commit`]) names them and the offsets up to which everything is in files by then. It has a number, and is put
//!    in place by a hard link: of two that have one number, one fails.
//! 3. The files get their names.
//!
//! After a crash before 2 they are of no commit, and removed; after it, their names are given anew. So a file that is seen is
//! whole, each record is in one of them once, and reading goes on at exactly the commit's offsets. A writer begins by a commit of its
//! own, so the next one of a daemon that was replaced fails, and it writes no more, nor begins again behind that of another; that
//! one daemon alone archives is what the lease is for. Readers take the last commit and then look for files, without those of later numbers.
//!
//! What files are made of is collected by partition and written as row groups of one partition each, all days of a row group's
//! offsets at once: whoever reads them in the order of offsets has few of them in memory.

mod claim;
mod commits;
mod error;
mod segment;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

pub(crate) use self::claim::Writer;
pub(crate) use self::commits::{Commit, latest};
pub(crate) use self::error::ArchiveError;
pub(crate) use self::segment::{PLACE_OF_DAYS, finished, number_of, unfinished};

use self::commits::{Added, Archived};
use self::error::failed;
use self::segment::Segment;
use super::SourceBatch;
use crate::catalog::Stream;
use crate::crash_point::crash_point;
use crate::delta::Lost;
use crate::inside::leads_outside;

/// Records of a row group, unless memory is short.
const GROUP_ROWS: usize = 65_536;
/// Bytes of a row group before it is encoded, likewise.
const GROUP_BYTES: usize = 8 << 20;

/// Writes the archive of one stream.
pub(crate) struct Archive {
    root: PathBuf,
    folder: PathBuf,
    stream: Arc<Stream>,
    every: Duration,
    size: u64,
    /// Bytes of records that may wait for their row groups, of all partitions.
    room: usize,
    /// The last commit.
    head: Commit,
    /// What the next commit will say of each partition.
    reached: BTreeMap<i32, Archived>,
    waiting: BTreeMap<i32, Waiting>,
    segment: Segment,
    /// Since when there is something that no commit tells.
    since: Option<Instant>,
    newest: Option<i64>,
}

/// Records of one partition that are to be a row group.
#[derive(Default)]
struct Waiting {
    batches: Vec<RecordBatch>,
    offsets: Vec<i64>,
    bytes: usize,
    /// The offset behind them.
    next: i64,
}

impl Archive {
    /// Takes over the archive of a stream that has one, or begins it. `writer` is this process.
    pub(crate) fn open(root: &Path, stream: &Arc<Stream>, writer: &Writer, room: usize) -> Result<Self, ArchiveError> {
        let Some(archive) = &stream.archive else { return Err(ArchiveError::Refused("it has no archive".to_string())) };
        let folder = root.join(&archive.path);
        let commits = folder.join(commits::FOLDER);
        if folder
            .ancestors()
            .take_while(|part| *part != root)
            .chain([commits.as_path()])
            .any(|part| leads_outside(root, part))
        {
            let message = format!("a symbolic link leads from {} out of the project", archive.path.display());
            return Err(ArchiveError::Refused(message));
        }
        fs::create_dir_all(&commits).map_err(failed(&commits))?;
        let head = writer.claim(&folder, stream)?;
        segment::settle(&folder, &head.files)?;
        segment::remove_unfinished(&folder)?;
        let reached = head.partitions.clone();
        let newest = head.newest;
        let segment = Segment::new(&folder, root, stream, head.number + 1);
        Ok(Archive {
            root: root.to_path_buf(),
            folder,
            stream: Arc::clone(stream),
            every: archive.every,
            size: archive.size,
            room,
            head,
            reached,
            waiting: BTreeMap::new(),
            segment,
            since: None,
            newest,
        })
    }

    /// The next record of each partition that has one in the archive.
    pub(crate) fn next(&self) -> BTreeMap<i32, i64> {
        self.reached.iter().map(|(number, reached)| (*number, reached.next)).collect()
    }

    /// The same of what was taken, whether it counts yet or not.
    pub(crate) fn taken(&self) -> BTreeMap<i32, i64> {
        let mut next = self.next();
        next.extend(self.waiting.iter().map(|(number, waiting)| (*number, waiting.next)));
        next
    }

    /// What counts by now.
    pub(crate) fn head(&self) -> &Commit {
        &self.head
    }

    /// Says which topic is read; one with another id has other records at the same offsets.
    pub(crate) fn recognise(&mut self, id: Option<String>) -> Result<(), ArchiveError> {
        self.head.belongs(&self.stream, id.as_deref()).map_err(ArchiveError::Refused)?;
        if id.is_some() {
            self.head.topic_id = id;
        }
        Ok(())
    }

    /// A partition is read from `next` on.
    pub(crate) fn begin(&mut self, number: i32, next: i64) {
        self.reached.entry(number).or_insert(Archived { next, gaps: Vec::new() });
    }

    /// Records that nobody can archive any more.
    pub(crate) fn lose(&mut self, lost: &Lost) -> Result<(), ArchiveError> {
        self.write(lost.partition)?;
        self.since.get_or_insert_with(Instant::now);
        self.reached.entry(lost.partition).or_default().lose(lost.first..lost.next);
        Ok(())
    }

    /// Takes records of a partition, behind those that were taken before.
    pub(crate) fn take(&mut self, batch: SourceBatch) -> Result<(), ArchiveError> {
        let number = batch.partition.number;
        self.since.get_or_insert_with(Instant::now);
        self.newest = self.newest.max(batch.newest_timestamp);
        let waiting = self.waiting.entry(number).or_default();
        waiting.bytes += batch.batch.get_array_memory_size();
        waiting.offsets.extend(&batch.offsets);
        waiting.next = batch.next_offset;
        if batch.batch.num_rows() > 0 {
            waiting.batches.push(batch.batch);
        }
        if waiting.offsets.len() >= GROUP_ROWS || waiting.bytes >= GROUP_BYTES.min(self.room) {
            return self.write(number);
        }
        while self.waiting_bytes() > self.room {
            let largest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.bytes).map(|(number, _)| *number);
            let Some(largest) = largest else { break };
            self.write(largest)?;
        }
        Ok(())
    }

    /// Bytes of records that wait for their row groups.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.bytes).sum()
    }

    /// Writes what waits of a partition. Where it is of too many days for one commit, it is of several.
    fn write(&mut self, number: i32) -> Result<(), ArchiveError> {
        let Some(waiting) = self.waiting.remove(&number) else { return Ok(()) };
        let mut from = 0;
        if let Some(first) = waiting.batches.first() {
            let rows = concat_batches(&first.schema(), &waiting.batches).map_err(ArchiveError::from)?;
            while from < rows.num_rows() {
                from += self.segment.write(&rows.slice(from, rows.num_rows() - from))?;
                if let Some(next) = waiting.offsets.get(from) {
                    self.reached.entry(number).or_default().next = *next;
                    self.seal()?;
                }
            }
        }
        self.reached.entry(number).or_default().next = waiting.next;
        Ok(())
    }

    /// True when what was taken should be committed.
    pub(crate) fn is_due(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= self.every) || self.segment.largest() >= self.size
    }

    /// Everything that was taken counts when this returns.
    pub(crate) fn commit(&mut self) -> Result<(), ArchiveError> {
        let numbers: Vec<i32> = self.waiting.keys().copied().collect();
        numbers.into_iter().try_for_each(|number| self.write(number))?;
        self.since = None;
        self.seal()
    }

    /// Lets the files count that are written.
    fn seal(&mut self) -> Result<(), ArchiveError> {
        let written = self.segment.finish()?;
        if written.files.is_empty() && self.reached == self.head.partitions {
            return Ok(());
        }
        crash_point("archive.written");
        let commit = Commit {
            number: self.head.number + 1,
            partitions: self.reached.clone(),
            files: written.files,
            newest: self.newest,
            records: self.head.records + written.records,
            ..self.head.clone()
        };
        match commits::add(&self.folder, &commit)? {
            Added::Ours => {}
            Added::Theirs => return Err(ArchiveError::Superseded(self.folder.clone())),
        }
        crash_point("archive.committed");
        segment::settle(&self.folder, &commit.files)?;
        self.segment = Segment::new(&self.folder, &self.root, &self.stream, commit.number + 1);
        self.head = commit;
        Ok(())
    }
}
