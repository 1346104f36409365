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
use silverd_core::offsets::{LogPartition, Offsets, TopicIds, TopicName};

use super::client::{REQUEST_TIMEOUT, log_librdkafka, request_offsets};
use super::options::{Progress, SourceOptions};
use super::topics::{Found, Topics};
use crate::runtime::clock;

/// What a callback reports to the poll loop.
pub(super) enum ConsumerEvent {
    Assigned(Vec<AssignedPartition>),
    /// The offset from which each partition of new topics is read, by `start = "latest"`.
    Began(Vec<(LogPartition, i64)>),
    Revoked(Vec<LogPartition>),
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
    pub(super) log: LogPartition,
    /// The next offset that Bronze needs; `None` if it has none of the partition.
    pub(super) committed: Option<i64>,
    /// The end of the partition in Kafka.
    pub(super) high: i64,
    /// When Kafka was asked for it, in microseconds since the epoch.
    pub(super) asked_at: i64,
    pub(super) start: Result<i64, Unreadable>,
}

/// Why a partition is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
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
    #[error(
        "the end of the log was cut, most likely by the election of a leader that lacked it. Bronze keeps the records up to \
         offset {committed}, some of which Kafka no longer has; what was written since then at their offsets is not in \
         bronze. To continue from offset {committed}, set `on_data_loss = \"skip\"` under [source] in pipeline.toml, or \
         restart silverd"
    )]
    LogCut { committed: i64 },
    #[error(
        "the topic was deleted and created again: bronze has stored records of the topic with the id {stored}, and now \
         its id is {found}. Bronze is not overwritten: to read the new topic, give it another name, or give bronze and \
         the Silver tables new paths in pipeline.toml. What silverd has read in the seconds before it noticed this, may \
         already be of the new topic"
    )]
    Recreated { stored: Arc<str>, found: Arc<str> },
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
/// `start = "latest"` is decided once, for all partitions of a topic ([`RebalanceContext::begin_at_end`]): a partition or
/// a topic that comes later is read from its first record.
pub(crate) fn start_offset(
    committed: Option<i64>,
    low: i64,
    high: i64,
    config: &config::Source,
) -> Result<i64, Unreadable> {
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
    topics: Mutex<Topics>,
    events: EventQueue,
}

impl RebalanceContext {
    pub(super) fn new(options: Arc<SourceOptions>, found: Found) -> Self {
        let context =
            Self { options, cluster: found.cluster_id, topics: Mutex::default(), events: EventQueue::default() };
        context.set_topics(found.topics);
        context
    }

    /// The events since the last call, in their order.
    pub(super) fn take_events(&self) -> Vec<ConsumerEvent> {
        self.events.take()
    }

    pub(super) fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    pub(super) fn topics(&self) -> Topics {
        self.topics.lock().clone()
    }

    pub(super) fn set_topics(&self, topics: Topics) {
        for name in topics.names() {
            if let Some(id) = topics.get(name).and_then(|topic| topic.id.clone()) {
                self.options.topic_ids.lock().insert(self.topic_name(name), id);
            }
        }
        *self.topics.lock() = topics;
    }

    /// Every partition of every topic.
    pub(super) fn logs(&self) -> Vec<LogPartition> {
        self.topics.lock().logs(&self.cluster)
    }

    fn topic_name(&self, topic: &Arc<str>) -> TopicName {
        TopicName { cluster: self.cluster.clone(), topic: topic.clone() }
    }

    /// Assigns all partitions of all topics without the group.
    pub(super) fn assign_all(&self, consumer: &BaseConsumer<Self>) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for log in self.logs() {
            list.add_partition(&log.topic, log.partition);
        }
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
            unreadable.add_partition(&partition.log.topic, partition.log.partition);
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
        let Progress { offsets: mut committed, topic_ids } =
            (self.options.resume)().context("read bronze's offsets")?;
        if self.options.config.start == Start::Latest {
            committed.extend(self.begin_at_end(consumer, &committed)?);
        }
        let logs = self.logs_of(list);
        let asked_at = clock::now_micros();
        let (lows, highs) =
            (self.request(consumer, &logs, Offset::Beginning)?, self.request(consumer, &logs, Offset::End)?);
        let mut assigned = Vec::new();
        for ((log, low), high) in logs.into_iter().zip(lows).zip(highs) {
            let committed = committed.get(&log).copied();
            let start = match self.recreated(&log, &topic_ids) {
                Some(recreated) => Err(recreated),
                None => start_offset(committed, low, high, &self.options.config)
                    .and_then(|start| self.refuse_cut(&log, committed, start)),
            };
            let offset = start.as_ref().map_or(Offset::End, |start| Offset::Offset(*start));
            list.set_partition_offset(&log.topic, log.partition, offset)?;
            assigned.push(AssignedPartition { log, committed, high, asked_at, start });
        }
        Ok(assigned)
    }

    /// The start in a partition, unless its log was cut, and has grown again beyond what Bronze has.
    fn refuse_cut(&self, log: &LogPartition, committed: Option<i64>, start: i64) -> Result<i64, Unreadable> {
        let mut cut_logs = self.options.cut_logs.lock();
        match (committed, self.options.config.on_data_loss) {
            (Some(committed), OnDataLoss::Fail) if committed == start && cut_logs.contains(log) => {
                Err(Unreadable::LogCut { committed })
            }
            _ => {
                // What is missing is skipped, which was reported with the failure.
                cut_logs.remove(log);
                Ok(start)
            }
        }
    }

    /// Whether Bronze has records of another topic of this name.
    fn recreated(&self, log: &LogPartition, stored: &TopicIds) -> Option<Unreadable> {
        let found = self.topics.lock().get(&log.topic)?.id.clone()?;
        let stored = stored.get(&log.topic_name()).filter(|stored| **stored != found)?.clone();
        Some(Unreadable::Recreated { stored, found })
    }

    /// If Bronze has nothing of the cluster, for the topics that were there from the first: the end of every partition, which
    /// becomes its beginning, also of those that other daemons read, or that are empty. Bronze commits it at once.
    fn begin_at_end(&self, consumer: &BaseConsumer<Self>, committed: &Offsets) -> anyhow::Result<Offsets> {
        // A topic that is found later, or named later, is read from its first record.
        if committed.keys().any(|log| log.cluster == self.cluster) {
            return Ok(Offsets::new());
        }
        let begins = |log: &LogPartition| self.options.first_topics.has(&log.topic);
        let logs: Vec<_> = self.logs().into_iter().filter(begins).collect();
        if logs.is_empty() {
            return Ok(Offsets::new());
        }
        let ends = self.request(consumer, &logs, Offset::End)?;
        let ends: Vec<_> = logs.into_iter().zip(ends).collect();
        self.events.push(ConsumerEvent::Began(ends.clone()));
        Ok(ends.into_iter().collect())
    }

    /// The first offset of each log partition in Kafka, or its end.
    fn request(&self, consumer: &BaseConsumer<Self>, logs: &[LogPartition], which: Offset) -> anyhow::Result<Vec<i64>> {
        let offsets = request_offsets(consumer, logs, which, REQUEST_TIMEOUT);
        let offsets = offsets.context("request the first and the last offsets of the partitions")?;
        let of = |log: &LogPartition| {
            let offset = offsets.get(&(log.topic.to_string(), log.partition));
            offset
                .copied()
                .with_context(|| format!("Kafka gives no offset of partition {} of {}", log.partition, log.topic))
        };
        logs.iter().map(of).collect()
    }

    fn logs_of(&self, list: &TopicPartitionList) -> Vec<LogPartition> {
        let log = |(topic, partition): (&str, i32)| LogPartition::new(self.cluster.clone(), topic, partition);
        list.elements().iter().map(|element| log((element.topic(), element.partition()))).collect()
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
            self.events.push(ConsumerEvent::Revoked(self.logs_of(list)));
            let revoked = if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() };
            revoked.context("unassign partitions")
        };
        if let Err(failure) = result {
            self.events.push(ConsumerEvent::RebalanceFailed(failure));
        }
    }
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
    use super::*;

    #[track_caller]
    fn check(committed: Option<i64>, on_data_loss: OnDataLoss, expected: Result<i64, Unreadable>) {
        let (brokers, group) = ("b:1".to_owned(), "g".to_owned());
        for start in [Start::Earliest, Start::Latest] {
            let (brokers, topics, group) = (brokers.clone(), config::Topics::one("t"), group.clone());
            let config = config::Source { brokers, topics, group, start, on_data_loss, kafka: Default::default() };
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
        let log = LogPartition::new("c", "t", 0);
        let partition =
            |committed, start| AssignedPartition { log: log.clone(), committed, high: 9, asked_at: 0, start };
        assert_eq!(partition(Some(3), Ok(5)).lost_offsets(), Some(2));
        assert_eq!(partition(None, Ok(5)).lost_offsets(), None);
        assert_eq!(partition(Some(7), Ok(7)).lost_offsets(), None);
    }
}
