//! Notifications of alerts: who gets them, and how they get there. What they look like is in `silverd_core::notify`.
//!
//! ```text
//!   alert ── add ──▶ outbox, one queue a receiver       on the disk: <receiver>/<number>-<id>.json
//!                      │  quiet hours, order, waits
//!                      ▼
//!                    send: webhook │ command │ smtp ──▶ receiver
//!                      │
//!                      ├─ delivered, or refused ──▶ on the disk: <receiver>/done/<id>.json
//!                      └─ failed ──▶ another try, for a day
//! ```
//!
//! A notification is delivered at least once. It has one id, also over restarts: receivers know a repeat by it. A repeat
//! happens only if silverd is killed between sending and recording that it was sent.

mod authority;
mod check;
mod command;
mod delivery;
mod outbox;
mod queue;
mod secret;
mod signature;
mod smtp;
mod status;
mod store;
mod webhook;

use std::path::Path;
use std::time::Duration;

pub(crate) use check::check_files;
pub use outbox::Outbox;
use silverd_core::config::{NotifyKind, NotifyReceiver};
pub use silverd_core::notify::{Notification, NotifiedState, Severity};
pub use status::{Failing, ReceiverStatus};

use crate::runtime::inert::inert_line;

/// Longer texts of receivers are cut in messages.
const REASON_CHARS_MAX: usize = 500;

/// Why a receiver did not get a notification: one line, without secrets and without control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Another try may succeed.
    #[error("{reason}")]
    Retry {
        reason: String,
        /// The receiver asked for no other try before that.
        after: Option<Duration>,
    },
    /// The same notification would be refused again.
    #[error("{reason}")]
    Refused { reason: String },
}

impl SendError {
    fn retry(reason: impl AsRef<str>) -> Self {
        SendError::Retry { reason: one_line(reason.as_ref()), after: None }
    }

    fn refused(reason: impl AsRef<str>) -> Self {
        SendError::Refused { reason: one_line(reason.as_ref()) }
    }
}

fn one_line(text: &str) -> String {
    silverd_core::plain_text::one_line(&inert_line(text), REASON_CHARS_MAX)
}

/// Sends a notification once, whatever the quiet hours are. Paths are relative to `base_dir`.
pub async fn send_now(
    receiver: &NotifyReceiver,
    notification: &Notification,
    base_dir: &Path,
) -> Result<(), SendError> {
    let (zone, timeout) = (receiver.zone, Duration::from_millis(receiver.timeout_ms));
    let notification = &notification.bounded();
    let send = async {
        match &receiver.kind {
            NotifyKind::Webhook(webhook) => webhook::send(webhook, notification, zone, timeout, base_dir).await,
            NotifyKind::Command(command) => command::send(command, notification, zone, base_dir).await,
            NotifyKind::Smtp(smtp) => smtp::send(smtp, notification, zone, timeout, base_dir).await,
        }
    };
    match tokio::time::timeout(timeout, send).await {
        Ok(sent) => sent,
        Err(_) => {
            let (kind, target) = (receiver.kind.as_str(), receiver.kind.target());
            Err(SendError::retry(format!("{kind} {target}: no success within {} s", timeout.as_secs())))
        }
    }
}
