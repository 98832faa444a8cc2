//! Whose an archive is: the commit by which a writer begins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::commits::{self, Added, Commit, latest};
use super::error::{ArchiveError, failed};
use super::segment;
use crate::catalog::Stream;

/// How often the first commit is tried again when another one came before it.
const CLAIMS: usize = 8;

/// A process that writes archives.
#[derive(Debug)]
pub(crate) struct Writer {
    name: String,
    /// The folders that it has written into.
    claimed: Mutex<BTreeSet<PathBuf>>,
}

impl Writer {
    /// The name is that of no other process.
    pub(crate) fn new(name: String) -> Self {
        Writer { name, claimed: Mutex::default() }
    }

    /// A commit that takes over what there is, by which those of other writers fail. Once this one has begun, another one that comes
    /// after it has replaced it: whoever took the archive back after every fault would take it from the one that is to write.
    pub(super) fn claim(&self, folder: &Path, stream: &Stream) -> Result<Commit, ArchiveError> {
        let has_claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
        for _ in 0..CLAIMS {
            let mut head = match latest(folder).map_err(failed(folder))? {
                Some(head) if has_claimed && head.writer != self.name => break,
                Some(head) => head,
                None if segment::holds_files(folder, &stream.name)? => {
                    return Err(ArchiveError::Refused(format!(
                        "{} holds files of an archive, and {} beside them is gone, which says where they end: bring it back, or move \
                         the files away",
                        folder.display(),
                        commits::FOLDER
                    )));
                }
                None => Commit::first(stream),
            };
            head.belongs(stream, None).map_err(ArchiveError::Refused)?;
            head.number += 1;
            head.writer.clone_from(&self.name);
            match commits::add(folder, &head)? {
                Added::Ours => {
                    self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_path_buf());
                    return Ok(head);
                }
                Added::Theirs => {
                    warn!(folder = %folder.display(), "another daemon has written into the archive meanwhile")
                }
            }
        }
        Err(ArchiveError::Superseded(folder.to_path_buf()))
    }
}
