//! A validated plugin version that waits for its table's worker: the reloader puts it there, and the worker takes it
//! between two chunks.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use silverd_core::config::SilverTable;
use silverd_core::shadow::Shadow;
use tokio::sync::Notify;

use crate::plugin::{Plugin, Transformer};

/// A validated version with a started instance.
pub(crate) struct Candidate {
    pub(crate) transformer: Transformer,
    /// The table's section, with which the plugin was loaded.
    pub(crate) config: SilverTable,
    /// The result of the shadow run; `None` if there was nothing to compare.
    pub(crate) shadow: Option<Shadow>,
    /// The share of events that the canary may reject although the current version accepts them.
    pub(crate) max_new_rejects: f64,
    /// When its file was written.
    pub(crate) written_at: Option<SystemTime>,
    /// It has written the table before, so it is trusted.
    pub(crate) is_earlier_version: bool,
}

/// The active version of a table and the one that waits. Shared by the table's worker and its reloader.
#[derive(Default)]
pub(crate) struct PendingVersion {
    active: Mutex<Option<Arc<Plugin>>>,
    candidate: Mutex<Option<Candidate>>,
    /// Notified when either is set.
    changes: Notify,
}

impl Candidate {
    pub(crate) fn plugin(&self) -> &Arc<Plugin> {
        self.transformer.plugin()
    }
}

impl PendingVersion {
    /// The version that fills the table; `None` before the first one is loaded.
    pub(crate) fn active(&self) -> Option<Arc<Plugin>> {
        self.active.lock().clone()
    }

    /// The worker uses this version from now on.
    pub(crate) fn set_active(&self, plugin: Arc<Plugin>) {
        *self.active.lock() = Some(plugin);
        self.changes.notify_waiters();
    }

    /// Replaces the candidate that waits, if there is one.
    pub(crate) fn put(&self, candidate: Candidate) {
        *self.candidate.lock() = Some(candidate);
        self.changes.notify_waiters();
    }

    pub(crate) fn take(&self) -> Option<Candidate> {
        self.candidate.lock().take()
    }

    /// Removes the candidate if the worker has not taken it.
    pub(crate) fn clear(&self) {
        *self.candidate.lock() = None;
    }

    /// Waits until there is a candidate.
    pub(crate) async fn changed(&self) {
        self.wait_until(|| self.candidate.lock().is_some()).await;
    }

    /// Waits until the table has an active version.
    pub(crate) async fn first_active(&self) {
        self.wait_until(|| self.active.lock().is_some()).await;
    }

    async fn wait_until(&self, is_reached: impl Fn() -> bool) {
        loop {
            let mut change = std::pin::pin!(self.changes.notified());
            // Registers before the check, so that no notification in between is lost.
            change.as_mut().enable();
            if is_reached() {
                return;
            }
            change.await;
        }
    }
}
