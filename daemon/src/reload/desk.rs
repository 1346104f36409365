//! Where a new version waits for its table: the keeper puts it there, the worker takes it between two chunks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use silverd_core::config::SilverTable;
use silverd_core::shadow::Shadow;
use tokio::sync::Notify;

use crate::transform::{Plugin, Transformer};

/// A version that is proven, and started.
pub struct Candidate {
    pub transformer: Transformer,
    /// The table's section, which says what the plugin was given.
    pub config: SilverTable,
    /// What the run beside the old version showed; `None` where there was nothing to compare.
    pub shadow: Option<Shadow>,
    /// The share of events that it may reject beyond that.
    pub max_new_rejects: f64,
    /// When its file was written.
    pub written_at: Option<SystemTime>,
    /// It is an earlier version that is put back: it is trusted.
    pub back: bool,
}

impl Candidate {
    pub fn plugin(&self) -> &Arc<Plugin> {
        self.transformer.plugin()
    }
}

/// Shared by a table's worker and its keeper.
#[derive(Default)]
pub struct Desk {
    serving: Mutex<Option<Arc<Plugin>>>,
    next: Mutex<Option<Candidate>>,
    /// Told when either changes.
    knock: Notify,
}

impl Desk {
    /// The version that fills the table; `None` while there is none.
    pub fn serving(&self) -> Option<Arc<Plugin>> {
        locked(&self.serving).clone()
    }

    /// The worker has turned to a version.
    pub fn serve(&self, plugin: Arc<Plugin>) {
        *locked(&self.serving) = Some(plugin);
        self.knock.notify_waiters();
    }

    /// Puts a version there. One that still waits is replaced by it.
    pub fn put(&self, candidate: Candidate) {
        *locked(&self.next) = Some(candidate);
        self.knock.notify_waiters();
    }

    pub fn take(&self) -> Option<Candidate> {
        locked(&self.next).take()
    }

    /// Takes a version away that nobody has taken up.
    pub fn clear(&self) {
        *locked(&self.next) = None;
    }

    fn waits(&self) -> bool {
        locked(&self.next).is_some()
    }

    /// Waits for a version to lie there.
    pub async fn filled(&self) {
        self.until(|| self.waits()).await;
    }

    /// Waits for the first version that fills the table.
    pub async fn served(&self) {
        self.until(|| self.serving().is_some()).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        loop {
            let knock = self.knock.notified();
            let mut knock = std::pin::pin!(knock);
            knock.as_mut().enable();
            if done() {
                return;
            }
            knock.await;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
