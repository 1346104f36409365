//! A notification as a mail: its subject and its text.

use std::fmt::Write;

use super::Notification;
use crate::plain_text::one_line;
use crate::zone::Zone;

const SUBJECT_CHARS_MAX: usize = 200;

/// One line.
pub fn subject(notification: &Notification) -> String {
    let subject = format!("[silverd] {}: {}", notification.headline(), notification.summary);
    one_line(&subject, SUBJECT_CHARS_MAX)
}

pub fn text(notification: &Notification, zone: Zone) -> String {
    let mut text = format!("{}\n\n{}\n", notification.headline(), notification.summary);
    if !notification.description.trim().is_empty() {
        let _ = write!(text, "\n{}\n", notification.description.trim_end());
    }
    let facts = notification.facts();
    if !facts.is_empty() {
        text.push('\n');
    }
    for (name, value) in facts {
        let _ = writeln!(text, "{name}: {value}");
    }
    let _ = write!(text, "\n{}\n", notification.times(zone));
    if let Some(url) = &notification.url {
        let _ = writeln!(text, "{url}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{berlin, notification};
    use super::super::{NotifiedState, Severity};
    use super::*;

    #[test]
    fn a_mail_has_a_subject_and_a_text() {
        let sent = Notification { repeat: 3, ..notification(NotifiedState::Firing) };
        assert_eq!(subject(&sent), "[silverd] Critical, still firing: no_orders: no orders for 15 minutes");
        let expected = "Critical, still firing: no_orders\n\nno orders for 15 minutes\n\nSee the runbook.\nCall the shop.\n\n\
                        orders: 0\nshop: A & B <x>\n\nfiring since 2026-11-29 10:45:00 +01:00 (Europe/Berlin)\n\
                        https://silverd.example/alerts#no_orders\n";
        assert_eq!(text(&sent, berlin()), expected);
    }

    #[test]
    fn a_subject_is_one_line() {
        let mut odd = Notification { severity: Severity::Warning, ..notification(NotifiedState::Firing) };
        odd.summary = "a\r\nBcc: mallory@example.com\r\n\r\nbody".to_owned();
        assert_eq!(subject(&odd), "[silverd] Warning: no_orders: a  Bcc: mallory@example.com    body");
    }
}
