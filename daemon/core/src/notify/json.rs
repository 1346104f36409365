//! A notification as JSON: the body of a webhook without a format of its own, and the input of a command.

use serde_json::{Value, json};

use super::{Notification, rfc3339};
use crate::zone::Zone;

/// The times are there twice: in the zone, and in milliseconds since the epoch.
pub fn body(notification: &Notification, zone: Zone) -> Value {
    let of = notification;
    json!({
        "id": of.id,
        "alert": of.alert,
        "state": of.state.as_str(),
        "severity": of.severity.as_str(),
        "summary": of.summary,
        "description": of.description,
        "since": rfc3339(of.since_ms, zone),
        "since_ms": of.since_ms,
        "at": rfc3339(of.at_ms, zone),
        "at_ms": of.at_ms,
        "repeat": of.repeat,
        "values": of.values,
        "url": of.url,
    })
}

/// The same for a command, as variables of its environment.
pub fn variables(notification: &Notification, zone: Zone) -> [(&'static str, String); 10] {
    let of = notification;
    [
        ("SILVERD_ALERT_ID", of.id.clone()),
        ("SILVERD_ALERT_NAME", of.alert.clone()),
        ("SILVERD_ALERT_STATE", of.state.as_str().to_owned()),
        ("SILVERD_ALERT_SEVERITY", of.severity.as_str().to_owned()),
        ("SILVERD_ALERT_SUMMARY", of.summary.clone()),
        ("SILVERD_ALERT_DESCRIPTION", of.description.clone()),
        ("SILVERD_ALERT_SINCE", rfc3339(of.since_ms, zone)),
        ("SILVERD_ALERT_AT", rfc3339(of.at_ms, zone)),
        ("SILVERD_ALERT_REPEAT", of.repeat.to_string()),
        ("SILVERD_ALERT_URL", of.url.clone().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::NotifiedState;
    use super::super::tests::{AT_MS, berlin, notification};
    use super::*;

    #[test]
    fn the_body_has_all_of_it() {
        let expected = json!({
            "id": "0a1b2c",
            "alert": "no_orders",
            "state": "resolved",
            "severity": "critical",
            "summary": "no orders for 15 minutes",
            "description": "See the runbook.\nCall the shop.",
            "since": "2026-11-29T10:45:00+01:00",
            "since_ms": AT_MS - 900_000,
            "at": "2026-11-29T11:00:00+01:00",
            "at_ms": AT_MS,
            "repeat": 0,
            "values": { "orders": 0, "shop": "A & B <x>" },
            "url": "https://silverd.example/alerts#no_orders",
        });
        assert_eq!(body(&notification(NotifiedState::Resolved), berlin()), expected);
    }
}
