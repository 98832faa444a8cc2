//! Why records are not archived.

use std::path::{Path, PathBuf};

/// What keeps an archive from being written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What the machine refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// What cannot be encoded.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// A folder that is not this stream's.
    #[error("{0}")]
    Refused(String),
    /// Another daemon writes there.
    #[error("another daemon writes into {} by now; this one archives no more until it starts again", .0.display())]
    Superseded(PathBuf),
}

/// What the machine refuses of a path.
pub(super) fn failed(path: &Path) -> impl Fn(std::io::Error) -> ArchiveError + use<> {
    let path = path.to_path_buf();
    move |error| ArchiveError::Io { path: path.clone(), error }
}
