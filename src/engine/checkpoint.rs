//! Checkpoints: the state of every operator at one epoch, in a folder of its own.
//!
//! `checkpoints/<epoch>/` holds `manifest.json` and one file of framed Arrow streams for each operator. It is written
//! beside, synced, and renamed, so that a checkpoint is whole or absent; every file's CRC is in the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use crate::delta::{Clock, Offsets, Watermarks};
use crate::operator::StatePart;

/// The version of the format; a checkpoint of another one is refused.
pub const VERSION: u32 = 2;
/// How many checkpoints are kept.
const KEPT: usize = 2;

/// State of operators by fingerprint.
pub type State = BTreeMap<String, Vec<StatePart>>;

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub version: u32,
    /// The epoch that it shows.
    pub epoch: u64,
    /// The clock of that epoch.
    pub clock: Clock,
    /// The watermarks of that epoch.
    #[serde(default)]
    pub watermarks: Watermarks,
    /// The next records to read.
    pub offsets: Offsets,
    /// Plan fingerprints of the tags whose state it holds.
    pub tags: BTreeMap<String, String>,
    /// Where the state of each of them begins in history, partitions that begin at 0 left out.
    pub beginnings: BTreeMap<String, Offsets>,
    /// The files of operators: fingerprint to length and CRC-32.
    pub operators: BTreeMap<String, FileCheck>,
}

/// What a file must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheck {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its CRC-32.
    pub crc32: u32,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk says no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("{path}: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another version of tagflow wrote it.
    #[error("{path}: the checkpoint has format {found}, this tagflow reads format {VERSION}", path = path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// The newest checkpoint that is whole, if there is one, and what is wrong with newer ones.
pub type Latest = (Option<(Manifest, State)>, Vec<CheckpointError>);

/// The checkpoints of one project and profile.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path, source }
}

fn damaged(path: &Path, reason: impl ToString) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_path_buf(), reason: reason.to_string() }
}

impl Checkpoints {
    /// Below the state directory.
    pub fn new(state_dir: &Path) -> Self {
        Checkpoints { folder: state_dir.join("checkpoints") }
    }

    /// Writes one and drops those that are too old. Returns its bytes.
    pub fn write(&self, mut manifest: Manifest, state: &State) -> Result<u64, CheckpointError> {
        fs::create_dir_all(&self.folder).map_err(io(&self.folder))?;
        let unfinished = self.folder.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(io(&unfinished))?;
        }
        fs::create_dir(&unfinished).map_err(io(&unfinished))?;
        let mut total = 0;
        for (operator, parts) in state {
            let path = unfinished.join(format!("{operator}.state"));
            let bytes = encode(parts).map_err(|reason| damaged(&path, reason))?;
            let check = FileCheck { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes) };
            total += check.bytes;
            write_synced(&path, &bytes)?;
            manifest.operators.insert(operator.clone(), check);
        }
        let path = unfinished.join("manifest.json");
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| damaged(&path, error))?;
        write_synced(&path, &text)?;
        let finished = self.folder.join(format!("{:020}", manifest.epoch));
        if finished.exists() {
            fs::remove_dir_all(&finished).map_err(io(&finished))?;
        }
        fs::rename(&unfinished, &finished).map_err(io(&finished))?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io(&self.folder))?;
        for old in self.epochs()?.into_iter().rev().skip(KEPT) {
            fs::remove_dir_all(&old).map_err(io(&old))?;
        }
        Ok(total)
    }

    /// The newest one that is whole, and what is wrong with newer ones.
    pub fn latest(&self) -> Result<Latest, CheckpointError> {
        let mut skipped = Vec::new();
        for folder in self.epochs()?.into_iter().rev() {
            match read(&folder) {
                Ok(checkpoint) => return Ok((Some(checkpoint), skipped)),
                Err(error) => skipped.push(error),
            }
        }
        Ok((None, skipped))
    }

    /// Folders of finished checkpoints, oldest first.
    fn epochs(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(&self.folder)(error)),
        };
        let mut folders: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok()))
            .collect();
        folders.sort();
        Ok(folders)
    }
}

fn read(folder: &Path) -> Result<(Manifest, State), CheckpointError> {
    let path = folder.join("manifest.json");
    let text = fs::read(&path).map_err(io(&path))?;
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(&text).map_err(|error| damaged(&path, error))?;
    if version != VERSION {
        return Err(CheckpointError::Version { path, found: version });
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(&path, error))?;
    let mut state = State::new();
    for (operator, check) in &manifest.operators {
        if !operator.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged(&path, format!("`{operator}` names no operator")));
        }
        let path = folder.join(format!("{operator}.state"));
        let bytes = fs::read(&path).map_err(io(&path))?;
        let found = FileCheck { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes) };
        if found != *check {
            return Err(damaged(&path, "its checksum differs from the manifest's"));
        }
        state.insert(operator.clone(), decode(&bytes).map_err(|reason| damaged(&path, reason))?);
    }
    Ok((manifest, state))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = fs::File::create(path).map_err(io(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(path))
}

/// For each part the length of its name, the name, the length of its stream, and the stream.
fn encode(parts: &[StatePart]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for part in parts {
        let mut stream = Vec::new();
        let schema = part.batch.schema();
        let mut writer = StreamWriter::try_new(&mut stream, &schema).map_err(|error| error.to_string())?;
        writer.write(&part.batch).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
        drop(writer);
        bytes.extend((part.name.len() as u64).to_le_bytes());
        bytes.extend(part.name.as_bytes());
        bytes.extend((stream.len() as u64).to_le_bytes());
        bytes.extend(stream);
    }
    Ok(bytes)
}

fn decode(mut bytes: &[u8]) -> Result<Vec<StatePart>, String> {
    fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or("it ends too early")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|error| error.to_string())?;
        let (taken, rest) = rest.split_at_checked(length).ok_or("it ends too early")?;
        *bytes = rest;
        Ok(taken)
    }
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let name = String::from_utf8(take(&mut bytes)?.to_vec()).map_err(|error| error.to_string())?;
        let stream = take(&mut bytes)?;
        let mut reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|error| error.to_string())?;
        let batch = reader.next().ok_or("a part has no rows")?.map_err(|error| error.to_string())?;
        parts.push(StatePart { name, batch });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn manifest(epoch: u64) -> Manifest {
        Manifest {
            version: VERSION,
            epoch,
            clock: 7,
            watermarks: Watermarks::from([("orders".to_string(), 9)]),
            offsets: Offsets::default(),
            tags: BTreeMap::from([("spend".to_string(), "f00d".to_string())]),
            beginnings: BTreeMap::new(),
            operators: BTreeMap::new(),
        }
    }

    fn state() -> State {
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, true)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]).unwrap();
        let parts = ["keys", "member x"].map(|name| StatePart { name: name.to_string(), batch: batch.clone() });
        State::from([("abc123".to_string(), parts.to_vec())])
    }

    #[test]
    fn newest_checkpoint_is_read_back_and_old_ones_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        for epoch in [3, 20, 100] {
            checkpoints.write(manifest(epoch), &state()).unwrap();
        }
        let (found, skipped) = checkpoints.latest().unwrap();
        let (found, loaded) = found.unwrap();
        assert_eq!((found.epoch, skipped.len(), loaded["abc123"].len()), (100, 0, 2));
        assert_eq!(loaded["abc123"][1].batch, state()["abc123"][1].batch);
        assert_eq!(fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), KEPT);
    }

    #[test]
    fn damaged_checkpoint_is_skipped_for_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        checkpoints.write(manifest(1), &state()).unwrap();
        checkpoints.write(manifest(2), &state()).unwrap();
        let file = folder.path().join("checkpoints").join(format!("{:020}", 2)).join("abc123.state");
        let mut bytes = fs::read(&file).unwrap();
        bytes[40] ^= 1;
        fs::write(&file, bytes).unwrap();
        let (found, skipped) = checkpoints.latest().unwrap();
        assert_eq!(found.unwrap().0.epoch, 1);
        assert!(skipped[0].to_string().ends_with("its checksum differs from the manifest's"), "{}", skipped[0]);
    }

    #[test]
    fn checkpoint_of_another_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        checkpoints.write(Manifest { version: 9, ..manifest(1) }, &state()).unwrap();
        let (found, skipped) = checkpoints.latest().unwrap();
        assert!(found.is_none());
        assert!(skipped[0].to_string().ends_with("has format 9, this tagflow reads format 2"), "{}", skipped[0]);
    }
}
