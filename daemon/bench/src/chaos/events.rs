//! The events of a run: the generated shop's, those for the hostile plugin, and some that no table takes or that are no events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use silverd::runtime::clock;
use silverd_core::generate::{Generator, Options};

const DUPLICATES_PERCENT: f64 = 5.0;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Every so many events, one is for the hostile plugin, and one is odd.
const HIT_EVERY: u64 = 10;
const ODD_EVERY: u64 = 50;

/// What Kafka has of what was sent.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) confirmed: u64,
    /// Kafka has them or not.
    pub(super) uncertain: u64,
}

/// Sends events at a constant rate until it is stopped.
pub(super) struct EventSender {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    deliveries: Deliveries,
}

/// The events that Kafka has confirmed or not.
#[derive(Clone, Default)]
struct Deliveries {
    confirmed: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.confirmed } else { &self.failed };
        count.fetch_add(1, Relaxed);
    }
}

impl EventSender {
    pub(super) fn start(brokers: &str, topic: &str, eps: u32, seed: u64) -> anyhow::Result<Self> {
        let deliveries = Deliveries::default();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", "20");
        config.set("reconnect.backoff.max.ms", "1000");
        let producer: BaseProducer<Deliveries> =
            config.create_with_context(deliveries.clone()).context("set up a Kafka producer")?;
        let stopping = Arc::<AtomicBool>::default();
        let (events, topic, asked) = (Events::new(seed), topic.to_owned(), stopping.clone());
        let thread = std::thread::Builder::new()
            .name("chaos-events".to_owned())
            .spawn(move || send(&producer, &topic, eps, events, &asked))?;
        Ok(Self { stopping, thread: Some(thread), deliveries })
    }

    /// Stops, and waits until Kafka has confirmed the events.
    pub(super) fn stop(mut self) -> anyhow::Result<Sent> {
        self.stopping.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the thread that sends events panicked"))??;
        }
        let Deliveries { confirmed, failed } = &self.deliveries;
        Ok(Sent { confirmed: confirmed.load(Relaxed), uncertain: failed.load(Relaxed) })
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
    }
}

fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    eps: u32,
    mut events: Events,
    stopping: &AtomicBool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !stopping.load(Relaxed) {
        let due = (began.elapsed().as_secs_f64() * f64::from(eps)) as u64;
        while events.sent < due && !stopping.load(Relaxed) {
            let event = events.next();
            let mut record = BaseRecord::<str, [u8]>::to(topic);
            if let Some(key) = &event.key {
                record = record.key(key.as_str());
            }
            if let Some(value) = &event.value {
                record = record.payload(value.as_slice());
            }
            match producer.send(record) {
                Ok(()) => {}
                // Kafka is away: the event is left out.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => producer.poll(POLL_INTERVAL),
                Err((failure, _)) => return Err(failure).context("send an event"),
            }
        }
        producer.poll(POLL_INTERVAL);
    }
    producer.flush(FLUSH_TIMEOUT).context("wait until Kafka has the last events")
}

struct Event {
    key: Option<String>,
    value: Option<Vec<u8>>,
}

/// The events, in their order.
struct Events {
    shop: Generator,
    sent: u64,
}

impl Events {
    fn new(seed: u64) -> Self {
        let options = Options { seed, dup_pct: DUPLICATES_PERCENT, ..Options::default() };
        Self { shop: Generator::new(options), sent: 0 }
    }

    fn next(&mut self) -> Event {
        self.sent += 1;
        let number = self.sent;
        if number.is_multiple_of(ODD_EVERY) {
            return odd(number / ODD_EVERY);
        }
        if number.is_multiple_of(HIT_EVERY) {
            return hit(number / HIT_EVERY);
        }
        let event = self.shop.next(clock::now_micros());
        Event { key: Some(event.key), value: Some(event.value) }
    }
}

fn hit(number: u64) -> Event {
    let (minute, second) = (number / 60 % 60, number % 60);
    let value = format!(
        r#"{{"event_type": "hit", "event_id": "h-{number}", "number": {number}, "ts": "2025-08-16T14:{minute:02}:{second:02}Z"}}"#
    );
    Event { key: Some(format!("h-{number}")), value: Some(value.into_bytes()) }
}

/// Some are rejected by a table, the others are unrouted.
fn odd(number: u64) -> Event {
    let text = match number % 8 {
        0 => format!("no JSON at all, {number}"),
        1 => format!(r#"{{"event_type": "page_view", "event_id": "cut off {number}"#),
        2 => format!(
            r#"{{"event_type": "add_to_cart", "event_id": "a-{number}", "user_id": "u", "ts": "never", "sku": "x"}}"#
        ),
        3 => format!(r#"{{"event_type": "order_placed", "event_id": "o-{number}"}}"#),
        4 => format!(r#"{{"event_type": "page_hidden", "x": {number}}}"#),
        5 => format!(r#"["an array", {number}]"#),
        6 => String::new(),
        _ => return Event { key: Some(format!("without a value, {number}")), value: None },
    };
    Event { key: number.is_multiple_of(3).then(|| format!("odd-{number}")), value: Some(text.into_bytes()) }
}
