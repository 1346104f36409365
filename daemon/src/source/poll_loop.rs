//! The poll loop of a session: collects messages in a chunk, and hands the chunk over when it is due or full.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Statistics};
use silverd_core::chunk::ChunkBuilder;
use silverd_core::flush_policy::FlushPolicy;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::client::{LogLimit, POLL_TIMEOUT, log_client_error};
use super::event::{ReadChunk, SourceEvent};
use super::group_check::GroupCheck;
use super::options::SourceOptions;
use super::rebalance::{AssignedPartition, ConsumerEvent, RebalanceContext};
use super::record;
use crate::runtime::clock;
use crate::telemetry::{Stage, thread_cpu};

const UNREADABLE_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Reading the clock costs as much as a message.
const MESSAGES_PER_CLOCK_READ: u32 = 512;

/// Why a session ended without a failure.
pub(super) enum SessionEnd {
    /// The source was stopped, or the topic is drained.
    Finished,
    /// The group assigns nothing, and nobody writes to Bronze although Kafka has more records.
    NothingAssigned,
    /// It is time to join the group again.
    JoinGroup,
    ProtocolUnsupported,
}

/// Who assigns the partitions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Assignment {
    Group,
    /// silverd reads all partitions: no other process reads them.
    All,
    /// silverd reads all partitions for some time, because the group does not work.
    AllFor(Duration),
}

pub(super) struct PollLoop<'s> {
    options: &'s SourceOptions,
    stop: &'s AtomicBool,
    events: &'s mpsc::Sender<SourceEvent>,
    consumer: &'s BaseConsumer<RebalanceContext>,
    assignment: Assignment,
    /// How many partitions the topic has.
    partitions: usize,
    chunk: ChunkBuilder,
    /// When the first record of the chunk arrived.
    first_record_at: Option<Instant>,
    flush_policy: FlushPolicy,
    started: Instant,
    /// The next offset of each partition that is read.
    positions: BTreeMap<i32, i64>,
    /// Where each partition ended when it was assigned.
    initial_ends: BTreeMap<i32, i64>,
    /// Partitions whose end was reached.
    at_end: HashSet<i32>,
    has_unreadable: bool,
    group_check: GroupCheck,
    error_log: LogLimit,
}

impl<'s> PollLoop<'s> {
    pub(super) fn new(
        options: &'s SourceOptions,
        stop: &'s AtomicBool,
        events: &'s mpsc::Sender<SourceEvent>,
        consumer: &'s BaseConsumer<RebalanceContext>,
        (cluster_id, partitions): (Arc<str>, usize),
        assignment: Assignment,
    ) -> Self {
        Self {
            options,
            stop,
            events,
            consumer,
            assignment,
            partitions,
            chunk: ChunkBuilder::new(cluster_id, options.config.topic.as_str().into()),
            first_record_at: None,
            flush_policy: FlushPolicy::new(options.limits.interval),
            started: Instant::now(),
            positions: BTreeMap::new(),
            initial_ends: BTreeMap::new(),
            at_end: HashSet::new(),
            has_unreadable: false,
            group_check: GroupCheck::default(),
            error_log: LogLimit::default(),
        }
    }

    pub(super) fn run(mut self) -> anyhow::Result<SessionEnd> {
        while !self.stop.load(Relaxed) {
            let before = thread_cpu();
            let end = self.poll_messages();
            self.options.stages.add(Stage::Poll, thread_cpu().saturating_sub(before));
            if let Some(end) = end? {
                return Ok(end);
            }
            if let Some(end) = self.check_assignment()? {
                self.hand_over(false);
                return Ok(end);
            }
            if self.options.drain && self.is_drained() {
                self.hand_over(false);
                let _ = self.events.blocking_send(SourceEvent::Drained);
                return Ok(SessionEnd::Finished);
            }
        }
        self.hand_over(false);
        Ok(SessionEnd::Finished)
    }

    /// Reads messages until Kafka has none ready, or for a number of messages.
    fn poll_messages(&mut self) -> anyhow::Result<Option<SessionEnd>> {
        for _ in 0..MESSAGES_PER_CLOCK_READ {
            let polled = match self.consumer.poll(Duration::ZERO) {
                Some(polled) => Some(polled),
                None => {
                    self.handle_events()?;
                    let flush_in = |at: Instant| at.saturating_duration_since(Instant::now());
                    let wait = self.flush_at(true).map_or(POLL_TIMEOUT, flush_in);
                    if wait.is_zero() { None } else { self.consumer.poll(wait.min(POLL_TIMEOUT)) }
                }
            };
            // Before the message: its partition may have been revoked.
            self.handle_events()?;
            match polled {
                None => {
                    self.hand_over_if_due(true);
                    return Ok(None);
                }
                Some(Ok(message)) => self.add_message(&message),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.at_end.insert(partition);
                    if self.options.drain && self.is_drained() {
                        return Ok(None);
                    }
                }
                Some(Err(failure)) => return self.handle_kafka_error(failure),
            }
        }
        self.hand_over_if_due(false);
        Ok(None)
    }

    fn add_message(&mut self, message: &BorrowedMessage<'_>) {
        let size = message.payload_len() + message.key_len();
        let limits = &self.options.limits;
        if self.chunk.rows() > 0 && self.chunk.bytes() + size > limits.bytes_max {
            self.hand_over(true);
        }
        // The partition of a message that waited in librdkafka's queue may have been revoked since.
        let Some(position) = self.positions.get_mut(&message.partition()) else { return };
        if message.offset() < *position {
            return;
        }
        self.chunk.push(*position, record::from_message(message));
        *position = message.offset() + 1;
        self.options.bytes_read.fetch_add(size as u64, Relaxed);
        if self.first_record_at.is_none() {
            self.first_record_at = Some(Instant::now());
        }
        if self.chunk.rows() >= limits.rows_max || self.chunk.bytes() >= limits.bytes_max {
            self.hand_over(true);
        }
    }

    /// The only place that handles what librdkafka's callbacks report.
    fn handle_events(&mut self) -> anyhow::Result<()> {
        for event in self.consumer.context().take_events() {
            match event {
                ConsumerEvent::Assigned(partitions) => self.add_partitions(&partitions)?,
                ConsumerEvent::Revoked(partitions) => self.remove_partitions(&partitions),
                ConsumerEvent::Statistics(statistics) => self.update_watermarks(&statistics),
                ConsumerEvent::Error { error, reason } => log_client_error(&error, &reason),
                ConsumerEvent::RebalanceFailed(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn add_partitions(&mut self, assigned: &[AssignedPartition]) -> anyhow::Result<()> {
        let (topic, context) = (&self.options.config.topic, self.consumer.context());
        let partitions: Vec<i32> = assigned.iter().map(|assigned| assigned.partition).collect();
        info!(?partitions, "partitions assigned");
        let mut leaves_out = false;
        for assigned in assigned {
            let partition = assigned.partition;
            self.options.high_watermarks.set(context.log_partition(partition), assigned.high);
            let start = match &assigned.start {
                Ok(start) => *start,
                Err(unreadable) => {
                    let refusal = format!("partition {partition} of {topic} is not read: {unreadable}");
                    anyhow::ensure!(!self.options.drain, refusal);
                    error!("{refusal}");
                    self.has_unreadable = true;
                    continue;
                }
            };
            if let Some(lost) = assigned.lost_offsets() {
                warn!(
                    "partition {partition} of {topic}: Kafka has deleted the {lost} offsets before {start}; they are \
                     skipped (`on_data_loss = \"skip\"` under [source])"
                );
            }
            self.positions.insert(partition, start);
            self.initial_ends.insert(partition, assigned.high);
            if let Some(end) = assigned.left_out_end() {
                // Bronze commits them as covered, so that a restart does not start at the latest offset again.
                self.chunk.cover(partition, end);
                leaves_out = true;
            }
        }
        if leaves_out {
            self.hand_over(false);
        }
        Ok(())
    }

    /// Hands the chunk over, because its part of a revoked partition ends. If another daemon has committed these
    /// records in the meantime, Bronze's fence rejects the chunk.
    fn remove_partitions(&mut self, partitions: &[i32]) {
        info!(?partitions, "partitions revoked");
        for partition in partitions {
            self.positions.remove(partition);
            self.at_end.remove(partition);
        }
        self.hand_over(false);
    }

    fn update_watermarks(&self, statistics: &Statistics) {
        let Some(topic) = statistics.topics.get(&self.options.config.topic) else { return };
        for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
            let log = self.consumer.context().log_partition(partition.partition);
            self.options.high_watermarks.set(log, partition.hi_offset);
        }
    }

    /// Whether everything that was in the topic at the start was read. A log can end in offsets without records (those
    /// of transactions): then the end of the partition counts.
    fn is_drained(&self) -> bool {
        let is_read = |partition: &i32| self.positions.get(partition) >= self.initial_ends.get(partition);
        self.initial_ends.len() == self.partitions
            && self.initial_ends.keys().all(|partition| is_read(partition) || self.at_end.contains(partition))
    }

    /// Whether the session must end because partitions are missing.
    fn check_assignment(&mut self) -> anyhow::Result<Option<SessionEnd>> {
        anyhow::ensure!(
            !self.has_unreadable || self.started.elapsed() < UNREADABLE_RETRY_INTERVAL,
            "check again whether the unreadable partitions can be read"
        );
        match self.assignment {
            Assignment::All => Ok(None),
            Assignment::AllFor(time) => Ok((self.started.elapsed() > time).then_some(SessionEnd::JoinGroup)),
            Assignment::Group => {
                let assigned = !self.positions.is_empty() || self.has_unreadable;
                let stuck = self.group_check.is_stuck(assigned, self.options, self.consumer, self.partitions)?;
                Ok(stuck.then_some(SessionEnd::NothingAssigned))
            }
        }
    }

    /// When the chunk is due. `is_idle`: Kafka has no more records ready.
    fn flush_at(&self, is_idle: bool) -> Option<Instant> {
        let since_start = |time: Instant| time.duration_since(self.started);
        self.first_record_at.map(|first| self.started + self.flush_policy.flush_at(since_start(first), is_idle))
    }

    fn hand_over_if_due(&mut self, is_idle: bool) {
        if self.flush_at(is_idle).is_some_and(|due| due <= Instant::now()) {
            self.hand_over(false);
        }
    }

    fn hand_over(&mut self, full: bool) {
        self.first_record_at = None;
        if !self.chunk.is_empty() {
            self.flush_policy.flushed(self.started.elapsed());
            let chunk = self.chunk.finish(clock::now_micros());
            // Fails only if the pipeline has dropped the source, which also stops this loop.
            let _ = self.events.blocking_send(SourceEvent::Chunk(ReadChunk { chunk, full }));
            // Wait until the pipeline takes the chunk: a second chunk in memory would make nothing faster.
            let _ = futures::executor::block_on(self.events.reserve());
        }
    }

    fn handle_kafka_error(&mut self, failure: KafkaError) -> anyhow::Result<Option<SessionEnd>> {
        let code = failure.rdkafka_error_code();
        if let KafkaError::MessageConsumptionFatal(_) = failure {
            let Some((code, reason)) = self.consumer.client().fatal_error() else { return Err(anyhow!(failure)) };
            if is_protocol_unsupported(code) {
                return Ok(Some(SessionEnd::ProtocolUnsupported));
            }
            return Err(anyhow!("{failure}: {reason}"));
        }
        if code.is_some_and(is_unsupported) {
            return Ok(Some(SessionEnd::ProtocolUnsupported));
        }
        if code.is_some_and(needs_new_session) {
            return Err(anyhow!(failure).context(format!("read topic {}", self.options.config.topic)));
        }
        // librdkafka recovers from all other errors: it reconnects, and continues at the same offset.
        if self.error_log.allows() {
            warn!("kafka at {}: {failure}; retrying", self.options.broker.bootstrap);
        }
        Ok(None)
    }
}

fn is_unsupported(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature)
}

/// Whether the fatal error says that the broker does not support `group.protocol=consumer`. The last two are fatal only
/// in the answer to this protocol's heartbeat.
fn is_protocol_unsupported(fatal: RDKafkaErrorCode) -> bool {
    is_unsupported(fatal) || matches!(fatal, RDKafkaErrorCode::UnsupportedAssignor | RDKafkaErrorCode::InvalidRequest)
}

/// Errors from which librdkafka does not recover without a new consumer.
fn needs_new_session(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}
