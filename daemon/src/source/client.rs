//! The configuration of the Kafka client, and what it asks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use silverd_core::config;
use silverd_core::offsets::LogPartition;
use tracing::{debug, warn};

use super::kafka_error::{Remedy, remedy};
use super::options::Broker;

/// How long one poll may block; also how soon a stop is noticed.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_millis(100);
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a drain waits for a broker and the topic, and for failures to pass.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// After this time without an answer, a client asks no more: librdkafka 2.12 forgets every broker, and for good, when one
/// answers that no broker is alive. A single broker does so when it was suspended.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
/// How often a problem that remains is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(super) const SET_UP_CONSUMER: &str = "set up the Kafka consumer ([source.kafka] in pipeline.toml)";

/// How the members of a consumer group agree on their partitions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupProtocol {
    /// KIP-848, since Kafka 4.
    Consumer,
    Classic,
}

impl GroupProtocol {
    /// The new protocol, unless [source.kafka] asks for the classic one or sets a property that only that one has.
    pub(super) fn from_config(config: &config::Source) -> Self {
        let classic = ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"];
        match config.kafka.get("group.protocol") {
            Some(protocol) if protocol.expose() == "classic" => Self::Classic,
            Some(_) => Self::Consumer,
            None if classic.iter().any(|key| config.kafka.contains_key(*key)) => Self::Classic,
            None => Self::Consumer,
        }
    }
}

pub(super) fn client_config(config: &config::Source, broker: &Broker, protocol: GroupProtocol) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("client.id", "silverd")
        .set("fetch.wait.max.ms", "50")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "8192")
        // By default an answer has up to 50 MiB of many partitions, and all of it stays until its last message is read.
        .set("fetch.max.bytes", "4194304")
        // By default a full queue stops fetching for a second, which costs a third of a drain's throughput.
        .set("fetch.queue.backoff.ms", "5")
        // By default a broker that comes back is noticed after up to ten seconds.
        .set("reconnect.backoff.max.ms", "2000")
        .set("isolation.level", "read_committed")
        .set("statistics.interval.ms", "1000")
        .set("allow.auto.create.topics", "false")
        .set("group.protocol", if protocol == GroupProtocol::Consumer { "consumer" } else { "classic" });
    if protocol == GroupProtocol::Classic {
        client.set("partition.assignment.strategy", "cooperative-sticky");
    }
    for (key, value) in &config.kafka {
        if key != "group.protocol" {
            client.set(key, value.expose());
        }
    }
    client
        .set("bootstrap.servers", &broker.bootstrap)
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // silverd sets every start offset. If Kafka does not have it, that is an error, never a silent jump.
        .set("auto.offset.reset", "error");
    client
}

/// A client that only asks, on connections of its own: a broker answers the requests of a connection one after the other,
/// and a fetch may wait.
pub(super) type AdminConsumer = BaseConsumer<MetadataContext>;

/// A client that reads partitions which it assigns to itself: it is no member of the group.
pub(super) fn self_assigned(source: &config::Source) -> anyhow::Result<AdminConsumer> {
    let broker = Broker { bootstrap: source.brokers.clone(), cluster_id: None };
    let client = client_config(source, &broker, GroupProtocol::from_config(source));
    let consumer: AdminConsumer = client.create_with_context(MetadataContext).context(SET_UP_CONSUMER)?;
    // Runs the callbacks, among them those of SASL.
    let _ = consumer.poll(Duration::ZERO);
    Ok(consumer)
}

/// The offset of a log partition among those that were requested; 0 if it was not.
pub(super) fn offset_of(requested: &HashMap<(String, i32), i64>, log: &LogPartition) -> i64 {
    requested.get(&(log.topic.to_string(), log.partition)).copied().unwrap_or(0)
}

/// Requests the first offset of each log partition (`Offset::Beginning`), or its end (`Offset::End`): that of its last
/// transaction that is not open.
pub(super) fn request_offsets<'l, C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    logs: impl IntoIterator<Item = &'l LogPartition>,
    which: Offset,
    timeout: Duration,
) -> KafkaResult<HashMap<(String, i32), i64>> {
    let mut list = TopicPartitionList::new();
    for log in logs {
        list.add_partition_offset(&log.topic, log.partition, which)?;
    }
    if list.count() == 0 {
        return Ok(HashMap::new());
    }
    let found = consumer.offsets_for_times(list, timeout)?;
    let mut offsets = HashMap::new();
    for element in found.elements() {
        element.error()?;
        let Offset::Offset(offset) = element.offset() else {
            return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetNotAvailable));
        };
        offsets.insert((element.topic().to_owned(), element.partition()), offset);
    }
    Ok(offsets)
}

/// Whether a broker answers.
pub(super) fn answers(consumer: &AdminConsumer, topic: &str) -> bool {
    consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT).is_ok()
}

/// The context of a consumer that only requests metadata.
pub(super) struct MetadataContext;

impl ClientContext for MetadataContext {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ConsumerContext for MetadataContext {}

pub(super) fn log_librdkafka(facility: &str, message: &str) {
    debug!("librdkafka: {facility}: {message}");
}

/// librdkafka reports each connection that it retries. Only what a person must fix is a warning.
pub(super) fn log_client_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code().and_then(remedy) {
        Some(Remedy::User(hint)) => warn!("kafka: {reason}; {hint}"),
        _ => debug!("kafka: {error}: {reason}"),
    }
}

/// Limits how often a problem that remains is logged.
#[derive(Default)]
pub(super) struct LogLimit {
    last: Option<Instant>,
}

impl LogLimit {
    /// Whether to log the problem now.
    pub(super) fn allows(&mut self) -> bool {
        let allowed = self.last.is_none_or(|last| last.elapsed() > LOG_INTERVAL);
        if allowed {
            self.last = Some(Instant::now());
        }
        allowed
    }
}
