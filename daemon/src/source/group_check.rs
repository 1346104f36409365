//! Notices that the consumer group assigns nothing although there is work.
//!
//! After a crash Kafka counts the killed member for some time (45 s by default) and assigns its partitions to nobody.
//! Which process may write is not the group's decision but that of the fence in Bronze's log, so silverd may read
//! without it. Kafka counts such a member also when it was suspended itself, and this process had to join again.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use silverd_core::offsets::Offsets;

use super::client::{AdminConsumer, REQUEST_TIMEOUT, offset_of, request_offsets};
use super::options::SourceOptions;
use super::rebalance::RebalanceContext;

/// How long the group may take for an assignment, in addition to a commit interval.
const ASSIGNMENT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The same after it has revoked all partitions.
const REASSIGNMENT_TIMEOUT: Duration = Duration::from_secs(10);
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct GroupCheck {
    /// The group has assigned partitions, so it works. From then on silverd waits longer for it.
    works: bool,
    wait: Option<Wait>,
}

/// A wait for an assignment.
struct Wait {
    /// Bronze's offsets at the start of the wait.
    committed: Offsets,
    since: Instant,
    checked_at: Instant,
}

impl GroupCheck {
    /// Whether the group assigns nothing, Bronze's offsets do not advance, and Kafka has records that Bronze has not.
    pub(super) fn is_stuck(
        &mut self,
        assigned: bool,
        options: &SourceOptions,
        admin: &AdminConsumer,
        context: &RebalanceContext,
    ) -> anyhow::Result<bool> {
        if assigned {
            (self.works, self.wait) = (true, None);
            return Ok(false);
        }
        let timeout = if self.works { REASSIGNMENT_TIMEOUT } else { ASSIGNMENT_TIMEOUT };
        let now = Instant::now();
        let wait = match &mut self.wait {
            Some(wait) if now.duration_since(wait.checked_at) < CHECK_INTERVAL => return Ok(false),
            Some(wait) => wait,
            None => {
                self.wait = Some(Wait { committed: (options.resume)()?.offsets, since: now, checked_at: now });
                return Ok(false);
            }
        };
        wait.checked_at = now;
        let committed = (options.resume)()?.offsets;
        if committed != wait.committed {
            // Another silverd reads the topic: the wait starts again.
            (wait.committed, wait.since) = (committed, now);
            return Ok(false);
        }
        if now.duration_since(wait.since) < timeout + options.limits.interval {
            return Ok(false);
        }
        Ok(has_more_records(&committed, admin, context))
    }

    /// Whether the group has assigned partitions.
    pub(super) fn has_worked(&self) -> bool {
        self.works
    }
}

fn has_more_records(committed: &Offsets, admin: &AdminConsumer, context: &RebalanceContext) -> bool {
    let logs = context.logs();
    let request = |which| request_offsets(admin, &logs, which, REQUEST_TIMEOUT);
    let (Ok(low), Ok(high)) = (request(Offset::Beginning), request(Offset::End)) else { return false };
    logs.iter().any(|log| committed.get(log).copied().unwrap_or_else(|| offset_of(&low, log)) < offset_of(&high, log))
}
