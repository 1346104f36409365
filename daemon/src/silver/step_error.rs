//! How a step of a worker fails: one kind for each thing that the worker does differently.

use crate::delta::CommitError;
use crate::plugin::{TransformError, Tripped};

/// Why a step has written nothing.
///
/// | kind | the worker |
/// |---|---|
/// | `RolledBack` | goes back to the version before, and rebuilds what the new one wrote |
/// | `Tripped` | pauses the table until the backoff is over, or another plugin version is there |
/// | `Fenced`, `Conflict`, `MetadataChanged`, `ChunkNotInBronze` | opens the table again after a pause, behind the other writer: no error |
/// | `Panicked`, `Failed` | reports the error, and opens the table again after a pause |
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    RolledBack(#[from] RolledBack),
    #[error(transparent)]
    Tripped(#[from] Tripped),
    #[error("another silverd has committed these offsets in version {version}")]
    Fenced { version: u64 },
    #[error("another writer has added rows in version {version}")]
    Conflict { version: u64 },
    #[error("another engine has changed the table's metadata or protocol in version {version}")]
    MetadataChanged { version: u64 },
    /// Duplicates were looked for as if the rows of this chunk were in the table, and they are not.
    #[error("the chunk is not in bronze: another silverd writes its partitions")]
    ChunkNotInBronze,
    #[error("the worker panicked; please report this")]
    Panicked,
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl StepError {
    /// Whether another writer was first.
    pub(super) fn is_lost_race(&self) -> bool {
        match self {
            Self::Fenced { .. } | Self::Conflict { .. } | Self::MetadataChanged { .. } | Self::ChunkNotInBronze => true,
            Self::RolledBack(_) | Self::Tripped(_) | Self::Panicked | Self::Failed(_) => false,
        }
    }
}

/// The new version fails where the baseline does not: nothing of the chunk was committed.
#[derive(Debug, thiserror::Error)]
#[error("the new plugin version is rolled back: {reason}")]
pub(super) struct RolledBack {
    pub(super) reason: String,
}

impl From<CommitError> for StepError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced { version, .. } => Self::Fenced { version },
            CommitError::Conflict(version) => Self::Conflict { version },
            CommitError::MetadataChanged(version) => Self::MetadataChanged { version },
            failure @ CommitError::Unknown(_) => Self::Failed(failure.into()),
        }
    }
}

impl From<TransformError> for StepError {
    fn from(error: TransformError) -> Self {
        match error {
            TransformError::Tripped(tripped) => Self::Tripped(tripped),
            TransformError::Failed(error) => Self::Failed(error),
        }
    }
}
