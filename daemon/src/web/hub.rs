//! Between what is made for the page and those who watch it: the newest of everything, and a stream of what changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{Notify, broadcast};

use crate::clock;

/// Pages that may watch at a time.
pub const WATCHERS_MAX: usize = 64;
/// What a slow watcher may miss before it is told to catch up.
const WAITING_MAX: usize = 256;
/// Who asks the API without watching is served fresh answers for so long.
const ASKED_MS: i64 = 15_000;

/// A message of the stream.
#[derive(Clone, Debug)]
pub struct Message {
    pub event: &'static str,
    pub data: Arc<str>,
}

pub struct Hub {
    sender: broadcast::Sender<Message>,
    newest: Mutex<BTreeMap<(&'static str, String), Message>>,
    watchers: AtomicUsize,
    asked_at_ms: AtomicI64,
    somebody: Notify,
}

/// One who watches, until it is dropped.
pub struct Watcher {
    hub: Arc<Hub>,
    pub messages: broadcast::Receiver<Message>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(WAITING_MAX).0,
            newest: Mutex::default(),
            watchers: AtomicUsize::new(0),
            asked_at_ms: AtomicI64::new(0),
            somebody: Notify::new(),
        }
    }
}

impl Hub {
    /// Publishes the newest of its kind and key.
    pub fn publish(&self, event: &'static str, key: &str, payload: &impl Serialize) {
        let Ok(json) = serde_json::to_string(payload) else { return };
        let message = Message { event, data: json.into() };
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).insert((event, key.to_owned()), message.clone());
        let _ = self.sender.send(message); // nobody watches: the newest is kept
    }

    /// The newest of every key.
    pub fn newest(&self) -> Vec<Message> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn newest_of(&self, event: &'static str, key: &str) -> Option<Arc<str>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.get(&(event, key.to_owned())).map(|message| message.data.clone())
    }

    /// `None` where too many watch already.
    pub fn watch(self: &Arc<Self>) -> Option<Watcher> {
        let room = |count| (count < WATCHERS_MAX).then_some(count + 1);
        self.watchers.fetch_update(Relaxed, Relaxed, room).ok()?;
        let watcher = Watcher { hub: self.clone(), messages: self.sender.subscribe() };
        self.somebody.notify_waiters();
        Some(watcher)
    }

    /// Somebody asks the API.
    pub fn ask(&self) {
        self.asked_at_ms.store(clock::now_ms(), Relaxed);
        self.somebody.notify_waiters();
    }

    pub fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    /// Whether anything has to be made at all.
    pub fn is_watched(&self) -> bool {
        self.watchers() > 0 || clock::now_ms() - self.asked_at_ms.load(Relaxed) < ASKED_MS
    }

    /// Waits until somebody watches.
    pub async fn watched(&self) {
        loop {
            let somebody = self.somebody.notified();
            if self.is_watched() {
                return;
            }
            somebody.await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.watchers.fetch_sub(1, Relaxed);
    }
}
