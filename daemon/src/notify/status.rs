//! What the page, the commands and the metrics say of a receiver.

use serde::Serialize;

/// The kind of a receiver that pipeline.toml does not name any more.
pub(super) const REMOVED: &str = "removed";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiverStatus {
    pub name: String,
    /// `webhook`, `command`, `smtp` or `removed`.
    pub kind: &'static str,
    /// A host, a program or a file; no secret.
    pub target: String,
    /// Notifications that it has not got yet.
    pub waiting: usize,
    /// Since silverd started, as the other two counts.
    pub delivered: u64,
    pub failed_tries: u64,
    /// Refused by the receiver, or failed for a day.
    pub given_up: u64,
    pub last_delivered_ms: Option<i64>,
    /// Since a try failed, up to the next one that succeeds.
    pub failing: Option<Failing>,
    /// While notifications wait for the end of quiet hours.
    pub quiet_until_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failing {
    pub error: String,
    pub since_ms: i64,
    /// `None`: the notification was given up.
    pub next_try_ms: Option<i64>,
}
