//! The Kafka producer of `silverd generate`: counts the events that the broker confirms, and reports why others failed.

use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio_util::sync::CancellationToken;

use super::rate_limiter::RateLimiter;
use super::{EventSource, GenerateArgs, Outgoing, Report};

/// For the broker's first response, and for creating the topic.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For the delivery of an event while the broker is unavailable.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// For the delivery of the remaining events after a shutdown or a failure.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Between two checks of the gate and of the shutdown.
const BATCH_EVENTS_MAX: u64 = 1_000;
const QUEUE_KILOBYTES_MAX: u32 = 64 * 1024;

/// Sends events to one topic. A clone shares the connection and the counts.
#[derive(Clone)]
pub struct Sender {
    producer: ThreadedProducer<Deliveries>,
    bootstrap: String,
    topic: String,
}

impl Sender {
    /// Waits at most ten seconds for a broker, and creates the topic if it does not exist.
    pub async fn connect(
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let config = client_config(bootstrap);
        let producer = producer_config(&config)
            .create_with_context(Deliveries::default())
            .with_context(|| format!("set up a Kafka producer for {bootstrap}"))?;
        let sender = Self { producer, bootstrap: bootstrap.to_owned(), topic: topic.to_owned() };
        let (waiting, shutdown) = (sender.clone(), shutdown.clone());
        let exists = tokio::task::spawn_blocking(move || waiting.wait_for_broker(&shutdown))
            .await
            .context("wait for the broker")??;
        if !exists {
            sender.create_topic(&config, partitions).await?;
            let waiting = sender.clone();
            tokio::task::spawn_blocking(move || waiting.wait_for_partitions())
                .await
                .context("wait for the topic")??;
        }
        Ok(sender)
    }

    /// Sends the events that `args` describe until all are sent or `shutdown` is cancelled. Ignores the brokers, the
    /// topic and the partitions in `args`. Calls `gate` before each batch of at most a thousand events, and sends
    /// nothing while it returns false. Runs on a blocking thread.
    pub async fn produce(
        self,
        args: GenerateArgs,
        gate: impl Fn() -> bool + Send + 'static,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Report> {
        let source = EventSource::open(&args)?;
        let work = move || {
            let sent = self.send_all(source, &args, gate, &shutdown);
            let finished = self.finish(&shutdown);
            sent.and(finished)
        };
        tokio::task::spawn_blocking(work).await.context("send events")?
    }

    /// The events that the broker has confirmed so far.
    pub fn progress(&self) -> Report {
        self.deliveries().report()
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.client().context()
    }

    fn send_all(
        &self,
        mut source: EventSource,
        args: &GenerateArgs,
        gate: impl Fn() -> bool,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut limiter = RateLimiter::new(args.eps, Instant::now());
        let mut left = args.count.unwrap_or(u64::MAX);
        while left > 0 && !shutdown.is_cancelled() && self.deliveries().first_failure.get().is_none() {
            let due = if gate() { limiter.due(Instant::now()).min(left) } else { 0 };
            let batch = due.min(BATCH_EVENTS_MAX);
            for _ in 0..batch {
                let Some(event) = source.next()? else { return Ok(()) };
                if !self.send(&event, shutdown).with_context(|| format!("send {}", source.position()))? {
                    return Ok(());
                }
            }
            left -= batch;
            limiter.release(batch);
            if batch == due {
                sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }

    /// Puts the event into the producer's queue, and waits while the queue is full. False: a shutdown or a failure came
    /// first.
    fn send(&self, event: &Outgoing, shutdown: &CancellationToken) -> anyhow::Result<bool> {
        let mut record = BaseRecord::with_opaque_to(&self.topic, usize::from(event.duplicate)).payload(&event.value);
        if let Some(key) = &event.key {
            record = record.key(key);
        }
        loop {
            record = match self.producer.send(record) {
                Ok(()) => {
                    self.deliveries().queued.fetch_add(1, Ordering::Relaxed);
                    return Ok(true);
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => record,
                Err((error, _)) => bail!(self.describe_failure(1, &error, error.rdkafka_error_code())),
            };
            if shutdown.is_cancelled() || self.deliveries().first_failure.get().is_some() {
                return Ok(false);
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Waits until the broker has confirmed every event.
    fn finish(&self, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        let deliveries = self.deliveries();
        let mut deadline = Instant::now() + DELIVERY_TIMEOUT + REQUEST_TIMEOUT;
        let mut is_ending = false;
        while deliveries.unconfirmed() > 0 && Instant::now() < deadline {
            if !is_ending && (shutdown.is_cancelled() || deliveries.first_failure.get().is_some()) {
                is_ending = true;
                deadline = deadline.min(Instant::now() + SHUTDOWN_TIMEOUT);
            }
            // An error is only the timeout; the counts show the rest.
            let _ = self.producer.flush(POLL_INTERVAL);
        }
        if let Some((reason, code)) = deliveries.first_failure.get() {
            bail!(self.describe_failure(0, reason, *code));
        }
        match deliveries.unconfirmed() {
            0 => Ok(deliveries.report()),
            unconfirmed => bail!(
                "the broker at {} has not confirmed {unconfirmed} of {} events for topic {}{}. Is it still running? \
                 Some of these events may have arrived",
                self.bootstrap,
                deliveries.queued.load(Ordering::Relaxed),
                self.topic,
                deliveries.last_error_text(),
            ),
        }
    }

    /// `refused`: the number of events that did not reach the producer's queue.
    fn describe_failure(&self, refused: u64, reason: &dyn Display, code: Option<RDKafkaErrorCode>) -> String {
        let Self { bootstrap, topic, .. } = self;
        let Report { sent, .. } = self.progress();
        let failed = refused + self.deliveries().failed.load(Ordering::Relaxed);
        let all = refused + self.deliveries().queued.load(Ordering::Relaxed);
        let help = match code {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                "the event is larger than message.max.bytes (1 MB by default): remove it, or split it"
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => {
                "the broker was unavailable for too long: see its log, then run the command again"
            }
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                "the topic no longer exists: run the command again to create it"
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                "the broker does not permit it: grant WRITE on the topic"
            }
            _ => "see the broker's log",
        };
        format!(
            "the broker at {bootstrap} did not accept {failed} of {all} events for topic {topic} ({sent} arrived): \
             {reason}; {help}"
        )
    }

    /// Whether the topic exists. Requests all topics: many brokers create a topic that is requested by its name, with
    /// their own number of partitions.
    fn wait_for_broker(&self, shutdown: &CancellationToken) -> anyhow::Result<bool> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let error = match self.producer.client().fetch_metadata(None, Duration::from_secs(1)) {
                Ok(metadata) => {
                    let mut topics = metadata.topics().iter();
                    return Ok(topics.any(|topic| topic.name() == self.topic && !topic.partitions().is_empty()));
                }
                Err(error) => error,
            };
            if shutdown.is_cancelled() {
                bail!("stopped while waiting for a broker at {}", self.bootstrap);
            }
            if Instant::now() >= deadline {
                return Err(self.no_broker(&error));
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Waits until every partition of the new topic has a log. A broker that creates it just then may confirm records that
    /// it does not keep: seen with Kafka 4.1.1 and an idempotent producer, on a busy machine.
    fn wait_for_partitions(&self) -> anyhow::Result<()> {
        const TRY_TIMEOUT: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let client = self.producer.client();
            let ready = client.fetch_metadata(Some(&self.topic), TRY_TIMEOUT).and_then(|metadata| {
                let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                let ids: Vec<_> = partitions.map(|partition| partition.id()).collect();
                ids.iter().try_for_each(|id| client.fetch_watermarks(&self.topic, *id, TRY_TIMEOUT).map(drop))?;
                Ok(!ids.is_empty())
            });
            match ready {
                Ok(true) => return Ok(()),
                Ok(false) | Err(_) if Instant::now() < deadline => sleep(POLL_INTERVAL),
                Ok(false) => bail!("topic {} was created, and has no partitions", self.topic),
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("topic {} was created, and a partition of it has no leader yet", self.topic)
                    });
                }
            }
        }
    }

    fn no_broker(&self, error: &KafkaError) -> anyhow::Error {
        let reason = match self.deliveries().last_error_text() {
            reason if reason.is_empty() => format!(" ({error})"),
            reason => reason,
        };
        anyhow!(
            "no broker answers at {}{reason}, waited {} s. Is it running? \
             Set another one with --bootstrap HOST:PORT or KAFKA_BROKERS",
            self.bootstrap,
            REQUEST_TIMEOUT.as_secs(),
        )
    }

    async fn create_topic(&self, config: &ClientConfig, partitions: i32) -> anyhow::Result<()> {
        let Self { bootstrap, topic, .. } = self;
        let failed = |reason: &dyn Display| {
            anyhow!(
                "topic {topic} does not exist at {bootstrap}, and cannot be created with {partitions} partition(s): \
                 {reason}; create it yourself (kafka-topics.sh --bootstrap-server {bootstrap} --create --topic {topic} \
                 --partitions {partitions}), or set another one with --topic"
            )
        };
        let admin: AdminClient<DefaultClientContext> = config.create().map_err(|error| failed(&error))?;
        // -1: the broker's default replication factor.
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let options =
            AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT));
        let results = admin.create_topics([&new], &options).await.map_err(|error| failed(&error))?;
        match results.into_iter().find_map(Result::err) {
            // Another process was faster.
            None | Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
            Some((_, code)) => Err(failed(&code)),
        }
    }
}

fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("client.id", "silverd-generate");
    config
}

fn producer_config(client: &ClientConfig) -> ClientConfig {
    let mut config = client.clone();
    config
        // A retry of librdkafka must not create a duplicate: the only duplicates are those of `dup_pct`.
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KILOBYTES_MAX.to_string());
    config
}

/// Counts the outcomes of the events. librdkafka calls it on its own thread.
#[derive(Default)]
struct Deliveries {
    queued: AtomicU64,
    confirmed: AtomicU64,
    bytes: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    first_failure: OnceLock<(String, Option<RDKafkaErrorCode>)>,
    /// The last error of librdkafka. It is no failure while librdkafka retries.
    last_error: Mutex<Option<String>>,
}

impl Deliveries {
    fn report(&self) -> Report {
        Report {
            sent: self.confirmed.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
        }
    }

    /// How many events are neither confirmed nor failed. Reads the finished ones first, so that an event that is
    /// confirmed in the meantime counts as unconfirmed and the difference is never negative.
    fn unconfirmed(&self) -> u64 {
        let finished = self.confirmed.load(Ordering::SeqCst) + self.failed.load(Ordering::SeqCst);
        self.queued.load(Ordering::SeqCst).saturating_sub(finished)
    }

    /// ` (reason)`, or an empty text.
    fn last_error_text(&self) -> String {
        let last_error = self.last_error.lock();
        last_error.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        let mut last_error = self.last_error.lock();
        // "All brokers are down" follows the error with the reason, and must not replace it.
        if last_error.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *last_error = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Deliveries {
    /// 1 for a duplicate, else 0.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, duplicate: usize) {
        match result {
            Ok(message) => {
                self.bytes.fetch_add(message.payload_len() as u64, Ordering::Relaxed);
                self.duplicates.fetch_add(duplicate as u64, Ordering::Relaxed);
                self.confirmed.fetch_add(1, Ordering::SeqCst);
            }
            Err((error, _)) => {
                self.first_failure.get_or_init(|| (error.to_string(), error.rdkafka_error_code()));
                self.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests;
