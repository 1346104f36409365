//! Sends messages to the clients of `/api/stream`, and keeps the newest of each kind for clients that connect later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, broadcast};

use crate::runtime::clock;

/// Clients that can be connected at a time.
const CLIENTS_MAX: usize = 64;
/// How many messages a slow client can be behind before it misses some.
const QUEUED_MESSAGES_MAX: usize = 256;
/// How long a request to the API counts as a client that waits for new results.
const REQUEST_KEEPALIVE_MS: i64 = 15_000;

/// A message of the stream.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub event: &'static str,
    pub data: Arc<str>,
}

pub(super) struct EventBroadcast {
    sender: broadcast::Sender<Message>,
    newest: Mutex<BTreeMap<(&'static str, String), Message>>,
    clients: AtomicUsize,
    requested_at_ms: AtomicI64,
    client_arrived: Notify,
}

/// A connected client. Dropping it disconnects it.
pub(super) struct Client {
    events: Arc<EventBroadcast>,
    pub messages: broadcast::Receiver<Message>,
}

impl Default for EventBroadcast {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(QUEUED_MESSAGES_MAX).0,
            newest: Mutex::default(),
            clients: AtomicUsize::new(0),
            requested_at_ms: AtomicI64::new(0),
            client_arrived: Notify::new(),
        }
    }
}

impl EventBroadcast {
    /// Sends a message to all clients. It replaces the message with the same event and key.
    pub fn publish(&self, event: &'static str, key: &str, payload: &impl Serialize) {
        if let Ok(json) = serde_json::to_string(payload) {
            self.send(event, key, json);
        }
    }

    /// Sends a message that differs from the newest one with the same event and key.
    pub fn publish_if_new(&self, event: &'static str, key: &str, payload: &impl Serialize) {
        let Ok(json) = serde_json::to_string(payload) else { return };
        if self.newest_of(event, key).is_none_or(|newest| *newest != *json) {
            self.send(event, key, json);
        }
    }

    fn send(&self, event: &'static str, key: &str, json: String) {
        let message = Message { event, data: json.into() };
        self.newest.lock().insert((event, key.to_owned()), message.clone());
        let _ = self.sender.send(message); // fails without clients
    }

    /// The newest message of each event and key.
    pub fn newest(&self) -> Vec<Message> {
        self.newest.lock().values().cloned().collect()
    }

    pub fn newest_of(&self, event: &'static str, key: &str) -> Option<Arc<str>> {
        self.newest.lock().get(&(event, key.to_owned())).map(|message| message.data.clone())
    }

    /// `None` if `CLIENTS_MAX` clients are connected already.
    pub fn connect(self: &Arc<Self>) -> Option<Client> {
        let one_more = |count| (count < CLIENTS_MAX).then_some(count + 1);
        self.clients.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        let client = Client { events: self.clone(), messages: self.sender.subscribe() };
        self.client_arrived.notify_waiters();
        Some(client)
    }

    /// Notes a request to the API: results are kept up to date for a while.
    pub fn note_request(&self) {
        self.requested_at_ms.store(clock::now_ms(), Relaxed);
        self.client_arrived.notify_waiters();
    }

    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Whether anybody needs results.
    pub fn is_in_use(&self) -> bool {
        self.clients() > 0 || clock::now_ms() - self.requested_at_ms.load(Relaxed) < REQUEST_KEEPALIVE_MS
    }

    /// Waits until somebody needs results.
    pub async fn in_use(&self) {
        loop {
            let client_arrived = self.client_arrived.notified();
            if self.is_in_use() {
                return;
            }
            client_arrived.await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.events.clients.fetch_sub(1, Relaxed);
    }
}
