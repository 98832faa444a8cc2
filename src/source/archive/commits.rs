//! The commits of an archive: numbered files in `_archive`, a folder that readers of warehouses overlook, of which the last
//! one says what the archive holds.
//!
//! A commit is a line: the CRC of what follows, and JSON. It is whole or not there, and never changes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{ArchiveError, failed};
use crate::catalog::Stream;

/// The folder of commits in an archive's.
pub(crate) const FOLDER: &str = "_archive";
/// The version of the format; another one is refused.
const FORMAT: u32 = 1;
/// Gaps of a partition that are told apart.
const MOST_GAPS: usize = 100;
/// Looks for the last commit, while others take its place.
const LOOKS: usize = 16;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(super) format: u32,
    /// Counts the commits.
    pub(crate) number: u64,
    /// The process that made it.
    pub(super) writer: String,
    /// The stream that its files are named after.
    pub(super) stream: String,
    pub(super) topic: String,
    /// Which topic of that name; `None` where the cluster does not say.
    pub(super) topic_id: Option<String>,
    /// The zone of its wall times.
    pub(super) timezone: String,
    pub(crate) partitions: BTreeMap<i32, Archived>,
    /// The files that it adds, below the archive's folder.
    pub(crate) files: Vec<String>,
    /// Broker time of the newest record, milliseconds since the Unix epoch.
    pub(crate) newest: Option<i64>,
    /// Records in all.
    pub(crate) records: u64,
}

/// What an archive has of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Archived {
    /// The first offset that it knows nothing of.
    pub(crate) next: i64,
    /// Offsets before it that were gone when they were to be archived.
    pub(crate) gaps: Vec<Range<i64>>,
}

impl Archived {
    /// Goes on behind what is lost. Of many gaps the oldest are taken for one, with what lies between.
    pub(super) fn lose(&mut self, lost: Range<i64>) {
        self.next = lost.end;
        self.gaps.push(lost);
        if self.gaps.len() > MOST_GAPS {
            let oldest = self.gaps.remove(0);
            self.gaps[0].start = oldest.start;
        }
    }
}

impl Commit {
    /// What an archive says before it has anything.
    pub(super) fn first(stream: &Stream) -> Self {
        Commit {
            format: FORMAT,
            number: 0,
            writer: String::new(),
            stream: stream.name.clone(),
            topic: stream.topic.clone(),
            topic_id: None,
            timezone: stream.timezone.name().to_string(),
            partitions: BTreeMap::new(),
            files: Vec::new(),
            newest: None,
            records: 0,
        }
    }

    /// What keeps its files from being the stream's, whose topic has this id where that is known.
    pub(crate) fn belongs(&self, stream: &Stream, id: Option<&str>) -> Result<(), String> {
        let is_other = |known: &Option<String>| known.is_some() && id.is_some() && known.as_deref() != id;
        let (topic, is_mine) = (&self.topic, "its files are another topic's, whose offsets mean other records");
        let advice = "move the folder away, or name another one";
        if self.topic != stream.topic {
            return Err(format!(
                "it is the archive of topic {topic:?}, and not of {:?}; {is_mine}: {advice}",
                stream.topic
            ));
        }
        if is_other(&self.topic_id) {
            return Err(format!(
                "topic {topic:?} was deleted and made again since it was archived; {is_mine}: {advice}"
            ));
        }
        if self.timezone != stream.timezone.name() && !self.partitions.is_empty() {
            let (theirs, ours) = (&self.timezone, stream.timezone.name());
            return Err(format!("it was written in time zone {theirs}, and the project's is {ours}: {advice}"));
        }
        Ok(())
    }

    fn to_line(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_string(self)?;
        Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
    }

    fn of_line(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        let (crc, json) = text.trim_end().split_once(' ').ok_or("it is no commit of an archive")?;
        if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(json.as_bytes())) {
            return Err("it is damaged".to_string());
        }
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let parsed: Result<Versioned, _> = serde_json::from_str(json);
        match parsed.map_err(|error| error.to_string())?.format {
            FORMAT => serde_json::from_str(json).map_err(|error| error.to_string()),
            other => Err(format!("it has format {other}; this tagflow reads format {FORMAT}")),
        }
    }
}

/// The last commit of an archive's folder; `None` where there is none.
pub(crate) fn latest(folder: &Path) -> io::Result<Option<Commit>> {
    let commits = folder.join(FOLDER);
    for _ in 0..LOOKS {
        let Some(last) = numbers(&commits)?.into_iter().max() else { return Ok(None) };
        let path = place(&commits, last);
        match fs::read(&path) {
            Ok(line) => {
                let told = |reason| io::Error::new(ErrorKind::InvalidData, format!("{}: {reason}", path.display()));
                return Commit::of_line(&line).map(Some).map_err(told);
            }
            // A later one has taken its place.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{} changes too fast", commits.display())))
}

/// Whose a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    Ours,
    /// Another writer has come before.
    Theirs,
}

/// Adds a commit; its number must be free, and the highest.
pub(super) fn add(folder: &Path, commit: &Commit) -> Result<Added, ArchiveError> {
    let commits = folder.join(FOLDER);
    let beside = commits.join(format!(".{}.unfinished", commit.writer));
    let path = place(&commits, commit.number);
    let line = commit.to_line().map_err(failed(&path))?;
    let written = File::create(&beside).and_then(|mut file| file.write_all(&line).and_then(|()| file.sync_all()));
    written.map_err(failed(&beside))?;
    let linked = fs::hard_link(&beside, &path);
    fs::remove_file(&beside).map_err(failed(&beside))?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Added::Theirs),
        linked => linked.map_err(failed(&path))?,
    }
    sync_folder(&commits)?;
    let others = numbers(&commits).map_err(failed(&commits))?;
    // The number was free since those before the last ones go.
    if others.iter().any(|other| *other > commit.number) {
        fs::remove_file(&path).map_err(failed(&path))?;
        return Ok(Added::Theirs);
    }
    for old in others.into_iter().filter(|other| other + 1 < commit.number) {
        let path = place(&commits, old);
        fs::remove_file(&path).map_err(failed(&path))?;
    }
    Ok(Added::Ours)
}

/// What was done to names in a folder stays done.
pub(super) fn sync_folder(folder: &Path) -> Result<(), ArchiveError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

fn place(commits: &Path, number: u64) -> PathBuf {
    commits.join(format!("{number:020}.json"))
}

fn numbers(commits: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(commits) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok()));
    }
    Ok(numbers)
}
