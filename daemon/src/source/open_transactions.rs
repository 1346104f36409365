//! Transactions that stay open: what was written after their begin is not given out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use silverd_core::offsets::LogPartition;
use tracing::{info, warn};

use super::problems::{ProblemOf, SourceProblems};

/// Kafka aborts a transaction after a minute by default (`transaction.timeout.ms` of the producer).
const OPEN_MAX: Duration = Duration::from_secs(90);

/// The first offset of an open transaction by partition, and since when it has been the same.
#[derive(Default)]
pub(super) struct OpenTransactions(BTreeMap<LogPartition, Open>);

struct Open {
    offset: i64,
    since: Instant,
    is_reported: bool,
}

impl OpenTransactions {
    /// A log partition ends at `high`, and is given out up to `stable`.
    pub(super) fn update(&mut self, log: &LogPartition, stable: i64, high: i64, problems: &SourceProblems) {
        let (topic, partition) = (&log.topic, log.partition);
        if stable >= high {
            // It may have been reported by the session before.
            problems.resolve(&ProblemOf::Transaction(log.clone()));
            if self.0.remove(log).is_some_and(|open| open.is_reported) {
                info!("partition {partition} of {topic}: the transaction has ended");
            }
            return;
        }
        let new = || Open { offset: stable, since: Instant::now(), is_reported: false };
        let open = self.0.entry(log.clone()).or_insert_with(new);
        if open.offset != stable {
            *open = new();
            problems.resolve(&ProblemOf::Transaction(log.clone()));
        } else if open.since.elapsed() > OPEN_MAX && !open.is_reported {
            open.is_reported = true;
            let problem = format!(
                "partition {partition} of {topic}: a transaction has been open at offset {stable} for {} s, and the {} \
                 offsets after it are not given out until it ends. Find it with `kafka-transactions.sh find-hanging`, and \
                 end it with `kafka-transactions.sh abort`",
                open.since.elapsed().as_secs(),
                high - stable
            );
            warn!("{problem}");
            problems.set(ProblemOf::Transaction(log.clone()), problem);
        }
    }
}
