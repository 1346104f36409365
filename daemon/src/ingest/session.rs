//! The Kafka consumer: one thread polls, appends each payload once to the chunk's buffers, and hands the chunk over when
//! its time, its rows or its bytes are full.
//!
//! Where a partition resumes is read from Bronze's log when the partition is assigned, never from the group. Nor does
//! the group decide who may write: Bronze's log does, by its fence. So when the group gives nothing out, because it still
//! counts a member that was killed (45 s by Kafka's default), and Bronze stands still, the topic is read without the group.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};
use silverd_core::chunk::ChunkBuilder;
use silverd_core::config;
use silverd_core::pace::Pace;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::assign::{Probe, Rebalances};
use super::poller::Poller;
use super::source::{Arrival, Shared};

/// How long one call of librdkafka may wait; also how soon a stop is noticed.
pub(super) const POLL_MAX: Duration = Duration::from_millis(100);
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
pub(super) const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// By then Kafka has forgotten a member that was killed (`group.consumer.session.timeout.ms`, 45 s by default).
const MEMBERS_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The polling thread.
pub(super) fn poll(shared: &Arc<Shared>, chunks: &mpsc::Sender<Arrival>) -> anyhow::Result<()> {
    let mut protocol = Protocol::of(&shared.config);
    // A drain is over soon, and shares with nobody.
    let alone = shared.broker.cluster_id.is_some() || shared.drain;
    let mut membership = if alone { Membership::None } else { Membership::Group };
    let mut waited = false;
    loop {
        match session(shared, chunks, protocol, membership)? {
            Ended::Done => return Ok(()),
            // Nobody who was killed is counted any more, and still there is nothing: the broker has let the protocol pass
            // without a word, as Kafka 3.9 does.
            Ended::Idle if waited && protocol == Protocol::Consumer => {
                tell_classic();
                protocol = Protocol::Classic;
            }
            Ended::Idle => {
                info!(
                    "the group {} gives no partition out, and nobody writes bronze: reading without the group for {} s \
                     (was a silverd killed? Kafka counts it for a while. A broker older than Kafka 4 wants \
                     \"group.protocol\" = \"classic\" under [source.kafka])",
                    shared.config.group,
                    MEMBERS_FORGOTTEN_AFTER.as_secs()
                );
                membership = Membership::NoneFor(MEMBERS_FORGOTTEN_AFTER);
                waited = true;
            }
            Ended::Rejoin => membership = Membership::Group,
            Ended::ProtocolUnknown => {
                tell_classic();
                protocol = Protocol::Classic;
            }
        }
    }
}

fn tell_classic() {
    warn!("the broker does not know group.protocol=consumer (KIP-848, Kafka 4): using the classic protocol");
}

/// How partitions are come by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    Group,
    /// All of them, for good: nobody else can read an embedded broker.
    None,
    /// All of them, for a while.
    NoneFor(Duration),
}

pub(super) enum Ended {
    Done,
    /// The group has given nothing out, and nobody else is at work.
    Idle,
    /// It is time to be a member of the group again.
    Rejoin,
    ProtocolUnknown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Consumer,
    Classic,
}

impl Protocol {
    /// The new protocol, unless the user has said otherwise, or set what only the classic one knows.
    fn of(config: &config::Source) -> Self {
        let classic = ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"];
        match config.kafka.get("group.protocol") {
            Some(protocol) if protocol.expose() == "classic" => Protocol::Classic,
            Some(_) => Protocol::Consumer,
            None if classic.iter().any(|key| config.kafka.contains_key(*key)) => Protocol::Classic,
            None => Protocol::Consumer,
        }
    }
}

fn client(shared: &Shared, protocol: Protocol) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("client.id", "silverd")
        .set("fetch.wait.max.ms", "50")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "8192")
        // By default a full queue keeps the fetcher away for a second: a third of a drain's throughput.
        .set("fetch.queue.backoff.ms", "5")
        .set("isolation.level", "read_committed")
        .set("statistics.interval.ms", "1000")
        .set("allow.auto.create.topics", "false")
        .set("group.protocol", if protocol == Protocol::Consumer { "consumer" } else { "classic" });
    if protocol == Protocol::Classic {
        client.set("partition.assignment.strategy", "cooperative-sticky");
    }
    for (key, value) in &shared.config.kafka {
        if key != "group.protocol" {
            client.set(key, value.expose());
        }
    }
    client
        .set("bootstrap.servers", &shared.broker.bootstrap)
        .set("group.id", &shared.config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // Where to begin is always said; an offset that is not there is an error, never a silent jump.
        .set("auto.offset.reset", "error");
    client
}

/// One consumer, from its connection to its end.
fn session(
    shared: &Arc<Shared>,
    chunks: &mpsc::Sender<Arrival>,
    protocol: Protocol,
    membership: Membership,
) -> anyhow::Result<Ended> {
    let client = client(shared, protocol);
    let Some((cluster, partitions)) = find_topic(shared, &client)? else { return Ok(Ended::Done) };
    let cluster: Arc<str> = cluster.into();
    let (assigned, news) = (Mutex::default(), AtomicBool::new(true));
    let context = Rebalances { shared: shared.clone(), cluster: cluster.clone(), assigned, news };
    let consumer: BaseConsumer<Rebalances> =
        client.create_with_context(context).context("set up the Kafka consumer ([source.kafka] in pipeline.toml)")?;
    let consumer = Arc::new(consumer);
    let topic = shared.config.topic.as_str();
    if membership != Membership::Group {
        let mut all = TopicPartitionList::new();
        all.add_partition_range(topic, 0, partitions as i32 - 1);
        let stopped = consumer.context().place(&consumer, &mut all)?;
        consumer.assign(&all).context("assign partitions")?;
        consumer.pause(&stopped).context("pause partitions")?;
    } else {
        consumer.subscribe(&[topic]).with_context(|| format!("subscribe to {topic}"))?;
    }
    info!(brokers = %shared.broker.bootstrap, topic, %cluster, partitions, "reading");
    if membership == Membership::Group {
        *shared.member.lock().unwrap_or_else(PoisonError::into_inner) = Some(consumer.clone());
    }
    let ended = Poller {
        shared,
        chunks,
        consumer: &consumer,
        builder: ChunkBuilder::new(cluster, topic.into()),
        positions: BTreeMap::new(),
        pace: Pace::new(shared.cadence.interval),
        first: None,
        at_end: HashSet::new(),
        partitions,
        complained: None,
        membership,
        begun: Instant::now(),
        watch: None,
        was_assigned: false,
    }
    .run();
    *shared.member.lock().unwrap_or_else(PoisonError::into_inner) = None;
    ended
}

/// Waits until a broker answers and has the topic. `None`: told to stop before.
fn find_topic(shared: &Shared, client: &ClientConfig) -> anyhow::Result<Option<(String, usize)>> {
    let probe: BaseConsumer<Probe> =
        client.create_with_context(Probe).context("set up the Kafka consumer ([source.kafka] in pipeline.toml)")?;
    let (bootstrap, topic) = (&shared.broker.bootstrap, &shared.config.topic);
    let mut complained: Option<Instant> = None;
    while !shared.stop.load(Relaxed) {
        // Serves the callbacks, SASL's among them.
        let _ = probe.poll(Duration::ZERO);
        let problem = match probe.fetch_metadata(Some(topic), Duration::from_secs(2)) {
            Err(failure) => format!(
                "no broker answers at {bootstrap} ({failure}). Is it running, and is `brokers` under [source] \
                 in pipeline.toml right? Waiting"
            ),
            Ok(metadata) => match metadata.topics().first() {
                Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                    let cluster = shared.broker.cluster_id.clone();
                    match cluster.or_else(|| probe.client().fetch_cluster_id(ANSWER_MAX)) {
                        Some(cluster) => return Ok(Some((cluster, found.partitions().len()))),
                        None => format!("the broker at {bootstrap} does not tell its cluster id. Waiting"),
                    }
                }
                _ => format!(
                    "topic {topic} does not exist at {bootstrap}. Create it with `kafka-topics.sh --bootstrap-server \
                     {bootstrap} --create --topic {topic} --partitions 4`, or let `silverd generate` do it. Waiting"
                ),
            },
        };
        if complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
            warn!("{problem}");
            complained = Some(Instant::now());
        }
        std::thread::sleep(POLL_MAX);
    }
    Ok(None)
}
