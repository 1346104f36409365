//! What follows from the states: they are stored, what is owed is handed over, and all of it is shown.

use std::time::Instant;

use tracing::{debug, error, info, warn};

use super::super::board::ShownAlert;
use super::super::notification::notification;
use super::super::store::StoredAlert;
use super::{Engine, InSql, SAVE_INTERVAL, Unsaved};
use crate::notify::{self, Severity};
use crate::runtime::clock;

impl Engine {
    /// Stores what has changed, hands over what is owed, and stores that.
    pub(super) fn settle(&mut self) {
        let stored = self.save().and_then(|()| self.hand_over());
        match stored {
            Ok(()) => {
                if self.storage_error.clear() {
                    info!("the alerts can be stored again");
                }
                self.sent_unstored.clear();
                self.arrived_unstored.lock().clear();
            }
            Err(failure) => {
                let text = format!("{failure:#}");
                if self.storage_error.is_new(&text) {
                    error!("store the alerts: {text}; their notifications are sent without");
                }
                self.send_unstored();
            }
        }
        self.publish();
    }

    fn save(&mut self) -> anyhow::Result<()> {
        let is_due = self.unsaved.anything && self.unsaved.saved_at.elapsed() >= SAVE_INTERVAL;
        if self.unsaved.matters || is_due {
            self.store.save(&self.alerts)?;
            self.unsaved = Unsaved { matters: false, anything: false, saved_at: Instant::now() };
        }
        Ok(())
    }

    fn hand_over(&mut self) -> anyhow::Result<()> {
        if self.alerts.values().all(|stored| stored.state.owed().is_none()) {
            return Ok(());
        }
        let url = self.inputs.pipeline.built_in_alerts.url.clone();
        let (outbox, mut result) = (self.outbox.clone(), Ok(()));
        for (name, stored) in &mut self.alerts {
            while let Some(owed) = stored.state.owed().cloned() {
                let notification = notification(name, stored, &owed, url.as_deref());
                let mut receivers = owed.receivers;
                {
                    let arrived = self.arrived_unstored.lock();
                    receivers.retain(|receiver| !arrived.contains(&(notification.id.clone(), receiver.clone())));
                }
                if let Err(failure) = outbox.add(&notification, &receivers) {
                    result = Err(failure);
                    break;
                }
                stored.state.notified();
                stored.notified_at_ms = Some(clock::now_ms());
                self.unsaved.matters = true;
            }
        }
        self.end_removed();
        // What was handed over is stored even if something else could not be.
        self.save().and(result)
    }

    /// The disk is full, say, which is what people must learn of: what is owed is sent once, though it cannot be stored. It
    /// stays owed to those who have not got it, and has the same id when it is sent again.
    fn send_unstored(&mut self) {
        let pipeline = &self.inputs.pipeline;
        for (name, stored) in &self.alerts {
            let Some(owed) = stored.state.owed() else { continue };
            let notification = notification(name, stored, owed, pipeline.built_in_alerts.url.as_deref());
            if !self.sent_unstored.insert(notification.id.clone()) {
                continue;
            }
            let receivers = pipeline.notify.iter().filter(|known| owed.receivers.contains(&known.name));
            // Who has it in the outbox gets it from there.
            for receiver in receivers.filter(|known| !self.outbox.has(&notification.id, &known.name)) {
                let (receiver, notification) = (receiver.clone(), notification.clone());
                let (base_dir, arrived) = (self.service.base_dir.clone(), self.arrived_unstored.clone());
                tokio::spawn(async move {
                    let sent = notify::send_now(&receiver, &notification, &base_dir).await;
                    match sent {
                        Ok(()) => {
                            arrived.lock().insert((notification.id, receiver.name));
                        }
                        Err(failure) => {
                            warn!(receiver = %receiver.name, alert = %notification.alert, "notify: {failure}");
                        }
                    }
                });
            }
        }
    }

    fn publish(&mut self) {
        if !self.transitions.is_empty() {
            let transitions = std::mem::take(&mut self.transitions);
            if let Err(failure) = self.store.add_history(transitions) {
                debug!("store the history of the alerts: {failure:#}");
            }
        }
        self.service.board.set_history(self.store.history().rev());
        let none = StoredAlert::default();
        let shown = |name: &str, built_in: bool, severity: Severity, notify: &[Box<str>]| {
            let stored = self.alerts.get(name).unwrap_or(&none);
            ShownAlert { severity, ..ShownAlert::new(name, built_in, notify, stored) }
        };
        let in_sql =
            self.in_sql.iter().map(|InSql { alert, .. }| shown(&alert.name, false, alert.severity, &alert.notify));
        let notify = &self.inputs.pipeline.built_in_alerts.notify;
        let built_in = self.built_in.iter().map(|alert| shown(&alert.name, true, alert.severity, notify));
        self.service.board.set_alerts(in_sql.chain(built_in).collect());
    }
}
