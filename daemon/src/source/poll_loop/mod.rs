//! The poll loop of a session: collects messages in a chunk, and hands the chunk over when it is due or full.

mod assignment;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Statistics};
use silverd_core::chunk::ChunkBuilder;
use silverd_core::flush_policy::FlushPolicy;
use silverd_core::offsets::LogPartition;
use tokio::sync::mpsc;
use tracing::warn;

use super::client::{AdminConsumer, LogLimit, POLL_TIMEOUT, log_client_error};
use super::end_offsets::EndOffsets;
use super::event::{ReadChunk, SourceEvent};
use super::group_check::GroupCheck;
use super::kafka_error::{Remedy, remedy};
use super::open_transactions::OpenTransactions;
use super::options::SourceOptions;
use super::positions::Positions;
use super::problems::ProblemOf;
use super::rebalance::{ConsumerEvent, RebalanceContext};
use super::record;
use super::watchdog::Watchdog;
use crate::delta::commit_interval_min;
use crate::runtime::clock;
use crate::telemetry::{Stage, thread_cpu};

/// Reading the clock costs as much as a message.
const MESSAGES_PER_CLOCK_READ: u32 = 512;

/// Within this time, statistics show what happened.
const STATISTICS_MAX: Duration = Duration::from_secs(5);

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
    /// There are other topics, a topic was created again, or partitions that could not be read may be readable now.
    Reassign,
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
    chunk: ChunkBuilder,
    /// When the first record of the chunk arrived.
    first_record_at: Option<Instant>,
    flush_policy: FlushPolicy,
    started: Instant,
    positions: Positions,
    /// Where each partition ended when it was assigned.
    initial_ends: BTreeMap<LogPartition, i64>,
    has_unreadable: bool,
    /// The chunk has the first records of a partition.
    has_new: bool,
    /// The chunk may have records of a topic that was created again: nothing more is handed over.
    must_reassign: bool,
    topics_looked_at: Instant,
    group_check: GroupCheck,
    end_offsets: EndOffsets,
    watchdog: Watchdog,
    open_transactions: OpenTransactions,
    /// The newest statistics of librdkafka.
    statistics: Option<Box<Statistics>>,
    /// When the consumer lost its offset in a partition. The next statistics say in which one.
    lost_offset_at: Option<Instant>,
    error_log: LogLimit,
}

impl<'s> PollLoop<'s> {
    pub(super) fn new(
        options: &'s SourceOptions,
        stop: &'s AtomicBool,
        events: &'s mpsc::Sender<SourceEvent>,
        (consumer, admin): (&'s BaseConsumer<RebalanceContext>, AdminConsumer),
        assignment: Assignment,
    ) -> Self {
        let now = Instant::now();
        Self {
            options,
            stop,
            events,
            consumer,
            admin,
            assignment,
            chunk: ChunkBuilder::default(),
            first_record_at: None,
            flush_policy: FlushPolicy::new(options.limits.interval),
            started: now,
            positions: Positions::default(),
            initial_ends: BTreeMap::new(),
            has_unreadable: false,
            has_new: false,
            must_reassign: false,
            topics_looked_at: now,
            group_check: GroupCheck::default(),
            end_offsets: EndOffsets::default(),
            watchdog: Watchdog::new(),
            open_transactions: OpenTransactions::default(),
            statistics: None,
            lost_offset_at: None,
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
            if self.must_reassign {
                return Ok(SessionEnd::Reassign);
            }
            let end = match self.check_topics()? {
                Some(end) => Some(end),
                None => self.check_assignment()?,
            };
            if let Some(end) = end {
                self.hand_over(false);
                return Ok(end);
            }
            if self.options.drain && self.is_drained() {
                self.hand_over(false);
                if self.must_reassign {
                    return Ok(SessionEnd::Reassign);
                }
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
                    self.ask_for_ends(true)?;
                    self.hand_over_if_due(true);
                    return Ok(None);
                }
                Some(Ok(message)) => self.add_message(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    if self.options.drain && self.is_drained() {
                        return Ok(None);
                    }
                }
                Some(Err(failure)) => return self.handle_kafka_error(failure),
            }
        }
        self.ask_for_ends(false)?;
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
        let Some(position) = self.positions.of_message(message.topic(), message.partition()) else { return };
        if message.offset() < position.next {
            return;
        }
        self.chunk.push(position.index, position.next, record::from_message(message));
        position.next = message.offset() + 1;
        self.has_new |= std::mem::take(&mut position.is_new);
        self.options.bytes_read.fetch_add(size as u64, Relaxed);
        if self.first_record_at.is_none() {
            self.first_record_at = Some(Instant::now());
        }
        if self.chunk.rows() >= limits.rows_max || self.chunk.bytes() >= limits.bytes_max {
            self.hand_over(true);
        }
    }

    /// Offsets without records at the ends of the partitions count as read.
    fn pass_ends(&mut self, statistics: &Statistics) {
        for (log, end) in self.end_offsets.reached(statistics) {
            let Some(position) = self.positions.of(&log).filter(|position| position.next < end) else { continue };
            self.chunk.pass(position.index, position.next, end);
            position.next = end;
            self.first_record_at.get_or_insert_with(Instant::now);
        }
    }

    /// Asks Kafka now and then whether it has more than was read.
    fn ask_for_ends(&mut self, is_idle: bool) -> anyhow::Result<()> {
        let statistics = self.statistics.as_deref();
        let ends = self.watchdog.check(&self.admin, &self.positions, statistics, is_idle)?;
        let is_read = |(log, end): &(LogPartition, i64)| self.positions.get(log).is_none_or(|at| at.next >= *end);
        if !ends.is_empty() && (!is_idle || ends.iter().all(is_read)) {
            self.options.problems.resolve(&ProblemOf::Consumer);
        }
        let asked_at = Some(self.watchdog.asked_at());
        for (log, end) in ends {
            self.options.high_watermarks.set(log, end, asked_at);
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
                    self.pass_ends(&statistics);
                    self.find_cut_logs(&statistics)?;
                    self.statistics = Some(statistics);
                }
                ConsumerEvent::Error { error, reason } => log_client_error(&error, &reason),
                ConsumerEvent::RebalanceFailed(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// The end of a partition is that of its last transaction that is not open: what comes after it is not given out.
    fn update_watermarks(&mut self, statistics: &Statistics) {
        for position in self.positions.iter() {
            let topic = statistics.topics.get(&*position.log.topic);
            let partition = topic.and_then(|topic| topic.partitions.get(&position.log.partition));
            let Some(partition) = partition.filter(|partition| partition.hi_offset >= 0) else { continue };
            let is_stable = (0..=partition.hi_offset).contains(&partition.ls_offset);
            let end = if is_stable { partition.ls_offset } else { partition.hi_offset };
            self.options.high_watermarks.raise(&position.log, end);
            self.open_transactions.update(&position.log, end, partition.hi_offset, &self.options.problems);
        }
    }

    /// After the consumer lost its offset: ends the session with the partitions that it no longer fetches.
    fn find_cut_logs(&mut self, statistics: &Statistics) -> anyhow::Result<()> {
        let Some(lost_at) = self.lost_offset_at else { return Ok(()) };
        let is_fetched = |log: &LogPartition| {
            let topic = statistics.topics.get(&*log.topic);
            topic.and_then(|topic| topic.partitions.get(&log.partition)).is_none_or(|known| known.fetch_state != "none")
        };
        let read = self.positions.iter().map(|position| &position.log);
        let cut: Vec<LogPartition> = read.filter(|log| !is_fetched(log)).cloned().collect();
        if cut.is_empty() && lost_at.elapsed() < STATISTICS_MAX {
            return Ok(());
        }
        let partitions: Vec<_> = cut.iter().map(|log| format!("{} of {}", log.partition, log.topic)).collect();
        self.options.cut_logs.lock().extend(cut);
        Err(anyhow!(
            "Kafka no longer has the next offset of these partitions, or has cut their logs: {}. It deleted records before they \
             were read, or elected a leader that lacked them",
            partitions.join(", ")
        ))
    }

    /// Whether everything that was in the topics at the start was read. A log can end in offsets without records, those of
    /// transactions: they count as read some moments after the last record.
    fn is_drained(&self) -> bool {
        let is_read = |(log, end): (&LogPartition, &i64)| self.positions.get(log).is_some_and(|at| at.next >= *end);
        self.initial_ends.len() == self.consumer.context().topics().partitions()
            && self.initial_ends.iter().all(is_read)
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
        // A topic without records may have been created again since it was looked for: Bronze would store the new one's records
        // under the id of the one before.
        if std::mem::take(&mut self.has_new) && self.has_other_topics() {
            self.must_reassign = true;
        }
        if self.must_reassign {
            drop(self.chunk.finish(clock::now_micros()));
            return;
        }
        if !self.chunk.is_empty() {
            self.flush_policy.flushed(self.started.elapsed());
            self.flush_policy.set_interval(self.options.limits.interval.max(commit_interval_min()));
            let waits_since = Instant::now();
            let chunk = self.chunk.finish(clock::now_micros());
            // Fails only if the pipeline has dropped the source, which also stops this loop.
            let _ = self.events.blocking_send(SourceEvent::Chunk(ReadChunk { chunk, full }));
            // Wait until the pipeline takes the chunk: a second chunk in memory would make nothing faster.
            let _ = futures::executor::block_on(self.events.reserve());
            self.watchdog.waited(waits_since.elapsed());
        }
    }

    fn handle_kafka_error(&mut self, failure: KafkaError) -> anyhow::Result<Option<SessionEnd>> {
        let topic = &self.options.config.topics;
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
            // The error does not say which partition.
            Some(Remedy::NewConsumer) if is_lost_offset(&failure) => {
                self.lost_offset_at.get_or_insert_with(Instant::now);
                return Ok(None);
            }
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

/// Whether the offset that is read next does not exist: by `auto.offset.reset = "error"`.
fn is_lost_offset(failure: &KafkaError) -> bool {
    failure.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}
