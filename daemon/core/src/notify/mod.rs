//! What a receiver of `[notify.<name>]` gets, how it reads, and when: the pure part of notifications.

pub mod json;
pub mod mail;
mod quiet;
pub mod retry;
pub mod slack;
pub mod teams;
mod template;

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use quiet::{Quiet, QuietHours};
pub use template::{Template, TemplateFault};

use crate::plain_text::{is_obeyed, one_line, plain_lines};
use crate::zone::Zone;

/// What a receiver gets. The id is the same for each try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Names this notification among all others; see [`Notification::is_id`].
    pub id: String,
    /// The name of the alert.
    pub alert: String,
    pub state: NotifiedState,
    pub severity: Severity,
    /// One line of plain text.
    pub summary: String,
    /// May be empty.
    pub description: String,
    /// When the alert began to fire.
    pub since_ms: i64,
    /// When this notification was made.
    pub at_ms: i64,
    /// 0 for the first of its state.
    pub repeat: u32,
    /// The row of the alert's query that fired; empty for an alert without one.
    pub values: Map<String, Value>,
    /// Where the dashboard shows it.
    pub url: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotifiedState {
    Firing,
    Resolved,
    /// Sent by `silverd alert test`.
    Test,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    #[default]
    Warning,
    Critical,
}

impl NotifiedState {
    pub fn as_str(self) -> &'static str {
        match self {
            NotifiedState::Firing => "firing",
            NotifiedState::Resolved => "resolved",
            NotifiedState::Test => "test",
        }
    }
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

impl Notification {
    const ID_BYTES_MAX: usize = 100;
    const SUMMARY_CHARS_MAX: usize = 300;
    const DESCRIPTION_CHARS_MAX: usize = 2_000;
    const VALUES_MAX: usize = 20;
    const VALUE_CHARS_MAX: usize = 300;
    const URL_BYTES_MAX: usize = 2_000;

    /// Whether the text can be an id: it becomes a file's name, a value of an HTTP header, and a part of a `Message-ID`.
    pub fn is_id(text: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=Self::ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
    }

    /// The same with texts of bounded lengths and without control characters: chat services refuse messages that are too
    /// long, and parts of the texts come from events.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let url = self.url.clone().filter(|url| url.len() <= Self::URL_BYTES_MAX && !url.contains(is_obeyed));
        let value = |(name, value): (&String, &Value)| {
            let value = match value {
                Value::String(text) => Value::String(one_line(text, Self::VALUE_CHARS_MAX)),
                Value::Array(_) | Value::Object(_) => {
                    Value::String(one_line(&value.to_string(), Self::VALUE_CHARS_MAX))
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            };
            (one_line(name, Self::VALUE_CHARS_MAX), value)
        };
        Self {
            id: self.id.clone(),
            alert: one_line(&self.alert, Self::SUMMARY_CHARS_MAX),
            summary: one_line(&self.summary, Self::SUMMARY_CHARS_MAX),
            description: plain_lines(&self.description, Self::DESCRIPTION_CHARS_MAX),
            values: self.values.iter().take(Self::VALUES_MAX).map(value).collect(),
            url,
            ..*self
        }
    }

    /// Such as `Critical: no_orders`.
    fn headline(&self) -> String {
        let what = match (self.state, self.severity, self.repeat) {
            (NotifiedState::Test, ..) => "Test",
            (NotifiedState::Resolved, ..) => "Resolved",
            (NotifiedState::Firing, Severity::Warning, 0) => "Warning",
            (NotifiedState::Firing, Severity::Critical, 0) => "Critical",
            (NotifiedState::Firing, Severity::Warning, _) => "Warning, still firing",
            (NotifiedState::Firing, Severity::Critical, _) => "Critical, still firing",
        };
        format!("{what}: {}", self.alert)
    }

    /// Names and values, as people read them.
    fn facts(&self) -> Vec<(&str, String)> {
        self.values.iter().map(|(name, value)| (name.as_str(), text_of(value))).collect()
    }

    /// Such as `firing since 2026-11-29 10:00:00 +01:00 (Europe/Berlin)`.
    fn times(&self, zone: Zone) -> String {
        let (since, at) = (readable(self.since_ms, zone), readable(self.at_ms, zone));
        match self.state {
            NotifiedState::Firing => format!("firing since {since} ({zone})"),
            NotifiedState::Resolved => format!("fired at {since}, resolved at {at} ({zone})"),
            NotifiedState::Test => format!("sent at {at} ({zone})"),
        }
    }
}

/// As RFC 3339 has it, with the zone's offset.
fn rfc3339(ms: i64, zone: Zone) -> String {
    zone.local(ms).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn readable(ms: i64, zone: Zone) -> String {
    zone.local(ms).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// A string without its quotes; anything else as JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// 2026-11-29 10:00:00 UTC.
    pub(crate) const AT_MS: i64 = 1_795_946_400_000;

    pub(crate) fn berlin() -> Zone {
        Zone::parse("Europe/Berlin").unwrap()
    }

    pub(crate) fn notification(state: NotifiedState) -> Notification {
        let values = json!({ "orders": 0, "shop": "A & B <x>" });
        Notification {
            id: "0a1b2c".to_owned(),
            alert: "no_orders".to_owned(),
            state,
            severity: Severity::Critical,
            summary: "no orders for 15 minutes".to_owned(),
            description: "See the runbook.\nCall the shop.".to_owned(),
            since_ms: AT_MS - 900_000,
            at_ms: AT_MS,
            repeat: 0,
            values: values.as_object().unwrap().clone(),
            url: Some("https://silverd.example/alerts#no_orders".to_owned()),
        }
    }

    #[test]
    fn ids_are_plain() {
        for id in ["a", "0a1b2c", "A-1", &"f".repeat(100)] {
            assert!(Notification::is_id(id), "{id}");
        }
        for id in ["", "a/b", "..", "a b", "a\r\nb", "ä", &"f".repeat(101)] {
            assert!(!Notification::is_id(id), "{id}");
        }
    }

    #[test]
    fn texts_are_bounded_and_plain() {
        let long = "ä".repeat(10_000);
        let mut odd = notification(NotifiedState::Firing);
        odd.summary = format!("one\r\ntwo\u{1b}[31m\u{202e}{long}");
        odd.description = format!("one\r\ntwo\u{7}\n{long}");
        odd.url = Some(format!("https://a/{long}"));
        odd.values = (0..50).map(|at| (format!("v{at:02}"), json!([long]))).collect();
        let bounded = odd.bounded();
        assert!(
            bounded.summary.starts_with("one  two [31m ä") && bounded.summary.ends_with("ä…"),
            "{}",
            bounded.summary
        );
        assert_eq!(bounded.summary.chars().count(), Notification::SUMMARY_CHARS_MAX);
        assert!(bounded.description.starts_with("one\ntwo \nä"), "{}", bounded.description);
        assert_eq!((bounded.url.as_ref(), bounded.values.len()), (None, Notification::VALUES_MAX));
        assert!(serde_json::to_string(&bounded).unwrap().len() < 32 << 10);
        assert_eq!(bounded.bounded(), bounded);
        let plain = notification(NotifiedState::Resolved);
        assert_eq!(plain.bounded(), plain);
    }

    #[test]
    fn times_are_local() {
        let check = |state, expected: &str| assert_eq!(notification(state).times(berlin()), expected);
        check(NotifiedState::Firing, "firing since 2026-11-29 10:45:00 +01:00 (Europe/Berlin)");
        check(
            NotifiedState::Resolved,
            "fired at 2026-11-29 10:45:00 +01:00, resolved at 2026-11-29 11:00:00 +01:00 (Europe/Berlin)",
        );
        assert_eq!(rfc3339(AT_MS, Zone::UTC), "2026-11-29T10:00:00Z");
        assert_eq!(rfc3339(AT_MS, berlin()), "2026-11-29T11:00:00+01:00");
        assert!(!rfc3339(i64::MAX, berlin()).is_empty());
    }

    #[test]
    fn a_headline_says_the_state() {
        let check = |state, repeat, expected: &str| {
            assert_eq!(Notification { repeat, ..notification(state) }.headline(), expected);
        };
        check(NotifiedState::Firing, 0, "Critical: no_orders");
        check(NotifiedState::Firing, 2, "Critical, still firing: no_orders");
        check(NotifiedState::Resolved, 0, "Resolved: no_orders");
        check(NotifiedState::Test, 0, "Test: no_orders");
    }
}
