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

use super::client::{AdminConsumer, LogLimit, POLL_TIMEOUT, log_client_error};
use super::end_offsets::EndOffsets;
use super::event::{ReadChunk, SourceEvent};
use super::group_check::GroupCheck;
use super::kafka_error::{Remedy, remedy};
use super::open_transactions::OpenTransactions;
use super::options::SourceOptions;
use super::rebalance::{AssignedPartition, ConsumerEvent, RebalanceContext};
use super::record;
use super::watchdog::Watchdog;
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
    /// The same, after the group had assigned partitions.
    PartitionsLost,
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
    admin: AdminConsumer,
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
    end_offsets: EndOffsets,
    watchdog: Watchdog,
    open_transactions: OpenTransactions,
    /// The newest statistics of librdkafka.
    statistics: Option<Box<Statistics>>,
    error_log: LogLimit,
}

impl<'s> PollLoop<'s> {
    pub(super) fn new(
        options: &'s SourceOptions,
        stop: &'s AtomicBool,
        events: &'s mpsc::Sender<SourceEvent>,
        (consumer, admin): (&'s BaseConsumer<RebalanceContext>, AdminConsumer),
        (cluster_id, partitions): (Arc<str>, usize),
        assignment: Assignment,
    ) -> Self {
        Self {
            options,
            stop,
            events,
            consumer,
            admin,
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
            end_offsets: EndOffsets::default(),
            watchdog: Watchdog::new(),
            open_transactions: OpenTransactions::default(),
            statistics: None,
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
                    self.queue_is_empty()?;
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

    /// No message is ready: offsets without records at the ends of the partitions count as read, and Kafka is asked
    /// whether it has more.
    fn queue_is_empty(&mut self) -> anyhow::Result<()> {
        for (partition, end) in self.end_offsets.queue_is_empty() {
            let Some(position) = self.positions.get_mut(&partition).filter(|position| **position < end) else {
                continue;
            };
            self.chunk.pass(partition, *position, end);
            *position = end;
            self.first_record_at.get_or_insert_with(Instant::now);
        }
        let topic = &self.options.config.topic;
        let ends = self.watchdog.check(&self.admin, topic, &self.positions, self.statistics.as_deref())?;
        for (partition, end) in ends {
            self.options.high_watermarks.set(self.consumer.context().log_partition(partition), end);
        }
        Ok(())
    }

    /// The only place that handles what librdkafka's callbacks report.
    fn handle_events(&mut self) -> anyhow::Result<()> {
        for event in self.consumer.context().take_events() {
            match event {
                ConsumerEvent::Assigned(partitions) => self.add_partitions(&partitions)?,
                ConsumerEvent::Began(beginnings) => self.begin(&beginnings),
                ConsumerEvent::Revoked(partitions) => self.remove_partitions(&partitions),
                ConsumerEvent::Statistics(statistics) => {
                    self.update_watermarks(&statistics);
                    self.end_offsets.update(&statistics, &self.options.config.topic);
                    self.statistics = Some(statistics);
                }
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
        for assigned in assigned {
            let partition = assigned.partition;
            self.options.high_watermarks.set(context.log_partition(partition), assigned.high);
            let start = match &assigned.start {
                Ok(start) => *start,
                Err(unreadable) => {
                    let refusal = format!("partition {partition} of {topic} is not read: {unreadable}");
                    anyhow::ensure!(!self.options.drain, refusal);
                    error!("{refusal}");
                    self.options.problems.set(format!("partition {partition}"), refusal);
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
            self.end_offsets.assigned(partition);
            self.initial_ends.insert(partition, assigned.high);
        }
        Ok(())
    }

    /// Bronze commits the offsets before the beginning of each partition as covered, so that the next start, and another
    /// daemon, begin there as well.
    fn begin(&mut self, beginnings: &[(i32, i64)]) {
        for (partition, beginning) in beginnings {
            self.chunk.cover(*partition, *beginning);
        }
        self.hand_over(false);
    }

    /// Hands the chunk over, because its part of a revoked partition ends. If another daemon has committed these
    /// records in the meantime, Bronze's fence rejects the chunk.
    fn remove_partitions(&mut self, partitions: &[i32]) {
        info!(?partitions, "partitions revoked");
        for partition in partitions {
            self.positions.remove(partition);
            self.end_offsets.revoked(*partition);
            self.at_end.remove(partition);
        }
        self.hand_over(false);
    }

    /// The end of a partition is that of its last transaction that is not open: what comes after it is not given out.
    fn update_watermarks(&mut self, statistics: &Statistics) {
        let Some(topic) = statistics.topics.get(&self.options.config.topic) else { return };
        for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
            let is_stable = (0..=partition.hi_offset).contains(&partition.ls_offset);
            let end = if is_stable { partition.ls_offset } else { partition.hi_offset };
            let log = self.consumer.context().log_partition(partition.partition);
            self.options.high_watermarks.set(log, end);
            self.open_transactions.update(&self.options.config.topic, partition.partition, end, partition.hi_offset);
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
                let context = self.consumer.context();
                let stuck = self.group_check.is_stuck(assigned, self.options, &self.admin, context, self.partitions)?;
                let end = if self.group_check.has_worked() {
                    SessionEnd::PartitionsLost
                } else {
                    SessionEnd::NothingAssigned
                };
                Ok(stuck.then_some(end))
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
        let topic = &self.options.config.topic;
        if let KafkaError::MessageConsumptionFatal(_) = failure {
            let Some((code, reason)) = self.consumer.client().fatal_error() else { return Err(anyhow!(failure)) };
            return match remedy(code) {
                Some(Remedy::ClassicProtocol) => Ok(Some(SessionEnd::ProtocolUnsupported)),
                // Fatal only in the answer to the heartbeat of `group.protocol = "consumer"`.
                None if code == RDKafkaErrorCode::InvalidRequest => Ok(Some(SessionEnd::ProtocolUnsupported)),
                Some(Remedy::User(hint)) => Err(anyhow!("read topic {topic}: {reason}; {hint}")),
                _ => Err(anyhow!("{failure}: {reason}")),
            };
        }
        match failure.rdkafka_error_code().and_then(remedy) {
            Some(Remedy::ClassicProtocol) => return Ok(Some(SessionEnd::ProtocolUnsupported)),
            Some(Remedy::NewConsumer) => return Err(anyhow!(failure).context(format!("read topic {topic}"))),
            Some(Remedy::User(hint)) => return Err(anyhow!(failure).context(format!("read topic {topic}: {hint}"))),
            // librdkafka reconnects, and continues at the same offset.
            Some(Remedy::Wait) | None => {}
        }
        if self.error_log.allows() {
            warn!("kafka at {}: {failure}; retrying", self.options.broker.bootstrap);
        }
        Ok(None)
    }
}
