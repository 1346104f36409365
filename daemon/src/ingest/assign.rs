//! Which partitions are read, and from where: Bronze's log says, when they are assigned.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use silverd_core::config::{self, Expired, Start};
use silverd_core::offsets::LogPartition;
use tracing::{debug, error, info, warn};

use super::session::ANSWER_MAX;
use super::source::Shared;

/// What rebalances leave behind for the polling thread.
pub(super) struct Rebalances {
    pub(super) shared: Arc<Shared>,
    pub(super) cluster: Arc<str>,
    pub(super) assigned: Mutex<Assigned>,
    /// Something in there waits for the polling thread, which looks here after every message.
    pub(super) news: AtomicBool,
}

#[derive(Default)]
pub(super) struct Assigned {
    /// Partitions that are to be read from now on, and where each begins.
    pub(super) given: BTreeMap<i32, i64>,
    /// Where each ended when it was assigned.
    pub(super) ends: BTreeMap<i32, i64>,
    /// Partitions that must not be read.
    pub(super) refused: HashSet<i32>,
    /// What `start = "latest"` leaves out: told to Bronze, so that it is decided once and for all.
    pub(super) left_out: Vec<(i32, i64)>,
    pub(super) revoked: HashSet<i32>,
    pub(super) failure: Option<anyhow::Error>,
}

impl ClientContext for Rebalances {
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.shared.config.topic) else { return };
        for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
            self.shared.high.set(self.log(partition.partition), partition.hi_offset);
        }
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!("librdkafka: {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell(&error, reason);
    }
}

/// The context of a consumer that only asks.
pub(super) struct Probe;

impl ClientContext for Probe {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!("librdkafka: {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell(&error, reason);
    }
}

impl ConsumerContext for Probe {}

/// librdkafka reports each connection that it tries again; what a human must mend is told louder.
fn tell(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => {
            warn!("kafka: {reason} (see [source.kafka] in pipeline.toml)");
        }
        _ => debug!("kafka: {error}: {reason}"),
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let done = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(?partitions, "assigned");
            let placed = self.place(consumer, list);
            if placed.is_err() {
                // librdkafka must have its answer all the same. The session ends at once, and nothing is read.
                let _ = list.set_all_offsets(Offset::End);
                self.assigned().given.clear();
            }
            let assigned = if cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) };
            placed.and_then(|stopped| {
                assigned.context("assign partitions")?;
                consumer.pause(&stopped).context("pause partitions")
            })
        } else {
            info!(?partitions, "revoked");
            let mut assigned = self.assigned();
            for partition in &partitions {
                assigned.given.remove(partition);
                assigned.revoked.insert(*partition);
            }
            drop(assigned);
            let revoked = if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() };
            revoked.context("give partitions up")
        };
        if let Err(failure) = done {
            self.assigned().failure = Some(failure);
        }
        self.news.store(true, Relaxed);
    }
}

impl Rebalances {
    pub(super) fn assigned(&self) -> std::sync::MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self, partition: i32) -> LogPartition {
        LogPartition::new(self.cluster.clone(), self.shared.config.topic.as_str(), partition)
    }

    /// Sets where each partition of the list begins; gives those that must not be read.
    pub(super) fn place(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
    ) -> anyhow::Result<TopicPartitionList> {
        let topic = &self.shared.config.topic;
        let stored = (self.shared.resume)().context("read where bronze has come to")?;
        let mut stopped = TopicPartitionList::new();
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        for partition in partitions {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, ANSWER_MAX)
                .with_context(|| format!("ask for the ends of partition {partition} of {topic}"))?;
            self.shared.high.set(self.log(partition), high);
            let stored = stored.get(&self.log(partition)).copied();
            let begin = match begin(stored, low, high, &self.shared.config) {
                Ok(begin) => begin,
                Err(refusal) => {
                    let refusal = format!("partition {partition} of {topic} is not read: {refusal}");
                    anyhow::ensure!(!self.shared.drain, refusal);
                    error!("{refusal}");
                    stopped.add_partition(topic, partition);
                    list.set_partition_offset(topic, partition, Offset::End)?;
                    self.assigned().refused.insert(partition);
                    continue;
                }
            };
            if let Some(stored) = stored.filter(|stored| *stored < begin) {
                warn!(
                    "partition {partition} of {topic}: {} offsets from {stored} on are no longer in Kafka, and are skipped \
                     as [source] expired = \"skip\" says",
                    begin - stored
                );
            }
            list.set_partition_offset(topic, partition, Offset::Offset(begin))?;
            let mut assigned = self.assigned();
            assigned.given.insert(partition, begin);
            assigned.ends.insert(partition, high);
            assigned.revoked.remove(&partition);
            if stored.is_none() && begin > low {
                assigned.left_out.push((partition, begin));
            }
        }
        Ok(stopped)
    }
}

/// Where to begin in a log that holds `low..high`, of which Bronze has stored everything below `stored`.
fn begin(stored: Option<i64>, low: i64, high: i64, config: &config::Source) -> Result<i64, String> {
    match (stored, config.start) {
        (None, Start::Earliest) => Ok(low),
        (None, Start::Latest) => Ok(high),
        (Some(stored), _) if stored > high => Err(format!(
            "bronze has stored it up to offset {stored}, and the log ends at {high}. The topic was deleted and made anew, \
             or the broker lost data. Bronze is not written over: to read the new log, rename the topic, or give bronze and \
             the Silver tables new paths in pipeline.toml"
        )),
        (Some(stored), _) if stored < low && config.expired == Expired::Stop => Err(format!(
            "bronze has stored it up to offset {stored}, and Kafka has deleted everything before {low}: {} offsets are \
             lost. To go on without them, set `expired = \"skip\"` under [source] in pipeline.toml",
            low - stored
        )),
        (Some(stored), _) if stored < low => Ok(low),
        (Some(stored), _) => Ok(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(start: Start, expired: Expired) -> config::Source {
        let (brokers, topic, group) = ("b:1".to_owned(), "t".to_owned(), "g".to_owned());
        config::Source { brokers, topic, group, start, expired, kafka: BTreeMap::new() }
    }

    #[test]
    fn a_partition_begins_where_bronze_ends() {
        let usual = source(Start::Earliest, Expired::Stop);
        assert_eq!(begin(None, 5, 9, &usual), Ok(5));
        assert_eq!(begin(None, 5, 9, &source(Start::Latest, Expired::Stop)), Ok(9));
        assert_eq!(begin(Some(7), 5, 9, &usual), Ok(7));
        assert_eq!(begin(Some(9), 5, 9, &usual), Ok(9));
    }

    #[test]
    fn a_log_that_is_not_the_one_that_was_read_stops() {
        let usual = source(Start::Earliest, Expired::Stop);
        assert!(begin(Some(10), 5, 9, &usual).is_err_and(|why| why.contains("the log ends at 9")));
        assert!(begin(Some(4), 5, 9, &usual).is_err_and(|why| why.contains("1 offsets are lost")));
        assert_eq!(begin(Some(4), 5, 9, &source(Start::Earliest, Expired::Skip)), Ok(5));
    }
}
