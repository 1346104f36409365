//! What a source reads, and how.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use silverd_core::config;
use silverd_core::offsets::Offsets;

use super::problems::SourceProblems;
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
}

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

/// Reads from Bronze's log the next offset of each partition. Blocks; called on the Kafka thread.
pub(crate) type Resume = Arc<dyn Fn() -> anyhow::Result<Offsets> + Send + Sync>;
