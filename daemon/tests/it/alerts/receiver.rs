//! Somebody who is notified by a webhook.

use serde_json::Value;

use crate::harness::until;
use crate::harness::webhook::WebhookReceiver;

/// A webhook that takes everything.
pub struct Receiver(WebhookReceiver);

#[derive(Clone, Debug)]
pub struct Received {
    /// The header `Idempotency-Key`.
    pub key: String,
    pub body: Value,
}

impl Receiver {
    pub fn start() -> Self {
        Self(WebhookReceiver::start())
    }

    /// The section of pipeline.toml.
    pub fn section(&self, name: &str) -> String {
        format!("[notify.{name}]\nwebhook = \"{}\"\n", self.0.url())
    }

    /// All that has arrived.
    pub fn received(&self) -> Vec<Received> {
        let requests = self.0.requests();
        requests
            .iter()
            .map(|one| Received { key: one.header("idempotency-key").to_owned(), body: one.json() })
            .collect()
    }

    /// The alert, and its state, of all that has arrived.
    pub fn states(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.received().iter().map(|one| (text(&one.body["alert"]), text(&one.body["state"]))).collect()
    }

    /// Waits for a notification of an alert in this state; the last one.
    #[track_caller]
    pub fn wait_for(&self, alert: &str, state: &str) -> Received {
        let last = || {
            let mut received = self.received().into_iter();
            received.rfind(|one| one.body["alert"] == alert && one.body["state"] == state)
        };
        until(&format!("{alert} is {state}"), || last().is_some());
        last().unwrap()
    }
}
