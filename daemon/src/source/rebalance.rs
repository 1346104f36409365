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
use silverd_core::offsets::LogPartition;

use super::client::{REQUEST_TIMEOUT, log_librdkafka};
use super::options::SourceOptions;

/// What a callback reports to the poll loop.
pub(super) enum ConsumerEvent {
    Assigned(Vec<AssignedPartition>),
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
    /// Kafka has the offsets `low..high`.
    pub(super) low: i64,
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

    /// The end of the offsets that `start = "latest"` leaves out.
    pub(super) fn left_out_end(&self) -> Option<i64> {
        let start = *self.start.as_ref().ok()?;
        (self.committed.is_none() && start > self.low).then_some(start)
    }
}

/// Where to start in a partition of which Kafka has the offsets `low..high`, and of which Bronze needs `committed`
/// next.
///
/// | `committed`           | configuration           | start                            |
/// |-----------------------|-------------------------|----------------------------------|
/// | none                  | `start = "earliest"`    | `low`                            |
/// | none                  | `start = "latest"`      | `high`                           |
/// | from `low` to `high`  |                         | `committed`                      |
/// | above `high`          |                         | [`Unreadable::LogTooShort`]      |
/// | below `low`           | `on_data_loss = "fail"` | [`Unreadable::DataLoss`]         |
/// | below `low`           | `on_data_loss = "skip"` | `low`                            |
fn start_offset(committed: Option<i64>, low: i64, high: i64, config: &config::Source) -> Result<i64, Unreadable> {
    match (committed, config.start, config.on_data_loss) {
        (None, Start::Earliest, _) => Ok(low),
        (None, Start::Latest, _) => Ok(high),
        (Some(committed), ..) if committed > high => Err(Unreadable::LogTooShort { committed, high }),
        (Some(committed), _, OnDataLoss::Fail) if committed < low => Err(Unreadable::DataLoss { committed, low }),
        (Some(committed), ..) => Ok(committed.max(low)),
    }
}

/// The context of the consumer: receives librdkafka's callbacks.
pub(super) struct RebalanceContext {
    options: Arc<SourceOptions>,
    cluster: Arc<str>,
    events: EventQueue,
}

impl RebalanceContext {
    pub(super) fn new(options: Arc<SourceOptions>, cluster: Arc<str>) -> Self {
        Self { options, cluster, events: EventQueue::default() }
    }

    /// The events since the last call, in their order.
    pub(super) fn take_events(&self) -> Vec<ConsumerEvent> {
        self.events.take()
    }

    pub(super) fn log_partition(&self, partition: i32) -> LogPartition {
        LogPartition::new(self.cluster.clone(), self.options.config.topic.as_str(), partition)
    }

    /// Assigns all partitions of the topic without the group.
    pub(super) fn assign_all(&self, consumer: &BaseConsumer<Self>, partitions: usize) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.options.config.topic, 0, partitions as i32 - 1);
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
        let committed = (self.options.resume)().context("read bronze's offsets")?;
        let mut assigned = Vec::new();
        for partition in partitions_of(list) {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
                .with_context(|| format!("request the watermarks of partition {partition} of {topic}"))?;
            let committed = committed.get(&self.log_partition(partition)).copied();
            let start = start_offset(committed, low, high, &self.options.config);
            let offset = start.as_ref().map_or(Offset::End, |start| Offset::Offset(*start));
            list.set_partition_offset(topic, partition, offset)?;
            assigned.push(AssignedPartition { partition, committed, low, high, start });
        }
        Ok(assigned)
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
    fn check(committed: Option<i64>, start: Start, on_data_loss: OnDataLoss, expected: Result<i64, Unreadable>) {
        let (brokers, topic, group) = ("b:1".to_owned(), "t".to_owned(), "g".to_owned());
        let config = config::Source { brokers, topic, group, start, on_data_loss, kafka: BTreeMap::new() };
        assert_eq!(start_offset(committed, 5, 9, &config), expected);
    }

    #[test]
    fn start_offset_follows_the_truth_table() {
        check(None, Start::Earliest, OnDataLoss::Fail, Ok(5));
        check(None, Start::Latest, OnDataLoss::Fail, Ok(9));
        for committed in [5, 7, 9] {
            check(Some(committed), Start::Earliest, OnDataLoss::Fail, Ok(committed));
            check(Some(committed), Start::Latest, OnDataLoss::Skip, Ok(committed));
        }
        let too_short = || Err(Unreadable::LogTooShort { committed: 10, high: 9 });
        check(Some(10), Start::Earliest, OnDataLoss::Fail, too_short());
        check(Some(10), Start::Earliest, OnDataLoss::Skip, too_short());
        check(Some(4), Start::Earliest, OnDataLoss::Fail, Err(Unreadable::DataLoss { committed: 4, low: 5 }));
        check(Some(4), Start::Earliest, OnDataLoss::Skip, Ok(5));
    }

    #[test]
    fn an_unreadable_partition_says_why() {
        let text = Unreadable::DataLoss { committed: 4, low: 5 }.to_string();
        assert!(text.contains("1 offsets are lost"), "{text}");
        let text = Unreadable::LogTooShort { committed: 10, high: 9 }.to_string();
        assert!(text.contains("the log ends at 9"), "{text}");
    }

    #[test]
    fn lost_and_left_out_offsets_are_distinguished() {
        let partition = |committed, start| AssignedPartition { partition: 0, committed, low: 5, high: 9, start };
        let skipped = partition(Some(3), Ok(5));
        assert_eq!((skipped.lost_offsets(), skipped.left_out_end()), (Some(2), None));
        let latest = partition(None, Ok(9));
        assert_eq!((latest.lost_offsets(), latest.left_out_end()), (None, Some(9)));
        let earliest = partition(None, Ok(5));
        assert_eq!((earliest.lost_offsets(), earliest.left_out_end()), (None, None));
        let resumed = partition(Some(7), Ok(7));
        assert_eq!((resumed.lost_offsets(), resumed.left_out_end()), (None, None));
    }
}
