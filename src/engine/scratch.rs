//! Memory and what does not fit into it: how much of `memory_limit` is for what, and the files of state that is out.

use std::fs::{File, OpenOptions};
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::operator::cold::{Scratch, ScratchFile};
use crate::operator::graph::Room;

/// The folder of the files, below the state directory.
const FOLDER: &str = "scratch";

/// How the memory of the process is divided. What it does not speak of, readers' queues above all, has bounds of its own.
#[derive(Debug, Clone)]
pub struct MemoryPlan {
    limit: usize,
    scratch: Arc<dyn Scratch>,
}

impl MemoryPlan {
    /// Within `limit` bytes; what does not fit goes below the state directory.
    pub fn new(limit: u64, state_dir: &Path) -> Self {
        let scratch = Arc::new(Folder { path: state_dir.join(FOLDER), files: AtomicU64::new(0) });
        MemoryPlan { limit: usize::try_from(limit).unwrap_or(usize::MAX), scratch }
    }

    /// The room of the running tags' state, smaller while others are filled beside them. A checkpoint takes as much again
    /// while it is written.
    pub fn of_running(&self, is_filling: bool) -> Room {
        let bytes = if is_filling { self.limit / 6 } else { self.limit / 3 };
        Room { scratch: Arc::clone(&self.scratch), bytes, is_urgent: false }
    }

    /// The room of tags that are being filled. There are no checkpoints of them.
    pub fn of_filling(&self) -> Room {
        Room { scratch: Arc::clone(&self.scratch), bytes: self.limit / 6, is_urgent: true }
    }

    /// Bytes of rows that may wait for the operators, and of those that may wait for the store.
    pub fn pending(&self) -> usize {
        self.limit / 8
    }
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
