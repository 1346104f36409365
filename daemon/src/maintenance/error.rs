//! Why maintenance of a table ended early.

/// Why maintenance of a table ended early. What was not committed by then leaves no trace in the table.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    #[error("silverd is shutting down")]
    Stopped,
    /// The disk is too full to compact files. Old files are removed nevertheless.
    #[error(
        "only {} are free on the disk of {folder}; [maintenance] free_bytes_min requires {}",
        mib(*free_bytes),
        mib(*required_bytes)
    )]
    DiskSpaceLow { folder: String, free_bytes: u64, required_bytes: u64 },
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl MaintenanceError {
    /// Adds context to a failure; the other kinds stay as they are.
    pub(super) fn context(self, context: String) -> Self {
        match self {
            Self::Failed(failure) => Self::Failed(failure.context(context)),
            other => other,
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
