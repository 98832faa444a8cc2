//! Why the daemon ends.

use std::path::PathBuf;

use crate::engine::checkpoint::CheckpointError;
use crate::engine::memory::TooSmall;
use crate::engine::store::StoreError;
use crate::operator::OperatorError;
use crate::sink::SinkError;
use crate::source::SourceError;

/// Why the daemon ends without being told to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The store says no, for good.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process uses the state directory.
    #[error("{path} is locked: {owner} uses this state directory; `tagflow run --standby` waits for it", path = path.display())]
    StateInUse {
        /// The lock.
        path: PathBuf,
        /// Who holds it.
        owner: String,
    },
    /// A source cannot even start.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A folder or thread that the machine refuses.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The memory limit leaves no room to work in.
    #[error(transparent)]
    Memory(#[from] TooSmall),
    /// A run up to the end of the streams left tags out.
    #[error("{0}")]
    Incomplete(String),
    /// State does not fit its operators.
    #[error("{0}")]
    State(#[from] OperatorError),
}

impl DaemonError {
    /// True when another daemon has the store or the state directory.
    pub fn is_other_daemon(&self) -> bool {
        let of_store = |error: &SinkError| matches!(error, SinkError::Held { .. } | SinkError::Fenced { .. });
        match self {
            DaemonError::StateInUse { .. } => true,
            DaemonError::Store(StoreError::Sink(error)) => of_store(error),
            _ => false,
        }
    }
}

impl From<SinkError> for DaemonError {
    fn from(error: SinkError) -> Self {
        DaemonError::Store(error.into())
    }
}
