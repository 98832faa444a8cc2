//! A manifest: what a checkpoint says of itself, and the files that make it.
//!
//! One line with the format, the length and the CRC-32 of what follows, then JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::delta::{Clock, Offsets, Watermarks};
use crate::sink::versions::version_name;
use crate::source::KnownTopic;

/// The version of the format; a checkpoint of another one is refused.
pub const VERSION: u32 = 3;
/// What a manifest begins with.
const TITLE: &str = "tagflow-checkpoint";
/// A longer one is damage.
pub(super) const LONGEST: u64 = 256 << 20;

/// Where the dataflow stood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch.
    pub epoch: u64,
    /// The clock of that epoch.
    pub clock: Clock,
    /// The watermarks of that epoch.
    pub watermarks: Watermarks,
    /// The next records to read.
    pub offsets: Offsets,
    /// The tags whose state it is, and versions that are kept beside them, by their names.
    pub tags: BTreeMap<String, TagVersion>,
    /// The topics that the offsets mean, by stream.
    #[serde(default)]
    pub topics: BTreeMap<String, KnownTopic>,
    /// The state directory beside which it was taken: the logs of tables outside are there.
    #[serde(default)]
    pub state_dir: String,
}

impl Position {
    /// What is said of a version of a tag, whether it was live by then or kept beside the one that was.
    pub fn version(&self, tag: &str, version: u64) -> Option<&TagVersion> {
        let named = |name: &str| self.tags.get(name).filter(|known| known.version == version);
        named(tag).or_else(|| named(&version_name(tag, version)))
    }
}

/// Which version of a tag it is whose state a checkpoint holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagVersion {
    /// The fingerprint of its plan.
    pub plan: String,
    /// How often its table was filled: a table that was filled again goes with other state.
    pub version: u64,
    /// Where its state begins in history, partitions that begin at 0 left out.
    pub beginnings: Offsets,
}

/// A checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where the dataflow stood.
    pub position: Position,
    /// When it was written, milliseconds since the Unix epoch.
    pub written_at: i64,
    /// The store that its tags are in; empty where that is not known.
    #[serde(default)]
    pub store: String,
    /// The state of operators by fingerprint.
    pub operators: BTreeMap<String, OperatorFiles>,
}

/// The files of one operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorFiles {
    /// The names of its tables.
    pub tables: BTreeSet<String>,
    /// All of its state, then what has changed since, oldest first.
    pub runs: Vec<Run>,
}

/// What was written of an operator at one time, or put together out of several such.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its files; no two speak of one key.
    pub segments: Vec<SegmentFile>,
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFile {
    /// Its name among the segments.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its CRC-32.
    pub crc32: u32,
}

impl Run {
    /// The bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).fold(0, u64::saturating_add)
    }
}

impl Manifest {
    /// All files that it needs.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentFile> {
        self.operators.values().flat_map(|files| &files.runs).flat_map(|run| &run.segments)
    }

    /// The bytes of all files that it needs.
    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.bytes).fold(0, u64::saturating_add)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let body = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        Ok(Manifest::seal(&body))
    }

    /// The line with the length and checksum of a body, and the body.
    pub(super) fn seal(body: &[u8]) -> Vec<u8> {
        let mut bytes = format!("{TITLE} {VERSION} {} {:08x}\n", body.len(), crc32fast::hash(body)).into_bytes();
        bytes.extend(body);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, Unreadable> {
        let damaged = |reason: &str| Unreadable::Damaged(reason.to_string());
        let line =
            bytes.iter().take(100).position(|byte| *byte == b'\n').ok_or_else(|| damaged("it is no manifest"))?;
        let (line, body) = (String::from_utf8_lossy(&bytes[..line]), &bytes[line + 1..]);
        let words: Vec<&str> = line.split(' ').collect();
        let [TITLE, version, length, crc32] = words[..] else { return Err(damaged("it is no manifest")) };
        let version = version.parse().map_err(|_| damaged("it is no manifest"))?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        if length.parse() != Ok(body.len()) {
            return Err(damaged("it has another length than it says"));
        }
        if u32::from_str_radix(crc32, 16) != Ok(crc32fast::hash(body)) {
            return Err(damaged("its checksum differs from what it says"));
        }
        let manifest: Manifest = serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if let Some(segment) = manifest.segments().find(|segment| !is_name(&segment.name)) {
            return Err(damaged(&format!("`{}` names no file of a checkpoint", segment.name)));
        }
        Ok(manifest)
    }
}

/// Why bytes are no manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged(String),
    Version(u32),
}
