//! The errors of corrections.

use tracing::info;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CorrectionError {
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The correction must be computed again.
#[derive(Debug, thiserror::Error)]
#[error("another writer changed table {table} in the meantime; nothing was replaced. Run the command again")]
pub(crate) struct Conflict {
    pub(super) table: String,
}

/// Attempts of a correction, each of which another writer's commit can end.
const ATTEMPTS_MAX: usize = 5;

/// Runs a correction, again if there is a conflict with another writer.
pub(crate) async fn retry_on_conflict<T>(
    table: &str,
    attempt: impl AsyncFn() -> Result<T, CorrectionError>,
) -> anyhow::Result<T> {
    let mut attempts = 1;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(CorrectionError::Failed(failure)) => return Err(failure),
            Err(conflict) if attempts == ATTEMPTS_MAX => return Err(conflict.into()),
            Err(CorrectionError::Conflict(_)) => {
                attempts += 1;
                info!(table, "another writer changed the table in the meantime; computing the correction again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::cell::Cell;

    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn only_conflicts_are_retried_and_not_for_ever() {
        let attempts = Cell::new(0);
        let attempt = |conflicts: usize| {
            attempts.set(attempts.get() + 1);
            match attempts.get() > conflicts {
                true => Err(CorrectionError::Failed(anyhow!("disk full"))),
                false => Err::<(), _>(CorrectionError::from(Conflict { table: "hits".to_owned() })),
            }
        };
        let failure = retry_on_conflict("hits", async || attempt(2)).await.unwrap_err();
        assert_eq!((attempts.take(), failure.to_string()), (3, "disk full".to_owned()));
        let failure = retry_on_conflict("hits", async || attempt(100)).await.unwrap_err();
        assert_eq!(attempts.take(), ATTEMPTS_MAX);
        assert!(failure.to_string().contains("table hits in the meantime"), "{failure}");
    }
}
