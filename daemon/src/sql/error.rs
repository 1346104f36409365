//! Why a query has no result.

use anyhow::anyhow;

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// Not a fault: the table is created with its first rows.
    #[error("nothing was written yet to {0}")]
    NotWritten(String),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl From<datafusion::error::DataFusionError> for QueryError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        // DataFusion may append its own backtrace to the message.
        let text = error.strip_backtrace();
        Self::Failed(anyhow!(text))
    }
}
