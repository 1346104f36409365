//! The queues of all receivers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use silverd_core::config::{NotifyReceiver, Pipeline};
use silverd_core::notify::Notification;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::delivery::Receiver;
use super::status::{REMOVED, ReceiverStatus};
use crate::runtime::state_dir::StateDir;

/// Delivers notifications, each at least once, and remembers over restarts what is not delivered yet.
pub struct Outbox {
    folder: PathBuf,
    receivers: Mutex<Receivers>,
    /// A receiver has come.
    changed: Notify,
}

struct Receivers {
    by_name: BTreeMap<Box<str>, Queue>,
    /// Those of pipeline.toml.
    configured: Vec<NotifyReceiver>,
    base_dir: PathBuf,
}

struct Queue {
    receiver: Arc<Receiver>,
    /// Whether a task delivers it.
    is_running: bool,
}

impl Outbox {
    /// Loads what an earlier process left in the folder. The paths of the receivers are relative to `base_dir`.
    pub fn open(folder: &Path, config: &Pipeline, base_dir: &Path) -> anyhow::Result<Arc<Self>> {
        StateDir::open(folder)?;
        let mut receivers =
            Receivers { by_name: BTreeMap::new(), configured: config.notify.clone(), base_dir: base_dir.to_path_buf() };
        let list = || format!("list {}", folder.display());
        for entry in fs::read_dir(folder).with_context(list)? {
            let entry = entry.with_context(list)?;
            if entry.path().is_dir()
                && let Ok(name) = entry.file_name().into_string()
                && is_name(&name)
            {
                receivers.get_or_open(&name, folder)?;
            }
        }
        for receiver in &config.notify {
            receivers.get_or_open(&receiver.name, folder)?;
        }
        Ok(Arc::new(Self { folder: folder.to_path_buf(), receivers: Mutex::new(receivers), changed: Notify::new() }))
    }

    /// Durable when it returns: one entry a receiver. A notification that waits, or was delivered lately, is not added
    /// again. Waits for the disk.
    pub fn add(&self, notification: &Notification, receivers: &[Box<str>]) -> anyhow::Result<()> {
        if !Notification::is_id(&notification.id) {
            bail!("`{}` cannot be the id of a notification", notification.id.escape_default());
        }
        let notification = notification.bounded();
        // A receiver whose folder cannot be written keeps it from no other one.
        let added: Vec<_> = receivers.iter().map(|name| self.receiver(name)?.add(&notification)).collect();
        added.into_iter().collect()
    }

    /// Whether a receiver has this notification waiting, or was done with it lately.
    pub fn has(&self, id: &str, receiver: &str) -> bool {
        let receiver = self.receivers.lock().by_name.get(receiver).map(|queue| queue.receiver.clone());
        receiver.is_some_and(|receiver| receiver.knows(id))
    }

    /// Delivers until `stop`, and up to five seconds more what is under way.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        while !stop.is_cancelled() {
            for queue in self.receivers.lock().by_name.values_mut().filter(|queue| !queue.is_running) {
                queue.is_running = true;
                tasks.spawn(queue.receiver.clone().run(stop.clone()));
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.cancelled() => {}
            }
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(failure) = ended {
                error!("deliver notifications: {failure}");
            }
        }
        self.receivers.lock().by_name.values_mut().for_each(|queue| queue.is_running = false);
    }

    /// By name.
    pub fn status(&self) -> Vec<ReceiverStatus> {
        let receivers: Vec<_> = self.receivers.lock().by_name.values().map(|queue| queue.receiver.clone()).collect();
        let status = receivers.iter().map(|receiver| receiver.status());
        // One that was removed is of interest only while it has notifications.
        status.filter(|status| status.kind != REMOVED || status.waiting > 0).collect()
    }

    /// From now on, notifications go to these receivers. What waits for one that is not among them is kept for a day.
    pub fn apply_config(&self, config: &Pipeline, base_dir: &Path) {
        let mut receivers = self.receivers.lock();
        receivers.configured.clone_from(&config.notify);
        receivers.base_dir = base_dir.to_path_buf();
        for queue in receivers.by_name.values() {
            receivers.configure(&queue.receiver);
        }
        drop(receivers);
        for receiver in &config.notify {
            // The next notification for it tries again.
            if let Err(failure) = self.receiver(&receiver.name) {
                error!("{failure:#}");
            }
        }
    }

    /// The queue of that name; a new one if there is none.
    fn receiver(&self, name: &str) -> anyhow::Result<Arc<Receiver>> {
        let receiver = self.receivers.lock().get_or_open(name, &self.folder)?;
        self.changed.notify_one();
        Ok(receiver)
    }
}

impl Receivers {
    fn get_or_open(&mut self, name: &str, folder: &Path) -> anyhow::Result<Arc<Receiver>> {
        if let Some(queue) = self.by_name.get(name) {
            return Ok(queue.receiver.clone());
        }
        if !is_name(name) {
            bail!("`{}` cannot be the name of a receiver", name.escape_default());
        }
        let receiver = Arc::new(Receiver::open(name, &folder.join(name))?);
        // After a power failure, its folder is there: what is added to it must not be lost.
        StateDir::open(folder)?.sync()?;
        self.configure(&receiver);
        self.by_name.insert(name.into(), Queue { receiver: receiver.clone(), is_running: false });
        Ok(receiver)
    }

    fn configure(&self, receiver: &Receiver) {
        let config = self.configured.iter().find(|config| &*config.name == receiver.name());
        receiver.configure(config, &self.base_dir);
    }
}

/// Names become folders.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_plain)
}
