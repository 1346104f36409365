//! The source of the flow: a consumer on a thread of its own, and what it hands over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use silverd_core::chunk::Chunk;
use silverd_core::config;
use silverd_core::offsets::{LogPartition, Offsets, Ranges};
use tokio::sync::mpsc;
use tracing::debug;

use super::assign::Rebalances;
use super::session;
use crate::telemetry::Stages;

/// Where the brokers are, and whose log it is if they do not say.
#[derive(Clone, Debug)]
pub struct Broker {
    pub bootstrap: String,
    /// Given for a broker without a group and a cluster id of its own: the embedded one.
    pub cluster_id: Option<String>,
}

/// When a chunk is full.
#[derive(Clone, Debug)]
pub struct Cadence {
    pub interval: Duration,
    pub rows_max: usize,
    pub bytes_max: usize,
}

/// Gives the next offsets as Bronze's log has them now. Called on the polling thread, which may wait.
pub type Resume = Arc<dyn Fn() -> anyhow::Result<Offsets> + Send + Sync>;

/// What the polling thread tells the flow.
pub enum Arrival {
    Chunk(Gathered),
    /// Everything that was in the topic when the source started has been handed over.
    Drained,
    /// The consumer cannot go on; a new source may.
    Failed(anyhow::Error),
}

/// A chunk, and why it was handed over.
pub struct Gathered {
    pub chunk: Chunk,
    /// It has all the rows or bytes that it may have: there is more where it came from.
    pub full: bool,
}

/// What a source reads, and how.
#[derive(Clone)]
pub struct Task {
    pub config: config::Source,
    pub broker: Broker,
    pub cadence: Cadence,
    pub resume: Resume,
    /// Ends with `Drained` when the end of every partition has been seen.
    pub drain: bool,
    pub stages: Arc<Stages>,
    /// Bytes of keys and values taken from Kafka so far.
    pub taken: Arc<AtomicU64>,
    pub high: Arc<High>,
}

/// Where each log partition ends, as far as the broker has told: up to a second late.
#[derive(Default)]
pub struct High(Mutex<Offsets>);

impl High {
    pub(super) fn set(&self, log: LogPartition, end: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(log, end);
    }

    /// Each log partition with its end.
    pub fn ends(&self) -> Offsets {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Offsets that a table that has come to `next` has not.
    pub fn lag(&self, next: &Offsets) -> i64 {
        let high = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        high.iter().map(|(log, end)| (end - next.get(log).copied().unwrap_or(0)).max(0)).sum()
    }
}

/// A consumer at work. Dropping it ends its thread.
pub struct Source {
    arrivals: mpsc::Receiver<Arrival>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    pub(super) task: Task,
    pub(super) stop: AtomicBool,
    /// The consumer while it is a member of the group.
    pub(super) member: Mutex<Option<Arc<BaseConsumer<Rebalances>>>>,
}

impl std::ops::Deref for Shared {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.task
    }
}

/// Chunks that wait for the flow. Polling goes on once they are taken, while Bronze commits them.
const CHUNKS_WAITING_MAX: usize = 1;

impl Source {
    pub fn start(task: Task) -> anyhow::Result<Self> {
        let (sender, arrivals) = mpsc::channel(CHUNKS_WAITING_MAX);
        let shared = Arc::new(Shared { task, stop: AtomicBool::new(false), member: Mutex::new(None) });
        let polling = shared.clone();
        let thread = std::thread::Builder::new().name("kafka-poll".to_owned()).spawn(move || {
            if let Err(failure) = session::poll(&polling, &sender) {
                let _ = sender.blocking_send(Arrival::Failed(failure));
            }
        })?;
        Ok(Self { arrivals, shared, thread: Some(thread) })
    }

    /// The next thing from Kafka; `None` when the source has come to its end.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// Lets the thread hand over what it has gathered, and end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Relaxed);
    }

    pub fn stopping(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }

    /// Tells the group how far Bronze has come, for lag displays. Nothing resumes from there.
    pub fn committed(&self, ranges: &Ranges) {
        let member = self.shared.member.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(consumer) = member.as_ref() else { return };
        let mut offsets = TopicPartitionList::new();
        for (log, range) in ranges.iter() {
            let _ = offsets.add_partition_offset(&log.topic, log.partition, Offset::Offset(range.end));
        }
        if let Err(failure) = consumer.commit(&offsets, rdkafka::consumer::CommitMode::Async) {
            debug!("commit group offsets: {failure}");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
        self.arrivals.close();
        while self.arrivals.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
