//! Notices that the consumer stands still: Kafka has more records, and no message comes; or no broker answers any more.
//!
//! The consumer's own state is not trusted here: the ends of the partitions are requested from Kafka, by another client. That
//! client may be as dead as the consumer, so a session ends when it gets no answer: the next one has new clients.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::{Offset, Statistics};
use silverd_core::offsets::LogPartition;

use super::client::{ANSWER_TIMEOUT, AdminConsumer, answers, request_offsets};
use super::positions::Positions;
use crate::runtime::clock;

/// Between two requests to Kafka.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The poll loop waits for the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// When no message is ready, a partition with more records in Kafka must move within this time: longer than a quota of
/// Kafka delays an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(12);
/// The same while other partitions give messages, which come first.
const BUSY_STALL_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Watchdog {
    started: Instant,
    checked_at: Instant,
    /// When the last request was sent, in microseconds since the epoch.
    asked_at_micros: i64,
    /// How long the poll loop waited for the pipeline, and took no messages.
    waited: Duration,
    /// When the first of the requests was sent that got no answer.
    unanswered_since: Option<Instant>,
    /// Partitions with more records in Kafka: their position, and since when it has been the same, in time without waits.
    behind: BTreeMap<LogPartition, (i64, Duration)>,
}

/// No broker answers.
#[derive(Debug, thiserror::Error)]
#[error("no broker has answered for {} s", ANSWER_TIMEOUT.as_secs())]
pub(super) struct NoAnswer;

/// The consumer stands still.
#[derive(Debug, thiserror::Error)]
pub(super) struct Stalled {
    timeout: Duration,
    partitions: Vec<StalledPartition>,
    group_state: String,
}

#[derive(Debug)]
struct StalledPartition {
    log: LogPartition,
    position: i64,
    end: i64,
    /// What librdkafka says of it.
    fetch_state: String,
    broker: i32,
    next_offset: i64,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let (waited, unanswered_since, behind) = (Duration::ZERO, None, BTreeMap::new());
        Self { started: now, checked_at: now, asked_at_micros: 0, waited, unanswered_since, behind }
    }

    /// When the ends that `check` returned last were requested, in microseconds since the epoch.
    pub(super) fn asked_at(&self) -> i64 {
        self.asked_at_micros
    }

    /// The poll loop has waited for the pipeline.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Returns the ends of the partitions whenever it requests them. `is_idle`: no message is ready.
    ///
    /// # Errors
    ///
    /// [`Stalled`] or [`NoAnswer`].
    pub(super) fn check(
        &mut self,
        consumer: &AdminConsumer,
        positions: &Positions,
        statistics: Option<&Statistics>,
        is_idle: bool,
    ) -> anyhow::Result<Vec<(LogPartition, i64)>> {
        let Some(first) = positions.iter().next().filter(|_| self.checked_at.elapsed() >= CHECK_INTERVAL) else {
            return Ok(Vec::new());
        };
        let asked_at = Instant::now();
        self.asked_at_micros = clock::now_micros();
        let logs = positions.iter().map(|position| &position.log);
        let ends = request_offsets(consumer, logs, Offset::End, REQUEST_TIMEOUT);
        // The ends are unknown also while a single partition has no leader.
        let is_answered = ends.is_ok() || answers(consumer, &first.log.topic);
        self.checked_at = Instant::now();
        if is_answered {
            self.unanswered_since = None;
        } else {
            let since = *self.unanswered_since.get_or_insert(asked_at);
            anyhow::ensure!(since.elapsed() < ANSWER_TIMEOUT, NoAnswer);
        }
        let Ok(ends) = ends else { return Ok(Vec::new()) };
        let now = self.started.elapsed().saturating_sub(self.waited);
        let timeout = if is_idle { STALL_TIMEOUT } else { BUSY_STALL_TIMEOUT };
        let before = std::mem::take(&mut self.behind);
        let (mut known_ends, mut stalled) = (Vec::new(), Vec::new());
        for position in positions.iter() {
            let Some(&end) = ends.get(&(position.log.topic.to_string(), position.log.partition)) else { continue };
            known_ends.push((position.log.clone(), end));
            if position.next >= end {
                continue;
            }
            let known = before.get(&position.log).filter(|(known, _)| *known == position.next);
            let since = known.map_or(now, |(_, since)| *since);
            self.behind.insert(position.log.clone(), (position.next, since));
            if now.saturating_sub(since) >= timeout {
                stalled.push(StalledPartition::new(&position.log, position.next, end, statistics));
            }
        }
        if stalled.is_empty() {
            return Ok(known_ends);
        }
        let group = statistics.and_then(|statistics| statistics.cgrp.as_ref());
        let group_state = group.map_or("no group".to_owned(), |group| format!("{}, {}", group.state, group.join_state));
        Err(Stalled { timeout, partitions: stalled, group_state }.into())
    }
}

impl StalledPartition {
    fn new(log: &LogPartition, position: i64, end: i64, statistics: Option<&Statistics>) -> Self {
        let known = statistics.and_then(|known| known.topics.get(&*log.topic)?.partitions.get(&log.partition));
        let fetch_state = known.map_or("unknown".to_owned(), |known| known.fetch_state.clone());
        let (broker, next_offset) = known.map_or((-1, -1), |known| (known.broker, known.next_offset));
        Self { log: log.clone(), position, end, fetch_state, broker, next_offset }
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.timeout.as_secs();
        write!(f, "the consumer stands still: Kafka has more records, and none came for {seconds} s")?;
        for partition in self.partitions.iter().take(8) {
            let StalledPartition { log, position, end, fetch_state, broker, next_offset } = partition;
            write!(
                f,
                "; topic {}, partition {}: next offset {position}, end {end}, librdkafka's fetch state {fetch_state}, \
                 broker {broker}, fetch offset {next_offset}",
                log.topic, log.partition
            )?;
        }
        write!(f, "; group: {}", self.group_state)
    }
}
