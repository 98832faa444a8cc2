//! The files of state that is out of memory.

use std::fs::{File, OpenOptions};
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::operator::cold::{Scratch, ScratchFile};

/// The folder of the files, below the state directory.
const FOLDER: &str = "scratch";

/// Files below a state directory.
pub fn below(state_dir: &Path) -> Arc<dyn Scratch> {
    Arc::new(Folder { path: state_dir.join(FOLDER), files: AtomicU64::new(0) })
}

/// Files that are gone from the folder as soon as they are there: they end with whoever holds them.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    files: AtomicU64,
}

impl Scratch for Folder {
    fn file(&self) -> Result<Arc<dyn ScratchFile>> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{}-{number}", std::process::id()));
        let named = |error: Error| Error::new(error.kind(), format!("{}: {error}", path.display()));
        std::fs::create_dir_all(&self.path).map_err(named)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).map_err(named)?;
        std::fs::remove_file(&path).map_err(named)?;
        Ok(Arc::new(Unlinked(file)))
    }
}

#[derive(Debug)]
struct Unlinked(File);

impl ScratchFile for Unlinked {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, room: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(room, offset)
    }
}
