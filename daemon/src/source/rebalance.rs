//! The callbacks of librdkafka: they assign and revoke partitions, and report all else as events to the poll loop.
//!
//! librdkafka calls them during `poll`, on the Kafka thread. Two things cannot wait until the poll loop reads the
//! event: a rebalance callback must assign or unassign before it returns, or the group stalls; and an assignment must
//! contain the offset at which each partition starts, or messages from another offset are fetched. Hence the callback
//! itself reads these offsets from Bronze's log. The poll loop does the rest.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use silverd_core::config::{self, OnDataLoss, Start};
use silverd_core::offsets::{LogPartition, Offsets};

use super::client::{REQUEST_TIMEOUT, log_librdkafka};
use super::options::SourceOptions;

/// What a callback reports to the poll loop.
pub(super) enum ConsumerEvent {
    Assigned(Vec<AssignedPartition>),
    /// The offset from which each partition of the topic is read, by `start = "latest"`.
    Began(Vec<(i32, i64)>),
    Revoked(Vec<i32>),
    Statistics(Box<Statistics>),
    /// An error that librdkafka handles itself.
    Error {
        error: KafkaError,
        reason: String,
    },
    /// The partitions could not be assigned or revoked: the session must end.
    RebalanceFailed(anyhow::Error),
}

/// A partition that this consumer was assigned.
pub(super) struct AssignedPartition {
    pub(super) partition: i32,
    /// The next offset that Bronze needs; `None` if it has none of the partition.
    pub(super) committed: Option<i64>,
    /// The end of the partition in Kafka.
    pub(super) high: i64,
    pub(super) start: Result<i64, Unreadable>,
}

/// Why a partition is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(
        "bronze has stored it up to offset {committed}, but the log ends at {high}. The topic was deleted and created \
         again, or the broker lost data. Bronze is not overwritten: to read the new log, rename the topic, or give \
         bronze and the Silver tables new paths in pipeline.toml"
    )]
    LogTooShort { committed: i64, high: i64 },
    #[error(
        "bronze has stored it up to offset {committed}, but Kafka has deleted everything before {low}: {} offsets are \
         lost. To continue without them, set `on_data_loss = \"skip\"` under [source] in pipeline.toml",
        .low - .committed
    )]
    DataLoss { committed: i64, low: i64 },
}

impl AssignedPartition {
    /// How many offsets Kafka has deleted before Bronze had them, if they are skipped.
    pub(super) fn lost_offsets(&self) -> Option<i64> {
        let lost = self.start.as_ref().ok()? - self.committed?;
        (lost > 0).then_some(lost)
    }
}

/// Where to start in a partition of which Kafka has the offsets `low..high`, and of which Bronze needs `committed`
/// next.
///
/// | `committed`           | configuration           | start                            |
/// |-----------------------|-------------------------|----------------------------------|
/// | none                  |                         | `low`                            |
/// | from `low` to `high`  |                         | `committed`                      |
/// | above `high`          |                         | [`Unreadable::LogTooShort`]      |
/// | below `low`           | `on_data_loss = "fail"` | [`Unreadable::DataLoss`]         |
/// | below `low`           | `on_data_loss = "skip"` | `low`                            |
///
/// `start = "latest"` is decided once, for all partitions of the topic ([`RebalanceContext::begin_at_end`]): a partition
/// that the topic gets later is read from its first record.
fn start_offset(committed: Option<i64>, low: i64, high: i64, config: &config::Source) -> Result<i64, Unreadable> {
    match (committed, config.on_data_loss) {
        (None, _) => Ok(low),
        (Some(committed), _) if committed > high => Err(Unreadable::LogTooShort { committed, high }),
        (Some(committed), OnDataLoss::Fail) if committed < low => Err(Unreadable::DataLoss { committed, low }),
        (Some(committed), _) => Ok(committed.max(low)),
    }
}

/// The context of the consumer: receives librdkafka's callbacks.
pub(super) struct RebalanceContext {
    options: Arc<SourceOptions>,
    cluster: Arc<str>,
    /// How many partitions the topic has.
    partitions: usize,
    events: EventQueue,
}

impl RebalanceContext {
    pub(super) fn new(options: Arc<SourceOptions>, cluster: Arc<str>, partitions: usize) -> Self {
        Self { options, cluster, partitions, events: EventQueue::default() }
    }

    /// The events since the last call, in their order.
    pub(super) fn take_events(&self) -> Vec<ConsumerEvent> {
        self.events.take()
    }

    pub(super) fn log_partition(&self, partition: i32) -> LogPartition {
        LogPartition::new(self.cluster.clone(), self.options.config.topic.as_str(), partition)
    }

    /// Assigns all partitions of the topic without the group.
    pub(super) fn assign_all(&self, consumer: &BaseConsumer<Self>) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.options.config.topic, 0, self.partitions as i32 - 1);
        self.assign(consumer, &mut list, |list| consumer.assign(list))
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
        assign: impl FnOnce(&TopicPartitionList) -> KafkaResult<()>,
    ) -> anyhow::Result<()> {
        let partitions = self.set_start_offsets(consumer, list);
        if partitions.is_err() {
            // librdkafka needs an assignment even so. The session ends with the error before anything is read.
            let _ = list.set_all_offsets(Offset::End);
        }
        let assigned = assign(list);
        let partitions = partitions?;
        assigned.context("assign partitions")?;
        let mut unreadable = TopicPartitionList::new();
        for partition in partitions.iter().filter(|partition| partition.start.is_err()) {
            unreadable.add_partition(&self.options.config.topic, partition.partition);
        }
        consumer.pause(&unreadable).context("pause partitions")?;
        self.events.push(ConsumerEvent::Assigned(partitions));
        Ok(())
    }

    /// Sets the start offset of each partition in the list.
    fn set_start_offsets(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
    ) -> anyhow::Result<Vec<AssignedPartition>> {
        let topic = &self.options.config.topic;
        let mut committed = (self.options.resume)().context("read bronze's offsets")?;
        if self.options.config.start == Start::Latest && !self.has_begun(&committed) {
            committed.extend(self.begin_at_end(consumer)?);
        }
        let mut assigned = Vec::new();
        for partition in partitions_of(list) {
            let (low, high) = self.watermarks(consumer, partition)?;
            let committed = committed.get(&self.log_partition(partition)).copied();
            let start = start_offset(committed, low, high, &self.options.config);
            let offset = start.as_ref().map_or(Offset::End, |start| Offset::Offset(*start));
            list.set_partition_offset(topic, partition, offset)?;
            assigned.push(AssignedPartition { partition, committed, high, start });
        }
        Ok(assigned)
    }
}

impl RebalanceContext {
    /// Whether Bronze has progress in any partition of the topic.
    fn has_begun(&self, committed: &Offsets) -> bool {
        committed.keys().any(|log| log.is_same_topic(&self.log_partition(0)))
    }

    /// The end of every partition of the topic, which becomes its beginning: also of those that other daemons read, or
    /// that are empty. Bronze commits it at once.
    fn begin_at_end(&self, consumer: &BaseConsumer<Self>) -> anyhow::Result<Offsets> {
        let end = |partition| Ok((partition, self.watermarks(consumer, partition)?.1));
        let ends = (0..self.partitions as i32).map(end).collect::<anyhow::Result<Vec<_>>>()?;
        let offsets = ends.iter().map(|(partition, end)| (self.log_partition(*partition), *end)).collect();
        self.events.push(ConsumerEvent::Began(ends));
        Ok(offsets)
    }

    /// Kafka has the offsets `low..high` of a partition.
    fn watermarks(&self, consumer: &BaseConsumer<Self>, partition: i32) -> anyhow::Result<(i64, i64)> {
        let topic = &self.options.config.topic;
        let watermarks = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
        watermarks.with_context(|| format!("request the watermarks of partition {partition} of {topic}"))
    }
}

impl ClientContext for RebalanceContext {
    fn stats(&self, statistics: Statistics) {
        self.events.push(ConsumerEvent::Statistics(Box::new(statistics)));
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.push(ConsumerEvent::Error { error, reason: reason.to_owned() });
    }
}

impl ConsumerContext for RebalanceContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, list, |list| match cooperative {
                true => consumer.incremental_assign(list),
                false => consumer.assign(list),
            })
        } else {
            self.events.push(ConsumerEvent::Revoked(partitions_of(list)));
            let revoked = if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() };
            revoked.context("unassign partitions")
        };
        if let Err(failure) = result {
            self.events.push(ConsumerEvent::RebalanceFailed(failure));
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

/// Takes events from the callbacks to the poll loop, which looks here after every message.
#[derive(Default)]
struct EventQueue {
    events: Mutex<Vec<ConsumerEvent>>,
    /// Cheaper to read than the lock.
    pending: AtomicBool,
}

impl EventQueue {
    fn push(&self, event: ConsumerEvent) {
        self.events.lock().push(event);
        self.pending.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<ConsumerEvent> {
        if !self.pending.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.pending.store(false, Ordering::Relaxed);
        mem::take(&mut *self.events.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[track_caller]
    fn check(committed: Option<i64>, on_data_loss: OnDataLoss, expected: Result<i64, Unreadable>) {
        let (brokers, topic, group) = ("b:1".to_owned(), "t".to_owned(), "g".to_owned());
        for start in [Start::Earliest, Start::Latest] {
            let (brokers, topic, group) = (brokers.clone(), topic.clone(), group.clone());
            let config = config::Source { brokers, topic, group, start, on_data_loss, kafka: BTreeMap::new() };
            assert_eq!(start_offset(committed, 5, 9, &config), expected);
        }
    }

    #[test]
    fn start_offset_follows_the_truth_table() {
        check(None, OnDataLoss::Fail, Ok(5));
        for committed in [5, 7, 9] {
            check(Some(committed), OnDataLoss::Fail, Ok(committed));
            check(Some(committed), OnDataLoss::Skip, Ok(committed));
        }
        let too_short = || Err(Unreadable::LogTooShort { committed: 10, high: 9 });
        check(Some(10), OnDataLoss::Fail, too_short());
        check(Some(10), OnDataLoss::Skip, too_short());
        check(Some(4), OnDataLoss::Fail, Err(Unreadable::DataLoss { committed: 4, low: 5 }));
        check(Some(4), OnDataLoss::Skip, Ok(5));
    }

    #[test]
    fn an_unreadable_partition_says_why() {
        let text = Unreadable::DataLoss { committed: 4, low: 5 }.to_string();
        assert!(text.contains("1 offsets are lost"), "{text}");
        let text = Unreadable::LogTooShort { committed: 10, high: 9 }.to_string();
        assert!(text.contains("the log ends at 9"), "{text}");
    }

    #[test]
    fn lost_offsets_are_counted() {
        let partition = |committed, start| AssignedPartition { partition: 0, committed, high: 9, start };
        assert_eq!(partition(Some(3), Ok(5)).lost_offsets(), Some(2));
        assert_eq!(partition(None, Ok(5)).lost_offsets(), None);
        assert_eq!(partition(Some(7), Ok(7)).lost_offsets(), None);
    }
}
