//! Why a query has no result.

use std::fmt;

use anyhow::anyhow;
use datafusion::error::DataFusionError;

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// Not a fault: the table is created with its first rows.
    #[error("nothing was written yet to {0}")]
    NotWritten(String),
    #[error("{0}")]
    Limit(SqlLimit),
    /// The process that ran the query ended, and not because of a limit of silverd's.
    #[error("{0}")]
    Ended(String),
    /// Its text has the causes.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// A limit in `[limits]` that a query passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqlLimit {
    Memory(usize),
    Seconds(u64),
}

impl fmt::Display for SqlLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(
                f,
                "the query needs more memory than sql_memory_max = \"{}MiB\" in [limits]; let it read fewer days or \
                 columns, or raise the limit (for one query: --memory-max)",
                bytes >> 20
            ),
            Self::Seconds(seconds) => write!(
                f,
                "the query takes longer than sql_seconds_max = {seconds} in [limits]; let it read fewer days or columns, \
                 or raise the limit (for one query: --seconds-max)"
            ),
        }
    }
}

impl QueryError {
    /// Whether the query ended the process that ran it.
    pub(crate) fn ended_its_process(&self) -> bool {
        matches!(self, Self::Limit(_) | Self::Ended(_))
    }
}

impl From<anyhow::Error> for QueryError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        if let DataFusionError::ResourcesExhausted(_) = error.find_root() {
            return Self::Limit(SqlLimit::Memory(0));
        }
        // DataFusion may append its own backtrace to the message; the root is what an author can mend.
        Self::Failed(anyhow!(error.find_root().strip_backtrace()))
    }
}
