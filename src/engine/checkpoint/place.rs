//! Where checkpoints lie: files by name, written once, whole or absent.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;

use super::CheckpointError;
use crate::crash_point::crash_point;

/// What a name ends with until the file is whole.
const UNFINISHED: &str = ".unfinished";

/// A place for files. Names are like `segments/NAME`.
pub trait Place: std::fmt::Debug + Send + Sync {
    /// For messages: the place, or a file in it.
    fn describe(&self, name: &str) -> String;

    /// Writes a file, in place of one of that name. It is there for good when this returns.
    fn put(&self, name: &str, bytes: &Bytes) -> Result<(), CheckpointError>;

    /// Reads a file of at most so many bytes; a longer one is damage, as is one that is missing.
    fn get(&self, name: &str, most: u64) -> Result<Vec<u8>, CheckpointError>;

    /// Reads files, several at a time where that is faster: each, or what is wrong with it. An error where the place does
    /// not answer.
    fn get_all(&self, names: &[String], most: u64) -> Result<Vec<Result<Vec<u8>, CheckpointError>>, CheckpointError> {
        let each = names.iter().map(|name| self.get(name, most));
        each.map(
            |outcome| if matches!(outcome, Err(CheckpointError::Io { .. })) { outcome.map(Ok) } else { Ok(outcome) },
        )
        .collect()
    }

    /// The files of a folder, what crashed writers have left included; none where there is no such folder.
    fn list(&self, folder: &str) -> Result<Vec<String>, CheckpointError>;

    /// Removes files, those that are there.
    fn remove(&self, names: &[String]) -> Result<(), CheckpointError>;
}

/// A folder of this machine.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    fn failed(&self, name: &str) -> impl FnOnce(std::io::Error) -> CheckpointError {
        let file = self.describe(name);
        move |source| CheckpointError::Io { file, source }
    }

    fn damaged(&self, name: &str, reason: &str) -> CheckpointError {
        CheckpointError::Damaged { file: self.describe(name), reason: reason.to_string() }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.0.join(name);
        let folder = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(folder)?;
        let unfinished = self.0.join(format!("{name}{UNFINISHED}"));
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        crash_point("file.written");
        file.sync_all()?;
        crash_point("file.synced");
        fs::rename(&unfinished, &path)?;
        crash_point("file.renamed");
        // The name must be on the disk too, before a manifest speaks of it.
        File::open(folder)?.sync_all()
    }
}

impl Place for Folder {
    fn describe(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn put(&self, name: &str, bytes: &Bytes) -> Result<(), CheckpointError> {
        self.write(name, bytes).map_err(self.failed(name))
    }

    fn get(&self, name: &str, most: u64) -> Result<Vec<u8>, CheckpointError> {
        let file = match File::open(self.0.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.damaged(name, "it is missing")),
            Err(error) => return Err(self.failed(name)(error)),
        };
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(self.failed(name))?;
        if bytes.len() as u64 > most {
            return Err(self.damaged(name, "it is longer than it should be"));
        }
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, CheckpointError> {
        let entries = match fs::read_dir(self.0.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(folder)(error)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<std::io::Result<_>>().map_err(self.failed(folder))
    }

    fn remove(&self, names: &[String]) -> Result<(), CheckpointError> {
        for name in names {
            match fs::remove_file(self.0.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.failed(name)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}
