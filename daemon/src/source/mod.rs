//! The source: reads Kafka topics on a thread of its own, and hands it over in chunks.
//!
//! ```text
//!   kafka-poll thread                                                                    the pipeline
//!
//!   consumer     one session after another
//!     └─ poll_loop   poll ──▶ message ──▶ chunk ──(due or full)──▶ SourceEvent::Chunk ──▶ Source::next
//!          ▲                                                                                  │
//!          │ ConsumerEvent                                                                    ▼
//!        rebalance   assigned: start at the offset that Bronze's log has ◀── Resume ───── Bronze commits
//!                    revoked:  hand the chunk over                                            │
//!                                                                                             ▼
//!   Kafka  ◀── group offsets, only to display the lag ──────────────────────────────── Source::committed
//! ```
//!
//! At most one chunk waits while Bronze commits the previous one. Then the poll loop stops, which is the back pressure.

mod client;
mod consumer;
mod embedded_broker;
mod end_offsets;
mod event;
mod group_check;
mod kafka_error;
mod newest;
mod open_transactions;
mod options;
mod poll_loop;
mod positions;
mod problems;
mod read_again;
mod rebalance;
mod record;
mod topic_ids;
mod topics;
mod watchdog;
mod watermarks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use silverd_core::offsets::Ranges;
use tokio::sync::mpsc;
use tracing::debug;

use consumer::Control;
pub use embedded_broker::EmbeddedBroker;
pub(crate) use event::{ReadChunk, SourceEvent};
pub(crate) use newest::newest_events;
pub use options::Broker;
pub(crate) use options::{BatchLimits, CutLogs, Progress, Resume, SourceOptions};
pub use problems::SourceProblem;
pub(crate) use problems::{ProblemOf, SourceProblems};
pub(crate) use read_again::{ChunkSize, OffsetRanges, StillInKafka};
#[cfg(test)]
pub(crate) use rebalance::start_offset;
pub(crate) use topics::FirstTopics;
pub(crate) use watermarks::HighWatermarks;

/// Chunks that wait for the pipeline. The next one is read while Bronze commits the previous one.
const CHUNKS_WAITING_MAX: usize = 1;

/// What the pipeline reads. Dropping it ends it.
#[async_trait]
pub(crate) trait Source: Send {
    /// The next event; `None` when the source has ended. Nothing is lost if the future is dropped.
    async fn next(&mut self) -> Option<SourceEvent>;
    /// Makes the source hand over its current chunk and end.
    fn stop(&self);
    fn is_stopping(&self) -> bool;
    /// A chunk is in Bronze.
    fn committed(&self, ranges: &Ranges);
}

/// How sources are started: Kafka's, by default.
#[derive(Clone)]
pub struct Sources(Arc<dyn Fn(SourceOptions) -> anyhow::Result<Box<dyn Source>> + Send + Sync>);

impl Default for Sources {
    fn default() -> Self {
        Self(Arc::new(|options| {
            let source: Box<dyn Source> = Box::new(KafkaSource::start(options)?);
            Ok(source)
        }))
    }
}

impl Sources {
    #[cfg(test)]
    pub(crate) fn new(
        start: impl Fn(SourceOptions) -> anyhow::Result<Box<dyn Source>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(start))
    }

    pub(crate) fn start(&self, options: SourceOptions) -> anyhow::Result<Box<dyn Source>> {
        (self.0)(options)
    }
}

/// The topics of a Kafka, read on a thread.
struct KafkaSource {
    events: mpsc::Receiver<SourceEvent>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaSource {
    fn start(options: SourceOptions) -> anyhow::Result<Self> {
        let (sender, events) = mpsc::channel(CHUNKS_WAITING_MAX);
        let options = Arc::new(options);
        let control = Arc::new(Control { options, stop: AtomicBool::new(false), group_member: Mutex::new(None) });
        let thread_control = control.clone();
        let thread = std::thread::Builder::new().name("kafka-poll".to_owned()).spawn(move || {
            if let Err(failure) = consumer::run(&thread_control, &sender) {
                let _ = sender.blocking_send(SourceEvent::Failed(failure));
            }
        })?;
        Ok(Self { events, control, thread: Some(thread) })
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self) -> Option<SourceEvent> {
        self.events.recv().await
    }

    fn stop(&self) {
        self.control.stop.store(true, Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.control.stop.load(Relaxed)
    }

    /// Commits the offsets of a chunk that is in Bronze to the consumer group, to display the lag. silverd never
    /// resumes from them.
    fn committed(&self, ranges: &Ranges) {
        let member = self.control.group_member.lock();
        let Some(consumer) = member.as_ref() else { return };
        let mut offsets = TopicPartitionList::new();
        for (log, range) in ranges.iter() {
            let _ = offsets.add_partition_offset(&log.topic, log.partition, Offset::Offset(range.end));
        }
        if let Err(failure) = consumer.commit(&offsets, CommitMode::Async) {
            debug!("commit group offsets: {failure}");
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.stop();
        self.events.close();
        while self.events.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
