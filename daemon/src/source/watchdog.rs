//! Notices that the consumer stands still: Kafka has more records, and no message comes; or no broker answers any more.
//!
//! The consumer's own state is not trusted here: the ends of the partitions are requested from Kafka, by another client. That
//! client may be as dead as the consumer, so a session ends when it gets no answer: the next one has new clients.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, Statistics, TopicPartitionList};

use super::client::{ANSWER_TIMEOUT, AdminConsumer, topic_exists};

/// Between two requests to Kafka.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The poll loop waits for the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// A partition with more records in Kafka must move within this time: longer than a quota of Kafka delays an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(12);

pub(super) struct Watchdog {
    checked_at: Instant,
    /// When the first of the requests was sent that got no answer.
    unanswered_since: Option<Instant>,
    /// Partitions with more records in Kafka: their position, and since when it has been the same.
    waiting: BTreeMap<i32, (i64, Instant)>,
}

/// No broker answers.
#[derive(Debug, thiserror::Error)]
#[error("no broker has answered for {} s", ANSWER_TIMEOUT.as_secs())]
pub(super) struct NoAnswer;

/// The consumer stands still.
#[derive(Debug, thiserror::Error)]
pub(super) struct Stalled {
    topic: String,
    partitions: Vec<StalledPartition>,
    group_state: String,
}

#[derive(Debug)]
struct StalledPartition {
    number: i32,
    position: i64,
    end: i64,
    /// What librdkafka says of it.
    fetch_state: String,
    broker: i32,
    next_offset: i64,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        Self { checked_at: Instant::now(), unanswered_since: None, waiting: BTreeMap::new() }
    }

    /// Called when no message is ready. Returns the ends of the partitions whenever it requests them.
    ///
    /// # Errors
    ///
    /// [`Stalled`], [`NoAnswer`], or the topic was deleted.
    pub(super) fn check(
        &mut self,
        consumer: &AdminConsumer,
        topic: &str,
        positions: &BTreeMap<i32, i64>,
        statistics: Option<&Statistics>,
    ) -> anyhow::Result<Vec<(i32, i64)>> {
        if self.checked_at.elapsed() < CHECK_INTERVAL {
            return Ok(Vec::new());
        }
        let asked_at = Instant::now();
        let ends = request_ends(consumer, topic, positions.keys().copied());
        // The ends are unknown also while a single partition has no leader.
        let topic_exists = if ends.is_none() { topic_exists(consumer, topic) } else { Some(true) };
        self.checked_at = Instant::now();
        match topic_exists {
            None => {
                let since = *self.unanswered_since.get_or_insert(asked_at);
                anyhow::ensure!(since.elapsed() < ANSWER_TIMEOUT, NoAnswer);
            }
            Some(exists) => {
                anyhow::ensure!(exists, "topic {topic} was deleted");
                self.unanswered_since = None;
            }
        }
        let Some(ends) = ends else { return Ok(Vec::new()) };
        let now = self.checked_at;
        let before = std::mem::take(&mut self.waiting);
        let mut stalled = Vec::new();
        for (partition, end) in &ends {
            let Some(&position) = positions.get(partition).filter(|position| *position < end) else { continue };
            let known = before.get(partition).filter(|(known, _)| *known == position);
            let since = known.map_or(now, |(_, since)| *since);
            self.waiting.insert(*partition, (position, since));
            if now.duration_since(since) >= STALL_TIMEOUT {
                stalled.push(StalledPartition::new(*partition, position, *end, topic, statistics));
            }
        }
        if stalled.is_empty() {
            return Ok(ends);
        }
        let group = statistics.and_then(|statistics| statistics.cgrp.as_ref());
        let group_state = group.map_or("no group".to_owned(), |group| format!("{}, {}", group.state, group.join_state));
        Err(Stalled { topic: topic.to_owned(), partitions: stalled, group_state }.into())
    }
}

fn request_ends(
    consumer: &AdminConsumer,
    topic: &str,
    partitions: impl ExactSizeIterator<Item = i32>,
) -> Option<Vec<(i32, i64)>> {
    if partitions.len() == 0 {
        return None;
    }
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition, Offset::End).ok()?;
    }
    let found = consumer.offsets_for_times(list, REQUEST_TIMEOUT).ok()?;
    let end = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(end) if element.error().is_ok() => Some((element.partition(), end)),
        _ => None,
    };
    Some(found.elements().iter().filter_map(end).collect())
}

impl StalledPartition {
    fn new(number: i32, position: i64, end: i64, topic: &str, statistics: Option<&Statistics>) -> Self {
        let known = statistics.and_then(|known| known.topics.get(topic)?.partitions.get(&number));
        let fetch_state = known.map_or("unknown".to_owned(), |known| known.fetch_state.clone());
        let (broker, next_offset) = known.map_or((-1, -1), |known| (known.broker, known.next_offset));
        Self { number, position, end, fetch_state, broker, next_offset }
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = STALL_TIMEOUT.as_secs();
        write!(
            f,
            "the consumer stands still: Kafka has more records of topic {}, and none came for {seconds} s",
            self.topic
        )?;
        for partition in self.partitions.iter().take(8) {
            let StalledPartition { number, position, end, fetch_state, broker, next_offset } = partition;
            write!(
                f,
                "; partition {number}: next offset {position}, end {end}, librdkafka's fetch state {fetch_state}, broker \
                 {broker}, fetch offset {next_offset}"
            )?;
        }
        write!(f, "; group: {}", self.group_state)
    }
}
