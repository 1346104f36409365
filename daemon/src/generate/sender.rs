//! The Kafka producer of `silverd generate`: it counts what the broker confirms, and says why when it does not.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::{GenerateArgs, Outgoing, Report, Source};

/// How long a broker has for its first answer, and for creating the topic.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a broker may be away before the events that wait for it count as lost.
const DELIVERY_MAX: Duration = Duration::from_secs(120);
/// Nobody wants to wait as long as that after a shutdown, or for a failure to grow.
const DELIVERY_IN_HASTE_MAX: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(10);
/// The gate is asked, and a shutdown noticed, after so many events at the latest.
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
    /// Waits for a broker, for ten seconds at most, and creates the topic if it is missing.
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
        let (asker, shutdown) = (sender.clone(), shutdown.clone());
        let exists = tokio::task::spawn_blocking(move || asker.wait_for_broker(&shutdown))
            .await
            .context("wait for the broker")??;
        if !exists {
            sender.create_topic(&config, partitions).await?;
        }
        Ok(sender)
    }

    /// Sends what `args` ask for (events per second, count, file, ...; connection, topic and partitions are this
    /// sender's own) until that is done or `shutdown` is cancelled. While `gate` gives false, nothing is sent; it is
    /// asked before each batch of at most a thousand events. Runs on a blocking thread of its own.
    pub async fn produce(
        self,
        args: GenerateArgs,
        gate: impl Fn() -> bool + Send + 'static,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Report> {
        let source = Source::open(&args)?;
        let work = move || {
            let sent = self.send_all(source, &args, gate, &shutdown);
            let finished = self.finish(&shutdown);
            sent.and(finished)
        };
        tokio::task::spawn_blocking(work).await.context("send events")?
    }

    /// What the broker has confirmed so far.
    pub fn progress(&self) -> Report {
        self.deliveries().report()
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.client().context()
    }

    fn send_all(
        &self,
        mut source: Source,
        args: &GenerateArgs,
        gate: impl Fn() -> bool,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut pace = Pace::new(args.eps, Instant::now());
        let mut left = args.count.unwrap_or(u64::MAX);
        while left > 0 && !shutdown.is_cancelled() && self.deliveries().first_failure.get().is_none() {
            let due = if gate() { pace.due(Instant::now()).min(left) } else { 0 };
            let batch = due.min(BATCH_EVENTS_MAX);
            for _ in 0..batch {
                let Some(event) = source.next()? else { return Ok(()) };
                if !self.send(&event, shutdown).with_context(|| format!("send {}", source.place()))? {
                    return Ok(());
                }
            }
            left -= batch;
            pace.release(batch);
            if batch == due {
                sleep(TICK);
            }
        }
        Ok(())
    }

    /// Puts the event into the producer's queue, and waits as long as that is full. False: given up, since a shutdown
    /// or a failure came first.
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
                Err((error, _)) => bail!(self.not_taken(1, &error, error.rdkafka_error_code())),
            };
            if shutdown.is_cancelled() || self.deliveries().first_failure.get().is_some() {
                return Ok(false);
            }
            sleep(TICK);
        }
    }

    /// Waits until the broker has confirmed every event.
    fn finish(&self, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        let deliveries = self.deliveries();
        let mut deadline = Instant::now() + DELIVERY_MAX + ANSWER_MAX;
        let mut in_haste = false;
        while deliveries.open() > 0 && Instant::now() < deadline {
            if !in_haste && (shutdown.is_cancelled() || deliveries.first_failure.get().is_some()) {
                in_haste = true;
                deadline = deadline.min(Instant::now() + DELIVERY_IN_HASTE_MAX);
            }
            // The error is the timeout; the counts tell the rest.
            let _ = self.producer.flush(TICK);
        }
        if let Some((reason, code)) = deliveries.first_failure.get() {
            bail!(self.not_taken(0, reason, *code));
        }
        match deliveries.open() {
            0 => Ok(deliveries.report()),
            open => bail!(
                "the broker at {} has not confirmed {open} of {} events for topic {}{}; is it still running? \
                 Some of them may have arrived all the same",
                self.bootstrap,
                deliveries.queued.load(Ordering::Relaxed),
                self.topic,
                deliveries.last_trouble(),
            ),
        }
    }

    /// `refused`: how many events did not even reach the producer's queue.
    fn not_taken(&self, refused: u64, reason: &dyn Display, code: Option<RDKafkaErrorCode>) -> String {
        let Self { bootstrap, topic, .. } = self;
        let Report { sent, .. } = self.progress();
        let failed = refused + self.deliveries().failed.load(Ordering::Relaxed);
        let all = refused + self.deliveries().queued.load(Ordering::Relaxed);
        let help = match code {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                "the event is larger than message.max.bytes (1 MB unless set otherwise): leave it out, or split it"
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => "the broker was away for too long: see its log, then run again",
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                "the topic is gone: was it deleted meanwhile? Run again to have it created"
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                "the broker does not allow it: have it grant WRITE on the topic"
            }
            _ => "the broker's log says more",
        };
        format!(
            "the broker at {bootstrap} did not take {failed} of {all} events for topic {topic} ({sent} arrived): \
             {reason}; {help}"
        )
    }

    /// Whether the topic exists. Asks for all topics: to ask for one by its name would make many brokers create it,
    /// with as many partitions as they like.
    fn wait_for_broker(&self, shutdown: &CancellationToken) -> anyhow::Result<bool> {
        let deadline = Instant::now() + ANSWER_MAX;
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
            sleep(TICK);
        }
    }

    fn no_broker(&self, error: &KafkaError) -> anyhow::Error {
        let trouble = match self.deliveries().last_trouble() {
            trouble if trouble.is_empty() => format!(" ({error})"),
            trouble => trouble,
        };
        anyhow!(
            "no broker answers at {}{trouble}, waited {} s. Is it running? \
             --bootstrap HOST:PORT or KAFKA_BROKERS names another one",
            self.bootstrap,
            ANSWER_MAX.as_secs(),
        )
    }

    async fn create_topic(&self, config: &ClientConfig, partitions: i32) -> anyhow::Result<()> {
        let Self { bootstrap, topic, .. } = self;
        let failed = |reason: &dyn Display| {
            anyhow!(
                "topic {topic} is missing at {bootstrap}, and cannot be created with {partitions} partition(s): {reason}; \
                 create it yourself (kafka-topics.sh --bootstrap-server {bootstrap} --create --topic {topic} \
                 --partitions {partitions}), or name another one with --topic"
            )
        };
        let admin: AdminClient<DefaultClientContext> = config.create().map_err(|error| failed(&error))?;
        // -1: as many copies as the broker makes unless told otherwise.
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX));
        let results = admin.create_topics([&new], &options).await.map_err(|error| failed(&error))?;
        match results.into_iter().find_map(Result::err) {
            // Somebody else was faster.
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
        // No retry of librdkafka's may make a duplicate: the only ones are those that were asked for.
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("message.timeout.ms", DELIVERY_MAX.as_millis().to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KILOBYTES_MAX.to_string());
    config
}

/// Counts what becomes of the events; librdkafka calls it from a thread of its own.
#[derive(Default)]
struct Deliveries {
    queued: AtomicU64,
    confirmed: AtomicU64,
    bytes: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    first_failure: OnceLock<(String, Option<RDKafkaErrorCode>)>,
    /// What librdkafka complained of last: no failure as long as it can try again.
    trouble: Mutex<Option<String>>,
}

impl Deliveries {
    fn report(&self) -> Report {
        Report {
            sent: self.confirmed.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
        }
    }

    /// How many events are neither confirmed nor failed. The answers are read first: an event that is confirmed in
    /// between then counts as open, never as less than none.
    fn open(&self) -> u64 {
        let answered = self.confirmed.load(Ordering::SeqCst) + self.failed.load(Ordering::SeqCst);
        self.queued.load(Ordering::SeqCst).saturating_sub(answered)
    }

    /// ` (reason)`, or nothing.
    fn last_trouble(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows the error that says why.
        if trouble.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *trouble = Some(reason.to_owned());
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
