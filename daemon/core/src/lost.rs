//! Events that Bronze has lost for good: a data file was damaged, and Kafka no longer had its records. Bronze's log names their
//! offsets in `txn` actions, which checkpoints keep when the entries before them are cleaned up.

use crate::offsets::{LogPartition, OffsetRange};

/// The application id whose version is the number of lost events.
pub const LOST_EVENTS: &str = "silverd-lost-events";

/// The prefix of the application ids that name lost offsets.
const LOST_OFFSETS: &str = "silverd-lost:";

/// The application id for lost offsets from `start` on. Its version is their end, exclusive.
pub fn app_id(log: &LogPartition, start: i64) -> String {
    format!("{LOST_OFFSETS}{log}:{start}")
}

/// The reverse of [`app_id`], with the version of the `txn` action; `None` for other application ids.
pub fn from_app_id(app_id: &str, version: i64) -> Option<(LogPartition, OffsetRange)> {
    let (log, start) = app_id.strip_prefix(LOST_OFFSETS)?.rsplit_once(':')?;
    let start: i64 = start.parse().ok()?;
    let log = log.parse().ok()?;
    (0 <= start && start < version).then(|| (log, OffsetRange::new(start, version)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::TopicName;

    #[test]
    fn app_ids_parse_back() {
        for cluster in ["abc", "a:b", ""] {
            let log = LogPartition::new(cluster, "events.raw", 7);
            let id = app_id(&log, 12);
            assert_eq!(from_app_id(&id, 15), Some((log, OffsetRange::new(12, 15))));
            assert_eq!(from_app_id(&id, 12), None);
            assert_eq!((LogPartition::from_app_id(&id), TopicName::from_app_id(&id)), (None, None));
        }
        for other in [LOST_EVENTS, "silverd:c:t:0", "silverd-lost:c:t:0", "silverd-lost:", "silverd-lost:c:t:0:-1"] {
            assert_eq!(from_app_id(other, 9), None, "{other}");
        }
    }
}
