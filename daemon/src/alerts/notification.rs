//! From what a receiver is owed to the notification that it gets.

use sha2::{Digest, Sha256};
use silverd_core::alerts::{Owed, Report};

use super::store::StoredAlert;
use crate::notify::{Notification, NotifiedState, Severity};
use crate::runtime::clock;

/// The notification that is owed. It is the same at each try, and its id names it among all others.
pub(super) fn notification(alert: &str, stored: &StoredAlert, owed: &Owed, url: Option<&str>) -> Notification {
    Notification {
        id: id(alert, owed.state, owed.since_ms, owed.repeat),
        alert: alert.to_owned(),
        state: owed.state,
        severity: stored.severity,
        summary: owed.report.summary.clone(),
        description: stored.description.clone(),
        since_ms: owed.since_ms,
        at_ms: owed.at_ms,
        repeat: owed.repeat,
        values: owed.report.values.clone(),
        url: url.map(str::to_owned),
    }
}

/// The notification of `silverd alert test`: each has another id.
pub(crate) fn test_notification(
    alert: &str,
    severity: Severity,
    description: &str,
    report: Report,
    url: Option<&str>,
) -> Notification {
    let now_ms = clock::now_ms();
    Notification {
        id: id(alert, NotifiedState::Test, now_ms, 0),
        alert: alert.to_owned(),
        state: NotifiedState::Test,
        severity,
        summary: report.summary,
        description: description.to_owned(),
        since_ms: now_ms,
        at_ms: now_ms,
        repeat: 0,
        values: report.values,
        url: url.map(str::to_owned),
    }
}

fn id(alert: &str, state: NotifiedState, since_ms: i64, repeat: u32) -> String {
    digest(&format!("{alert}\n{}\n{since_ms}\n{repeat}", state.as_str()))
}

/// Half of the hash is enough to name something, and fits into every header.
const DIGEST_BYTES: usize = 16;

pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..DIGEST_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_id_is_of_one_notification() {
        let ids = [
            id("a", NotifiedState::Firing, 1, 0),
            id("a", NotifiedState::Firing, 1, 1),
            id("a", NotifiedState::Firing, 11, 0),
            id("a", NotifiedState::Resolved, 1, 0),
            id("a1", NotifiedState::Firing, 1, 0),
            id("b", NotifiedState::Firing, 1, 0),
        ];
        assert!(ids.iter().all(|id| id.len() == 2 * DIGEST_BYTES), "{ids:?}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        assert_eq!(id("a", NotifiedState::Firing, 1, 0), ids[0]);
    }
}
