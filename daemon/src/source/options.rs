//! What a source reads, and how.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use silverd_core::config;
use silverd_core::offsets::{LogPartition, Offsets, TopicIds};

use super::problems::SourceProblems;
use super::topics::FirstTopics;
use super::watermarks::HighWatermarks;
use crate::telemetry::Stages;

#[derive(Clone)]
pub(crate) struct SourceOptions {
    pub(crate) config: config::Source,
    pub(crate) broker: Broker,
    pub(crate) limits: BatchLimits,
    pub(crate) resume: Resume,
    /// End with `Drained` once the end of every partition is reached.
    pub(crate) drain: bool,
    pub(crate) stages: Arc<Stages>,
    /// Bytes of keys and values read from Kafka.
    pub(crate) bytes_read: Arc<AtomicU64>,
    pub(crate) high_watermarks: Arc<HighWatermarks>,
    pub(crate) problems: Arc<SourceProblems>,
    pub(crate) first_topics: Arc<FirstTopics>,
    /// The ids that topics have now, for Bronze's log.
    pub(crate) topic_ids: Arc<Mutex<TopicIds>>,
    /// Partitions whose next record Kafka no longer had, or had replaced, although silverd was reading them.
    pub(crate) cut_logs: Arc<CutLogs>,
}

/// Partitions whose logs lost their ends.
pub(crate) type CutLogs = Mutex<BTreeSet<LogPartition>>;

/// Where the brokers are.
#[derive(Clone, Debug)]
pub struct Broker {
    pub bootstrap: String,
    /// Set for the embedded broker, which has no cluster id and no consumer groups.
    pub cluster_id: Option<String>,
}

/// When a chunk is handed over.
#[derive(Clone, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) interval: Duration,
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
}

/// Reads from Bronze's log how far it is. Blocks; called on the Kafka thread.
pub(crate) type Resume = Arc<dyn Fn() -> anyhow::Result<Progress> + Send + Sync>;

/// How far Bronze is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The next offset of each log partition.
    pub(crate) offsets: Offsets,
    /// The id that each topic had when Bronze first stored records of it.
    pub(crate) topic_ids: TopicIds,
}
