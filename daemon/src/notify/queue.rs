//! Which notification of a receiver is sent next.
//!
//! | waiting, the oldest first | quiet hours | next |
//! |---|---|---|
//! | A1 | no | A1 |
//! | A1, B1, A2, after a failed try of A1 | no | B1: one that keeps failing delays no other alert; A2 comes after A1 |
//! | A1 of severity warning | yes | nothing up to their end |
//! | A1 warning, B1 critical | yes | B1 |
//! | A1 made in quiet hours, A2 | either | A1 is dropped: A2 says what has become of it |

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use silverd_core::notify::retry::GIVE_UP_AFTER_MS;
use silverd_core::notify::{Quiet, Severity};

use super::store::{DONE_MAX, Found, Waiting};

#[derive(Default)]
pub(super) struct Queue {
    waiting: BTreeMap<u64, Waiting>,
    /// In this process.
    failed_tries: BTreeMap<u64, u32>,
    done: VecDeque<String>,
    last_number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// All of them wait for the end of quiet hours.
    Quiet {
        until_ms: i64,
    },
    /// A newer one of the same alert replaces this one.
    Superseded(u64),
    Try(u64),
}

impl Queue {
    pub(super) fn new(found: Found) -> Self {
        let last_number = found.waiting.last_key_value().map_or(0, |(number, _)| *number);
        Self { waiting: found.waiting, failed_tries: BTreeMap::new(), done: found.done, last_number }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a notification waits, or was done lately.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.waiting.values().any(|waiting| waiting.notification.id == id) || self.done.iter().any(|done| done == id)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    pub(super) fn insert(&mut self, number: u64, waiting: Waiting) {
        self.last_number = self.last_number.max(number);
        self.waiting.insert(number, waiting);
    }

    pub(super) fn get(&self, number: u64) -> Option<&Waiting> {
        self.waiting.get(&number)
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(number, _)| *number)
    }

    pub(super) fn next(&self, quiet: Option<&Quiet>, now_ms: i64) -> Next {
        if let Some(number) = self.superseded(quiet) {
            return Next::Superseded(number);
        }
        let until = |severity| quiet.and_then(|quiet| quiet.until(severity, now_ms));
        let (warnings_wait, critical_wait) = (until(Severity::Warning), until(Severity::Critical));
        let (mut alerts, mut best, mut ends_ms) = (BTreeSet::new(), None, None::<i64>);
        for (number, Waiting { notification, .. }) in &self.waiting {
            // Only the oldest of each alert: they stay in order.
            if !alerts.insert(&notification.alert) {
                continue;
            }
            let waits = match notification.severity {
                Severity::Warning => warnings_wait,
                Severity::Critical => critical_wait,
            };
            match waits {
                Some(until_ms) => ends_ms = Some(ends_ms.map_or(until_ms, |ends_ms| ends_ms.min(until_ms))),
                None => {
                    let candidate = (self.failed_tries(*number), *number);
                    best = Some(best.map_or(candidate, |best: (u32, u64)| best.min(candidate)));
                }
            }
        }
        match (best, ends_ms) {
            (Some((_, number)), _) => Next::Try(number),
            (None, Some(until_ms)) => Next::Quiet { until_ms },
            (None, None) => Next::Nothing,
        }
    }

    /// One that was made in quiet hours, and is followed by a newer one of the same alert.
    fn superseded(&self, quiet: Option<&Quiet>) -> Option<u64> {
        let quiet = quiet?;
        let mut newer = BTreeSet::new();
        self.waiting.iter().rev().find_map(|(number, Waiting { notification, .. })| {
            let is_last = newer.insert(&notification.alert);
            let was_held = quiet.holds(notification.severity, notification.at_ms);
            (!is_last && was_held).then_some(*number)
        })
    }

    pub(super) fn failed_tries(&self, number: u64) -> u32 {
        self.failed_tries.get(&number).copied().unwrap_or_default()
    }

    /// Notes that a try failed. `false`: it has failed for so long that it is given up.
    pub(super) fn fail(&mut self, number: u64, now_ms: i64) -> bool {
        let Some(waiting) = self.waiting.get_mut(&number) else { return true };
        *self.failed_tries.entry(number).or_default() += 1;
        let since_ms = *waiting.failing_since_ms.get_or_insert(now_ms);
        now_ms.saturating_sub(since_ms) < GIVE_UP_AFTER_MS
    }

    /// From now on, it is done. Returns it if it was waiting.
    pub(super) fn finish(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.failed_tries.remove(&number);
        self.done.push_back(waiting.notification.id.clone());
        if self.done.len() > DONE_MAX {
            self.done.pop_front();
        }
        Some(waiting)
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use silverd_core::notify::{Notification, NotifiedState, QuietHours};
    use silverd_core::zone::Zone;

    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1_000;
    /// 22:00 to 07:00 UTC; the epoch is midnight.
    const NIGHT_MS: i64 = 3 * HOUR_MS;
    const MORNING_MS: i64 = 7 * HOUR_MS;

    pub(crate) fn notification(id: &str, alert: &str) -> Notification {
        Notification {
            id: id.to_owned(),
            alert: alert.to_owned(),
            state: NotifiedState::Firing,
            severity: Severity::Warning,
            summary: "no orders".to_owned(),
            description: String::new(),
            since_ms: NIGHT_MS,
            at_ms: NIGHT_MS,
            repeat: 0,
            values: serde_json::Map::new(),
            url: None,
        }
    }

    fn quiet() -> Quiet {
        Quiet { hours: QuietHours::parse("22:00-07:00").unwrap(), zone: Zone::UTC, critical: false }
    }

    /// Notifications by id, such as `a1` of the alert `a`; `!` after it for a critical one.
    fn queue(ids: &[&str]) -> Queue {
        let mut queue = Queue::default();
        for id in ids {
            let (id, severity) = match id.strip_suffix('!') {
                Some(id) => (id, Severity::Critical),
                None => (*id, Severity::Warning),
            };
            let notification = Notification { severity, ..notification(id, &id[..1]) };
            queue.insert(queue.next_number(), Waiting { notification, failing_since_ms: None });
        }
        queue
    }

    /// The order in which all are done, if every try succeeds; `-a1` for one that was superseded.
    fn order(queue: &mut Queue, quiet: Option<&Quiet>, now_ms: i64) -> String {
        let mut order = Vec::new();
        loop {
            let (sign, number) = match queue.next(quiet, now_ms) {
                Next::Try(number) => ("", number),
                Next::Superseded(number) => ("-", number),
                Next::Quiet { until_ms } => {
                    assert_eq!(until_ms, MORNING_MS);
                    order.push("quiet".to_owned());
                    return order.join(" ");
                }
                Next::Nothing => return order.join(" "),
            };
            order.push(format!("{sign}{}", queue.finish(number).unwrap().notification.id));
        }
    }

    #[test]
    fn the_oldest_comes_first() {
        assert_eq!(order(&mut queue(&["a1", "b1", "a2"]), None, NIGHT_MS), "a1 b1 a2");
        assert_eq!(order(&mut queue(&[]), Some(&quiet()), NIGHT_MS), "");
    }

    #[test]
    fn one_that_fails_delays_only_its_own_alert() {
        let mut queue = queue(&["a1", "b1", "a2", "c1"]);
        assert_eq!(queue.next(None, 0), Next::Try(1));
        assert!(queue.fail(1, 0));
        assert_eq!(queue.next(None, 0), Next::Try(2));
        assert!(queue.fail(2, 0));
        assert_eq!(queue.next(None, 0), Next::Try(4));
        assert!(queue.fail(4, 0) && queue.fail(4, 0));
        assert_eq!(order(&mut queue, None, 0), "a1 a2 b1 c1");
    }

    #[test]
    fn in_quiet_hours_only_critical_ones_are_sent() {
        let quiet = quiet();
        let mut queue = queue(&["a1", "b1!", "c1", "b2!"]);
        assert_eq!(order(&mut queue, Some(&quiet), NIGHT_MS), "b1 b2 quiet");
        assert_eq!(order(&mut queue, Some(&quiet), MORNING_MS), "a1 c1");
    }

    #[test]
    fn of_what_quiet_hours_have_held_only_the_newest_of_an_alert_is_sent() {
        let quiet = quiet();
        let mut queue = queue(&["a1", "b1", "a2", "a3", "c1"]);
        assert_eq!(order(&mut queue, Some(&quiet), MORNING_MS), "-a2 -a1 b1 a3 c1");
    }

    #[test]
    fn what_was_made_before_quiet_hours_stays_in_order() {
        let quiet = quiet();
        let mut queue = queue(&["a1", "a2"]);
        for number in [1, 2] {
            queue.waiting.get_mut(&number).unwrap().notification.at_ms = -3 * HOUR_MS;
        }
        assert_eq!(order(&mut queue, Some(&quiet), NIGHT_MS), "quiet");
        assert_eq!(order(&mut queue, Some(&quiet), MORNING_MS), "a1 a2");
    }

    #[test]
    fn it_is_given_up_after_a_day() {
        let mut queue = queue(&["a1"]);
        assert!(queue.fail(1, 1_000) && queue.fail(1, 1_000 + GIVE_UP_AFTER_MS - 1));
        assert_eq!((queue.failed_tries(1), queue.get(1).unwrap().failing_since_ms), (2, Some(1_000)));
        assert!(!queue.fail(1, 1_000 + GIVE_UP_AFTER_MS));
    }

    #[test]
    fn an_id_is_known_while_it_waits_and_for_some_time_after() {
        let mut queue = queue(&["a1"]);
        assert!(queue.knows("a1") && !queue.knows("a2"));
        queue.finish(1);
        assert!(queue.knows("a1") && queue.finish(1).is_none());
        for number in 0..DONE_MAX {
            let waiting = Waiting { notification: notification(&format!("b{number}"), "b"), failing_since_ms: None };
            queue.insert(queue.next_number(), waiting);
            queue.finish(queue.last_number);
        }
        assert!(!queue.knows("a1") && queue.knows("b0"));
        assert_eq!(queue.next_number(), DONE_MAX as u64 + 2);
    }
}
