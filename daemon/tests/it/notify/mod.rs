//! Notifications: what receivers get, tries that fail, what a process leaves to the next one, and secrets.

mod command;
mod mail;
mod outbox;
mod webhook;

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use silverd::notify::{Notification, NotifiedState, Outbox, ReceiverStatus, SendError, Severity, send_now};
use silverd_core::config::{self, Pipeline};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::harness::block_on;
use super::harness::webhook::Request;

/// No message and no status may contain it.
const SECRET: &str = "hunter2";

fn pipeline(sections: &str) -> Pipeline {
    let text = format!("[source]\nbrokers = \"localhost:9092\"\ntopic = \"events\"\n{sections}");
    let pipeline = config::check(&text, &|_| None)
        .unwrap_or_else(|errors| panic!("{}", errors.render("pipeline.toml", &text, false)));
    assert!(!format!("{pipeline:?}").contains(SECRET));
    pipeline
}

fn notification(id: &str, alert: &str) -> Notification {
    let values = json!({ "orders": 0, "shop": "A & B <x>" });
    Notification {
        id: id.to_owned(),
        alert: alert.to_owned(),
        state: NotifiedState::Firing,
        severity: Severity::Warning,
        summary: "no orders for 15 minutes".to_owned(),
        description: "Call the shop.".to_owned(),
        since_ms: 1_795_945_500_000,
        at_ms: 1_795_946_400_000,
        repeat: 0,
        values: values.as_object().unwrap().clone(),
        url: None,
    }
}

/// Sends one to the receiver `r` of these sections.
fn send(sections: &str, folder: &Path) -> Result<(), SendError> {
    let pipeline = pipeline(sections);
    let receiver = pipeline.notify.iter().find(|receiver| &*receiver.name == "r").unwrap();
    let sent = block_on(send_now(receiver, &notification("n-1", "no_orders"), folder));
    if let Err(error) = &sent {
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
    sent
}

#[track_caller]
fn check_refused(sent: Result<(), SendError>, part: &str) {
    let Err(SendError::Refused { reason }) = &sent else { panic!("{sent:?}") };
    assert!(reason.contains(part), "{reason}");
}

#[track_caller]
fn check_failed(sent: Result<(), SendError>, part: &str) {
    let Err(SendError::Retry { reason, .. }) = &sent else { panic!("{sent:?}") };
    assert!(reason.contains(part), "{reason}");
}

/// An outbox that delivers.
struct Delivery {
    outbox: Arc<Outbox>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    runtime: Runtime,
}

impl Delivery {
    fn start(outbox: Arc<Outbox>) -> Self {
        let (runtime, stop) = (Runtime::new().unwrap(), CancellationToken::new());
        let task = runtime.spawn(outbox.clone().run(stop.clone()));
        Self { outbox, stop, task, runtime }
    }

    fn status(&self, name: &str) -> ReceiverStatus {
        let status = self.outbox.status();
        assert!(!serde_json::to_string(&status).unwrap().contains(SECRET), "{status:?}");
        status.into_iter().find(|status| status.name == name).unwrap()
    }

    fn end(self) {
        self.stop.cancel();
        self.runtime.block_on(self.task).unwrap();
    }
}

fn open(folder: &Path, sections: &str) -> Arc<Outbox> {
    Outbox::open(&folder.join("outbox"), &pipeline(sections), folder).unwrap()
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

fn ids(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.header("idempotency-key")).collect()
}
