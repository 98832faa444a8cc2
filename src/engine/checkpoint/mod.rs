//! Checkpoints: the state of every operator at one epoch, as files that are written once.
//!
//! A *segment* holds rows of an operator's tables; a *manifest* lists, for each operator, the segments that make its
//! state: all of it, then what has changed since, so that a checkpoint costs what changed. Segments are shared between
//! manifests. A manifest is written after its segments, so a checkpoint is whole or absent; it has the length and CRC of
//! each segment and of itself. What no manifest speaks of is garbage of a writer that crashed, and is collected at the
//! next start.

mod fold;
mod manifest;
mod merge;
mod objects;
mod pieces;
mod place;
mod segment;
#[cfg(test)]
mod tests;
mod thread;
#[cfg(any(test, feature = "mutations"))]
pub(crate) mod unsealed;
mod writer;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use self::manifest::{LONGEST, Unreadable};
pub use self::manifest::{Manifest, OperatorFiles, Position, Run, SegmentFile, TagVersion, VERSION};
use self::objects::Objects;
pub use self::pieces::{Piece, Pieces};
use self::place::{Folder, Place};
pub use self::thread::{CheckpointThread, Saved};
pub use self::writer::{Taken, Writer};
use crate::config::{CheckpointPlace, EngineConfig};
use crate::engine::stop::Stop;
use crate::operator::StatePart;

/// Folders of the place.
const MANIFESTS: &str = "manifests";
const SEGMENTS: &str = "segments";
/// The file in which the checkpoints before format 3, each in a folder of its own, said what they are.
const OLD_MANIFEST: &str = "manifest.json";

/// State of operators by fingerprint.
pub type State = BTreeMap<String, Vec<StatePart>>;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk or the object store says no; it may say yes later.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("{file}: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// It is of tags in another store.
    #[error(
        "{file}: the checkpoint belongs to the tags of another database: give each deployment a place of its own, or remove \
         the checkpoints of one that is no more"
    )]
    Foreign {
        /// The manifest.
        file: String,
        /// Its epoch.
        epoch: u64,
    },
    /// Another version of tagflow wrote it.
    #[error("{file}: the checkpoint has format {found}, this tagflow reads format {VERSION}")]
    Version {
        /// The manifest.
        file: String,
        /// Its version.
        found: u32,
    },
    /// The writer itself is wrong.
    #[error("this is a bug of tagflow, its log has the place: the thread that writes checkpoints panicked")]
    Panicked,
}

impl CheckpointError {
    /// True where nothing is wrong but that the place cannot be reached now.
    pub fn is_passing(&self) -> bool {
        let is_away = |kind| matches!(kind, ErrorKind::NotConnected | ErrorKind::TimedOut);
        matches!(self, CheckpointError::Io { source, .. } if is_away(source.kind()))
    }
}

/// The checkpoints of one project and profile.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    place: Arc<dyn Place>,
    /// The store whose tags they are of; empty for those of any.
    store: String,
    /// Nobody else has reason to keep any there.
    is_own: bool,
}

impl Checkpoints {
    /// Below a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Checkpoints { is_own: true, ..Checkpoints::at(Arc::new(Folder(state_dir.join("checkpoints")))) }
    }

    /// Where a project keeps them. Once `stop` is over, a place that does not answer is not waited for.
    pub fn open(engine: &EngineConfig, stop: &Arc<Stop>) -> Result<Self, CheckpointError> {
        let place: Arc<dyn Place> = match &engine.checkpoints {
            CheckpointPlace::StateDir => return Ok(Checkpoints::new(&engine.state_dir)),
            CheckpointPlace::Folder(folder) => Arc::new(Folder(folder.clone())),
            CheckpointPlace::S3(place) => Arc::new(Objects::s3(place, Arc::clone(stop))?),
        };
        Ok(Checkpoints::at(place))
    }

    fn at(place: Arc<dyn Place>) -> Self {
        Checkpoints { place, store: String::new(), is_own: false }
    }

    /// Those of tags in this store alone: what another one's tables show says nothing of this one's.
    pub fn of_store(self, store: &str) -> Self {
        Checkpoints { store: store.to_string(), ..self }
    }

    /// The epochs of all checkpoints, newest first, those that cannot be read included.
    pub fn epochs(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut epochs: Vec<u64> = self.place.list(MANIFESTS)?.iter().filter_map(|name| epoch_of(name)).collect();
        epochs.sort_unstable_by_key(|epoch| Reverse(*epoch));
        Ok(epochs)
    }

    /// All manifests, newest first, and why some cannot be read. An error where the place does not answer.
    pub fn manifests(&self) -> Result<Vec<Result<Manifest, CheckpointError>>, CheckpointError> {
        let epochs = self.epochs()?;
        let names: Vec<String> = epochs.iter().map(|epoch| manifest_name(*epoch)).collect();
        let files = self.place.get_all(&names, LONGEST)?;
        Ok(epochs.into_iter().zip(files).map(|(epoch, file)| self.decode(epoch, &file?)).collect())
    }

    /// The manifest of an epoch.
    pub fn manifest(&self, epoch: u64) -> Result<Manifest, CheckpointError> {
        self.decode(epoch, &self.place.get(&manifest_name(epoch), LONGEST)?)
    }

    fn decode(&self, epoch: u64, bytes: &[u8]) -> Result<Manifest, CheckpointError> {
        let file = || self.place.describe(&manifest_name(epoch));
        let manifest = Manifest::decode(bytes).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(reason) => CheckpointError::Damaged { file: file(), reason },
            Unreadable::Version(found) => CheckpointError::Version { file: file(), found },
        })?;
        if manifest.position.epoch != epoch {
            let reason = format!("it is the manifest of epoch {}", manifest.position.epoch);
            return Err(CheckpointError::Damaged { file: file(), reason });
        }
        let stores = [&self.store, &manifest.store];
        if stores[0] != stores[1] && stores.iter().all(|store| !store.is_empty()) {
            return Err(CheckpointError::Foreign { file: file(), epoch });
        }
        Ok(manifest)
    }

    /// Checkpoints of formats that are no longer read, as errors that name them.
    pub fn of_old_formats(&self) -> Result<Vec<CheckpointError>, CheckpointError> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u32,
        }
        let mut found = Vec::new();
        for folder in self.place.list("")?.iter().filter(|name| name.parse::<u64>().is_ok()) {
            let name = format!("{folder}/{OLD_MANIFEST}");
            let Ok(text) = self.place.get(&name, LONGEST) else { continue };
            let Ok(Versioned { version }) = serde_json::from_slice(&text) else { continue };
            found.push(CheckpointError::Version { file: self.place.describe(&name), found: version });
        }
        Ok(found)
    }

    fn read_segment(&self, segment: &SegmentFile) -> Result<Vec<StatePart>, CheckpointError> {
        let bytes = self.place.get(&segment_name(&segment.name), segment.bytes)?;
        if bytes.len() as u64 != segment.bytes {
            return Err(self.damaged(segment, "it is shorter than it should be"));
        }
        if crc32fast::hash(&bytes) != segment.crc32 {
            return Err(self.damaged(segment, "its checksum differs from the manifest's"));
        }
        segment::decode(&bytes).map_err(|reason| self.damaged(segment, reason))
    }

    fn damaged(&self, segment: &SegmentFile, reason: impl ToString) -> CheckpointError {
        let file = self.place.describe(&segment_name(&segment.name));
        CheckpointError::Damaged { file, reason: reason.to_string() }
    }

    /// Removes the manifests before an epoch, those that cannot be read included.
    fn drop_before(&self, epoch: u64) -> Result<(), CheckpointError> {
        let older = self.epochs()?.into_iter().filter(|older| *older < epoch);
        self.place.remove(&older.map(manifest_name).collect::<Vec<_>>())
    }

    /// The epochs of checkpoints that are newer than that of an epoch, those that cannot be read included.
    pub fn newer_than(&self, epoch: u64) -> Result<Vec<u64>, CheckpointError> {
        Ok(self.epochs()?.into_iter().rev().filter(|newer| *newer > epoch).collect())
    }

    /// Makes the checkpoint of an epoch the newest by dropping the newer ones, the newest first.
    pub fn go_back_to(&self, epoch: u64) -> Result<(), CheckpointError> {
        self.manifest(epoch)?;
        for newer in self.newer_than(epoch)?.into_iter().rev() {
            self.place.remove(&[manifest_name(newer)])?;
        }
        Ok(())
    }

    /// Removes what none of these manifests, which are all that there are, speaks of: a writer has crashed.
    fn collect_garbage(&self, manifests: &[Manifest]) -> Result<usize, CheckpointError> {
        let needed: BTreeSet<&str> =
            manifests.iter().flat_map(Manifest::segments).map(|segment| segment.name.as_str()).collect();
        let segments = self.place.list(SEGMENTS)?.into_iter().filter(|name| !needed.contains(name.as_str()));
        let mut garbage: Vec<String> = segments.map(|name| segment_name(&name)).collect();
        let manifests = self.place.list(MANIFESTS)?.into_iter().filter(|name| epoch_of(name).is_none());
        garbage.extend(manifests.map(|name| format!("{MANIFESTS}/{name}")));
        self.place.remove(&garbage)?;
        Ok(garbage.len())
    }
}

fn manifest_name(epoch: u64) -> String {
    format!("{MANIFESTS}/{epoch:020}")
}

fn epoch_of(name: &str) -> Option<u64> {
    Some(name).filter(|name| name.len() == 20)?.parse().ok()
}

fn segment_name(name: &str) -> String {
    format!("{SEGMENTS}/{name}")
}
