//! The configuration of the Kafka client, and finding the topic.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext};
use silverd_core::config;
use tracing::{debug, warn};

use super::kafka_error::{Remedy, remedy};
use super::options::SourceOptions;

/// How long one poll may block; also how soon a stop is noticed.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_millis(100);
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
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

pub(super) fn client_config(options: &SourceOptions, protocol: GroupProtocol) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("client.id", "silverd")
        .set("fetch.wait.max.ms", "50")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "8192")
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
    for (key, value) in &options.config.kafka {
        if key != "group.protocol" {
            client.set(key, value.expose());
        }
    }
    client
        .set("bootstrap.servers", &options.broker.bootstrap)
        .set("group.id", &options.config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // silverd sets every start offset. If Kafka does not have it, that is an error, never a silent jump.
        .set("auto.offset.reset", "error");
    client
}

/// The topic that a source reads.
pub(super) struct Topic {
    pub(super) cluster_id: String,
    pub(super) partitions: usize,
}

/// A client that only asks, on connections of its own: a broker answers the requests of a connection one after the other,
/// and a fetch may wait.
pub(super) type AdminConsumer = BaseConsumer<MetadataContext>;

/// Waits until a broker responds and has the topic. `None`: the source was stopped.
pub(super) fn find_topic(
    options: &SourceOptions,
    client: &ClientConfig,
    stop: &AtomicBool,
) -> anyhow::Result<Option<(Topic, AdminConsumer)>> {
    let connect =
        || -> anyhow::Result<AdminConsumer> { client.create_with_context(MetadataContext).context(SET_UP_CONSUMER) };
    let (mut consumer, mut answered) = (connect()?, Instant::now());
    let (mut problem_log, started) = (LogLimit::default(), Instant::now());
    while !stop.load(Relaxed) {
        if answered.elapsed() > ANSWER_TIMEOUT {
            (consumer, answered) = (connect()?, Instant::now());
        }
        // Runs the callbacks, among them those of SASL.
        let _ = consumer.poll(Duration::ZERO);
        match request_topic(options, &consumer) {
            Ok(topic) => {
                options.problems.clear();
                return Ok(Some((topic, consumer)));
            }
            Err(problem) if options.drain && started.elapsed() > DRAIN_TIMEOUT => return Err(problem.into()),
            Err(problem) => {
                if !matches!(problem, TopicError::BrokerUnreachable { .. }) {
                    answered = Instant::now();
                }
                options.problems.set("topic", problem.to_string());
                if problem_log.allows() {
                    warn!("{problem}; retrying");
                }
            }
        }
        std::thread::sleep(POLL_TIMEOUT);
    }
    Ok(None)
}

#[derive(Debug, thiserror::Error)]
enum TopicError {
    #[error(
        "no broker answers at {bootstrap} ({error}): start Kafka, or correct `brokers` under [source] in pipeline.toml"
    )]
    BrokerUnreachable { bootstrap: String, error: KafkaError },
    #[error("the broker at {bootstrap} does not report its cluster id")]
    ClusterIdMissing { bootstrap: String },
    #[error(
        "topic {topic} does not exist at {bootstrap}. Create it with `kafka-topics.sh --bootstrap-server {bootstrap} \
         --create --topic {topic} --partitions 4`, or run `silverd generate`, which creates it"
    )]
    TopicMissing { topic: String, bootstrap: String },
}

fn request_topic(options: &SourceOptions, consumer: &AdminConsumer) -> Result<Topic, TopicError> {
    let (bootstrap, topic) = (options.broker.bootstrap.clone(), options.config.topic.clone());
    let metadata = match consumer.fetch_metadata(Some(&topic), METADATA_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => return Err(TopicError::BrokerUnreachable { bootstrap, error }),
    };
    let partitions = match metadata.topics().first() {
        Some(found) if found.error().is_none() && !found.partitions().is_empty() => found.partitions().len(),
        _ => return Err(TopicError::TopicMissing { topic, bootstrap }),
    };
    let cluster_id = options.broker.cluster_id.clone();
    match cluster_id.or_else(|| consumer.client().fetch_cluster_id(REQUEST_TIMEOUT)) {
        Some(cluster_id) => Ok(Topic { cluster_id, partitions }),
        None => Err(TopicError::ClusterIdMissing { bootstrap }),
    }
}

/// Whether the topic exists; `None` if no broker answers.
pub(super) fn topic_exists(consumer: &AdminConsumer, topic: &str) -> Option<bool> {
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT).ok()?;
    Some(metadata.topics().first().is_none_or(|found| found.error().is_none() && !found.partitions().is_empty()))
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
