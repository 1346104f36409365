//! The polling thread at work: message by message into the chunk at hand, and out with it when it is full.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use silverd_core::chunk::ChunkBuilder;
use silverd_core::offsets::Offsets;
use silverd_core::pace::Pace;
use tokio::sync::mpsc;
use tracing::warn;

use super::assign::Rebalances;
use super::record;
use super::session::{ANSWER_MAX, COMPLAINT_INTERVAL, Ended, Membership, POLL_MAX};
use super::source::{Arrival, Gathered, Shared};
use crate::clock;
use crate::telemetry::Stage;

/// How long the group may take to give partitions out, on top of a commit interval.
const GROUP_PATIENCE: Duration = Duration::from_millis(1_500);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Messages between two looks at the clock, and at whether to stop.
const CLOCK_EVERY: u32 = 512;

pub(super) struct Poller<'s> {
    pub(super) shared: &'s Shared,
    pub(super) chunks: &'s mpsc::Sender<Arrival>,
    pub(super) consumer: &'s BaseConsumer<Rebalances>,
    pub(super) builder: ChunkBuilder,
    /// Up to where each partition that is read has come.
    pub(super) positions: BTreeMap<i32, i64>,
    pub(super) pace: Pace,
    /// When the first record of the chunk at hand came.
    pub(super) first: Option<Instant>,
    /// Partitions whose end has been seen, for a source that drains.
    pub(super) at_end: HashSet<i32>,
    pub(super) partitions: usize,
    pub(super) complained: Option<Instant>,
    pub(super) membership: Membership,
    pub(super) begun: Instant,
    pub(super) watch: Option<Watch>,
    /// The group has given something out: it works, and is waited for from then on.
    pub(super) was_assigned: bool,
}

/// What Bronze had when a wait for the group began, and when it was looked at last.
pub(super) struct Watch {
    bronze: Offsets,
    since: Instant,
    looked: Instant,
}

impl Poller<'_> {
    pub(super) fn run(mut self) -> anyhow::Result<Ended> {
        while !self.shared.stop.load(Relaxed) {
            let begun = crate::telemetry::thread_cpu();
            let ended = self.gather();
            self.shared.stages.add(Stage::Poll, crate::telemetry::thread_cpu().saturating_sub(begun));
            if let Some(ended) = ended? {
                return Ok(ended);
            }
            if let Some(ended) = self.mind_the_group()? {
                self.hand_over();
                return Ok(ended);
            }
            if self.shared.drain && self.drained() {
                self.hand_over();
                let _ = self.chunks.blocking_send(Arrival::Drained);
                return Ok(Ended::Done);
            }
        }
        self.hand_over();
        Ok(Ended::Done)
    }

    /// True when everything that was there at the start has been read, or the ends have been seen: a log may end in
    /// offsets that hold no record.
    fn drained(&self) -> bool {
        let assigned = self.consumer.context().assigned();
        let read = |partition: &i32| self.positions.get(partition) >= assigned.ends.get(partition);
        assigned.ends.len() == self.partitions
            && assigned.ends.keys().all(|partition| read(partition) || self.at_end.contains(partition))
    }

    /// Whether to leave the group aside, or to come back to it; a refused partition is looked at again in a while.
    fn mind_the_group(&mut self) -> anyhow::Result<Option<Ended>> {
        let refused = !self.consumer.context().assigned().refused.is_empty();
        let assigned = !self.positions.is_empty() || refused;
        anyhow::ensure!(
            !refused || self.begun.elapsed() < REFUSED_AGAIN_AFTER,
            "looking again at the partitions that are not read"
        );
        match self.membership {
            Membership::None => return Ok(None),
            Membership::NoneFor(time) => return Ok((self.begun.elapsed() > time).then_some(Ended::Rejoin)),
            Membership::Group => {}
        }
        self.was_assigned |= assigned;
        if self.was_assigned {
            return Ok(None);
        }
        let now = Instant::now();
        let watch = match &mut self.watch {
            Some(watch) if now.duration_since(watch.looked) < LOOK_INTERVAL => return Ok(None),
            Some(watch) => watch,
            None => {
                let bronze = (self.shared.resume)()?;
                self.watch = Some(Watch { bronze, since: now, looked: now });
                return Ok(None);
            }
        };
        watch.looked = now;
        let bronze = (self.shared.resume)()?;
        if bronze != watch.bronze {
            // Somebody is at work.
            (watch.bronze, watch.since) = (bronze, now);
            return Ok(None);
        }
        let patience = GROUP_PATIENCE + self.shared.cadence.interval;
        if now.duration_since(watch.since) < patience {
            return Ok(None);
        }
        for partition in 0..self.partitions as i32 {
            let ends = self.consumer.fetch_watermarks(&self.shared.config.topic, partition, ANSWER_MAX);
            let Ok((low, high)) = ends else { return Ok(None) };
            if bronze.get(&self.consumer.context().log(partition)).copied().unwrap_or(low) < high {
                return Ok(Some(Ended::Idle));
            }
        }
        Ok(None)
    }

    /// Takes messages until the chunk is due or Kafka has none. Rebalances may take partitions in between.
    fn gather(&mut self) -> anyhow::Result<Option<Ended>> {
        // The clock costs as much as a message: while messages are at hand, it is read once for many.
        for taken in 1_u32.. {
            let polled = match self.consumer.poll(Duration::ZERO) {
                Some(polled) => Some(polled),
                None => {
                    self.settle_rebalances()?;
                    let wait = self.due(true).map_or(POLL_MAX, |due| due.saturating_duration_since(Instant::now()));
                    if wait.is_zero() { None } else { self.consumer.poll(wait.min(POLL_MAX)) }
                }
            };
            self.settle_rebalances()?;
            match polled {
                None => {
                    self.hand_over_if_due(true);
                    return Ok(None);
                }
                Some(Ok(message)) => {
                    self.take(&message);
                    if taken.is_multiple_of(CLOCK_EVERY) {
                        self.hand_over_if_due(false);
                        return Ok(None);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.at_end.insert(partition);
                    if self.shared.drain && self.drained() {
                        return Ok(None);
                    }
                }
                Some(Err(failure)) => return self.complain(failure),
            }
        }
        Ok(None)
    }

    /// When the chunk at hand goes, whatever is in it.
    fn due(&self, nothing_waits: bool) -> Option<Instant> {
        let since_begun = |time: Instant| time.duration_since(self.begun);
        self.first.map(|first| self.begun + self.pace.due(since_begun(first), nothing_waits))
    }

    fn hand_over_if_due(&mut self, nothing_waits: bool) {
        if self.due(nothing_waits).is_some_and(|due| due <= Instant::now()) {
            self.hand_over();
        }
    }

    fn take(&mut self, message: &rdkafka::message::BorrowedMessage<'_>) {
        let size = message.payload_len() + message.key_len();
        let cadence = &self.shared.cadence;
        if self.builder.rows() > 0 && self.builder.bytes() + size > cadence.bytes_max {
            self.send(true);
        }
        // A message of a partition that was taken away while it lay in the queue is somebody else's.
        let Some(position) = self.positions.get_mut(&message.partition()) else { return };
        if message.offset() < *position {
            return;
        }
        self.builder.push(*position, record::of(message));
        *position = message.offset() + 1;
        self.shared.taken.fetch_add(size as u64, Relaxed);
        if self.first.is_none() {
            self.first = Some(Instant::now());
        }
        if self.builder.rows() >= cadence.rows_max || self.builder.bytes() >= cadence.bytes_max {
            self.send(true);
        }
    }

    /// What rebalances have left behind. A partition that was taken away ends its part of the chunk: what was gathered goes
    /// on its way now, and the log's fence decides whether it still counts.
    fn settle_rebalances(&mut self) -> anyhow::Result<()> {
        let context = self.consumer.context();
        if !context.news.load(Relaxed) {
            return Ok(());
        }
        context.news.store(false, Relaxed);
        let mut assigned = context.assigned();
        if let Some(failure) = assigned.failure.take() {
            return Err(failure);
        }
        let (given, revoked) = (std::mem::take(&mut assigned.given), std::mem::take(&mut assigned.revoked));
        let left_out = std::mem::take(&mut assigned.left_out);
        drop(assigned);
        self.positions.retain(|partition, _| !revoked.contains(partition));
        self.at_end.retain(|partition| !revoked.contains(partition));
        self.positions.extend(given);
        for (partition, end) in &left_out {
            self.builder.cover(*partition, *end);
        }
        if !left_out.is_empty() || !revoked.is_empty() {
            self.hand_over();
        }
        Ok(())
    }

    /// Hands over what there is.
    fn hand_over(&mut self) {
        self.send(false);
    }

    fn send(&mut self, full: bool) {
        self.first = None;
        if !self.builder.is_empty() {
            self.pace.gone(self.begun.elapsed());
            let chunk = self.builder.finish(clock::now_micros());
            // Fails only when the flow is gone, which has then asked to stop.
            let _ = self.chunks.blocking_send(Arrival::Chunk(Gathered { chunk, full }));
            // The next chunk is begun when this one is in hand: one that waited beside it would be memory for nothing.
            let _ = futures::executor::block_on(self.chunks.reserve());
        }
    }

    fn complain(&mut self, failure: KafkaError) -> anyhow::Result<Option<Ended>> {
        let code = failure.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature)) {
            return Ok(Some(Ended::ProtocolUnknown));
        }
        if let KafkaError::MessageConsumptionFatal(_) = failure {
            let fatal = self.consumer.client().fatal_error().map(|(_, reason)| reason);
            let unknown = fatal.as_deref().is_some_and(|reason| reason.contains("ConsumerGroupHeartbeat"));
            if unknown {
                return Ok(Some(Ended::ProtocolUnknown));
            }
            return Err(anyhow!("{failure}: {}", fatal.unwrap_or_default()));
        }
        let refused = [
            RDKafkaErrorCode::OffsetOutOfRange,
            RDKafkaErrorCode::AutoOffsetReset,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::GroupAuthorizationFailed,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ];
        if code.is_some_and(|code| refused.contains(&code)) {
            return Err(anyhow!(failure).context(format!("read topic {}", self.shared.config.topic)));
        }
        // Everything else librdkafka mends by itself: it reconnects, and goes on where it was.
        if self.complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
            warn!("kafka at {}: {failure}; it is tried again", self.shared.broker.bootstrap);
            self.complained = Some(Instant::now());
        }
        Ok(None)
    }
}
