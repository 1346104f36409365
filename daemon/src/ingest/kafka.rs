//! The Kafka consumer: one thread polls, appends each payload once to the chunk's buffers, and hands the chunk over when
//! its time, its rows or its bytes are full.
//!
//! Where a partition resumes is read from Bronze's log when the partition is assigned, never from the group. Nor does
//! the group decide who may write: Bronze's log does, by its fence. So when the group gives nothing out, because it still
//! counts a member that was killed (45 s by Kafka's default), and Bronze stands still, the topic is read without the group.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Message, Offset, Statistics, TopicPartitionList};
use silverd_core::chunk::{Chunk, ChunkBuilder};
use silverd_core::config::{self, Expired, Start};
use silverd_core::offsets::{LogPartition, Offsets, Ranges};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::record;
use crate::clock;
use crate::telemetry::{Stage, Stages};

/// Where the brokers are, and whose log it is if they do not say.
#[derive(Clone, Debug)]
pub struct Broker {
    pub bootstrap: String,
    /// Given for a broker without a group and a cluster id of its own: the embedded one.
    pub cluster_id: Option<String>,
}

/// When a chunk is full.
#[derive(Clone, Debug)]
pub struct Cadence {
    pub interval: Duration,
    pub rows_max: usize,
    pub bytes_max: usize,
}

/// Gives the next offsets as Bronze's log has them now. Called on the polling thread, which may wait.
pub type Resume = Arc<dyn Fn() -> anyhow::Result<Offsets> + Send + Sync>;

/// What the polling thread tells the flow.
pub enum Arrival {
    Chunk(Chunk),
    /// Everything that was in the topic when the source started has been handed over.
    Drained,
    /// The consumer cannot go on; a new source may.
    Failed(anyhow::Error),
}

/// What a source reads, and how.
#[derive(Clone)]
pub struct Task {
    pub config: config::Source,
    pub broker: Broker,
    pub cadence: Cadence,
    pub resume: Resume,
    /// Ends with `Drained` when the end of every partition has been seen.
    pub drain: bool,
    pub stages: Arc<Stages>,
    /// Bytes of keys and values taken from Kafka so far.
    pub taken: Arc<AtomicU64>,
    pub high: Arc<High>,
}

/// Where each log partition ends, as far as the broker has told: up to a second late.
#[derive(Default)]
pub struct High(Mutex<Offsets>);

impl High {
    fn set(&self, log: LogPartition, end: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(log, end);
    }

    /// Offsets that a table that has come to `next` has not.
    pub fn lag(&self, next: &Offsets) -> i64 {
        let high = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        high.iter().map(|(log, end)| (end - next.get(log).copied().unwrap_or(0)).max(0)).sum()
    }
}

/// A consumer at work. Dropping it ends its thread.
pub struct Source {
    arrivals: mpsc::Receiver<Arrival>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    task: Task,
    stop: AtomicBool,
    /// The consumer while it is a member of the group.
    member: Mutex<Option<Arc<BaseConsumer<Rebalances>>>>,
}

impl std::ops::Deref for Shared {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.task
    }
}

/// How long one call of librdkafka may wait; also how soon a stop is noticed.
const POLL_MAX: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the group may take to give partitions out, on top of a commit interval.
const GROUP_PATIENCE: Duration = Duration::from_millis(1_500);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// By then Kafka has forgotten a member that was killed (`group.consumer.session.timeout.ms`, 45 s by default).
const MEMBERS_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// Chunks that wait for the flow. One, so that polling goes on while Bronze commits, and memory stays small.
const CHUNKS_WAITING_MAX: usize = 1;

impl Source {
    pub fn start(task: Task) -> anyhow::Result<Self> {
        let (sender, arrivals) = mpsc::channel(CHUNKS_WAITING_MAX);
        let shared = Arc::new(Shared { task, stop: AtomicBool::new(false), member: Mutex::new(None) });
        let polling = shared.clone();
        let thread = std::thread::Builder::new().name("kafka-poll".to_owned()).spawn(move || {
            if let Err(failure) = poll(&polling, &sender) {
                let _ = sender.blocking_send(Arrival::Failed(failure));
            }
        })?;
        Ok(Self { arrivals, shared, thread: Some(thread) })
    }

    /// The next thing from Kafka; `None` when the source has come to its end.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// Lets the thread hand over what it has gathered, and end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Relaxed);
    }

    pub fn stopping(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }

    /// Tells the group how far Bronze has come, for lag displays. Nothing resumes from there.
    pub fn committed(&self, ranges: &Ranges) {
        let member = self.shared.member.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(consumer) = member.as_ref() else { return };
        let mut offsets = TopicPartitionList::new();
        for (log, range) in ranges.iter() {
            let _ = offsets.add_partition_offset(&log.topic, log.partition, Offset::Offset(range.end));
        }
        if let Err(failure) = consumer.commit(&offsets, rdkafka::consumer::CommitMode::Async) {
            debug!("commit group offsets: {failure}");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
        self.arrivals.close();
        while self.arrivals.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What rebalances leave behind for the polling thread.
struct Rebalances {
    shared: Arc<Shared>,
    cluster: Arc<str>,
    assigned: Mutex<Assigned>,
}

#[derive(Default)]
struct Assigned {
    /// Up to where each partition that is read has come.
    positions: BTreeMap<i32, i64>,
    /// Where each ended when it was assigned.
    ends: BTreeMap<i32, i64>,
    /// Partitions that must not be read.
    refused: HashSet<i32>,
    /// What `start = "latest"` leaves out: told to Bronze, so that it is decided once and for all.
    left_out: Vec<(i32, i64)>,
    revoked: HashSet<i32>,
    failure: Option<anyhow::Error>,
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
struct Probe;

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
                self.assigned().positions.clear();
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
                assigned.positions.remove(partition);
                assigned.revoked.insert(*partition);
            }
            drop(assigned);
            let revoked = if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() };
            revoked.context("give partitions up")
        };
        if let Err(failure) = done {
            self.assigned().failure = Some(failure);
        }
    }
}

impl Rebalances {
    fn assigned(&self) -> std::sync::MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, partition: i32) -> LogPartition {
        LogPartition::new(self.cluster.clone(), self.shared.config.topic.as_str(), partition)
    }

    /// Sets where each partition of the list begins; gives those that must not be read.
    fn place(
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
            assigned.positions.insert(partition, begin);
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

/// The polling thread.
fn poll(shared: &Arc<Shared>, chunks: &mpsc::Sender<Arrival>) -> anyhow::Result<()> {
    let mut protocol = Protocol::of(&shared.config);
    // A drain is over soon, and shares with nobody.
    let alone = shared.broker.cluster_id.is_some() || shared.drain;
    let mut membership = if alone { Membership::None } else { Membership::Group };
    loop {
        match session(shared, chunks, protocol, membership)? {
            Ended::Done => return Ok(()),
            Ended::Idle => {
                info!(
                    "the group {} gives no partition out, and nobody writes bronze: reading without the group for {} s \
                     (was a silverd killed? Kafka counts it for a while)",
                    shared.config.group,
                    MEMBERS_FORGOTTEN_AFTER.as_secs()
                );
                membership = Membership::NoneFor(MEMBERS_FORGOTTEN_AFTER);
            }
            Ended::Rejoin => membership = Membership::Group,
            Ended::ProtocolUnknown => {
                warn!(
                    "the broker does not know group.protocol=consumer (KIP-848, Kafka 4): using the classic protocol"
                );
                protocol = Protocol::Classic;
            }
        }
    }
}

/// How partitions are come by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Membership {
    Group,
    /// All of them, for good: nobody else can read an embedded broker.
    None,
    /// All of them, for a while.
    NoneFor(Duration),
}

enum Ended {
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
        .set("queued.max.messages.kbytes", "16384")
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
    let context = Rebalances { shared: shared.clone(), cluster: cluster.clone(), assigned: Mutex::default() };
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
        due: None,
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

struct Poller<'s> {
    shared: &'s Shared,
    chunks: &'s mpsc::Sender<Arrival>,
    consumer: &'s BaseConsumer<Rebalances>,
    builder: ChunkBuilder,
    /// When the chunk at hand must go, whatever is in it.
    due: Option<Instant>,
    /// Partitions whose end has been seen, for a source that drains.
    at_end: HashSet<i32>,
    partitions: usize,
    complained: Option<Instant>,
    membership: Membership,
    begun: Instant,
    watch: Option<Watch>,
    /// The group has given something out: it works, and is waited for from then on.
    was_assigned: bool,
}

/// What Bronze had when a wait for the group began, and when it was looked at last.
struct Watch {
    bronze: Offsets,
    since: Instant,
    looked: Instant,
}

impl Poller<'_> {
    fn run(mut self) -> anyhow::Result<Ended> {
        while !self.shared.stop.load(Relaxed) {
            let begun = crate::telemetry::thread_cpu();
            let ended = self.gather();
            self.shared.stages.add(Stage::Poll, crate::telemetry::thread_cpu().saturating_sub(begun));
            if let Some(ended) = ended? {
                return Ok(ended);
            }
            if let Some(ended) = self.mind_the_group()? {
                self.hand_over();
                return Ok(ended);
            }
            if self.shared.drain && self.drained() {
                self.hand_over();
                let _ = self.chunks.blocking_send(Arrival::Drained);
                return Ok(Ended::Done);
            }
        }
        self.hand_over();
        Ok(Ended::Done)
    }

    /// True when everything that was there at the start has been read, or the ends have been seen: a log may end in
    /// offsets that hold no record.
    fn drained(&self) -> bool {
        let assigned = self.consumer.context().assigned();
        let read = |partition: &i32| assigned.positions.get(partition) >= assigned.ends.get(partition);
        assigned.ends.len() == self.partitions
            && assigned.ends.keys().all(|partition| read(partition) || self.at_end.contains(partition))
    }

    /// Whether to leave the group aside, or to come back to it; a refused partition is looked at again in a while.
    fn mind_the_group(&mut self) -> anyhow::Result<Option<Ended>> {
        let (assigned, refused) = {
            let assigned = self.consumer.context().assigned();
            (!assigned.positions.is_empty() || !assigned.refused.is_empty(), !assigned.refused.is_empty())
        };
        anyhow::ensure!(
            !refused || self.begun.elapsed() < REFUSED_AGAIN_AFTER,
            "looking again at the partitions that are not read"
        );
        match self.membership {
            Membership::None => return Ok(None),
            Membership::NoneFor(time) => return Ok((self.begun.elapsed() > time).then_some(Ended::Rejoin)),
            Membership::Group => {}
        }
        self.was_assigned |= assigned;
        if self.was_assigned {
            return Ok(None);
        }
        let now = Instant::now();
        let watch = match &mut self.watch {
            Some(watch) if now.duration_since(watch.looked) < LOOK_INTERVAL => return Ok(None),
            Some(watch) => watch,
            None => {
                let bronze = (self.shared.resume)()?;
                self.watch.insert(Watch { bronze, since: now, looked: now })
            }
        };
        watch.looked = now;
        let bronze = (self.shared.resume)()?;
        if bronze != watch.bronze {
            // Somebody is at work.
            (watch.bronze, watch.since) = (bronze, now);
            return Ok(None);
        }
        let patience = GROUP_PATIENCE + self.shared.cadence.interval;
        if now.duration_since(watch.since) < patience {
            return Ok(None);
        }
        for partition in 0..self.partitions as i32 {
            let ends = self.consumer.fetch_watermarks(&self.shared.config.topic, partition, ANSWER_MAX);
            let Ok((low, high)) = ends else { return Ok(None) };
            if bronze.get(&self.consumer.context().log(partition)).copied().unwrap_or(low) < high {
                return Ok(Some(Ended::Idle));
            }
        }
        Ok(None)
    }

    /// Takes messages until the chunk is full or Kafka has none. Rebalances may take partitions in between.
    fn gather(&mut self) -> anyhow::Result<Option<Ended>> {
        loop {
            let wait = self.due.map_or(POLL_MAX, |due| due.saturating_duration_since(Instant::now()).min(POLL_MAX));
            if wait.is_zero() {
                self.hand_over();
                return Ok(None);
            }
            let polled = self.consumer.poll(wait);
            self.settle_rebalances()?;
            match polled {
                None => {
                    if self.due.is_some_and(|due| due <= Instant::now()) {
                        self.hand_over();
                    }
                    return Ok(None);
                }
                Some(Ok(message)) => {
                    self.take(&message);
                    if self.shared.stop.load(Relaxed) {
                        return Ok(None);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.at_end.insert(partition);
                    if self.shared.drain && self.drained() {
                        return Ok(None);
                    }
                }
                Some(Err(failure)) => return self.complain(failure),
            }
        }
    }

    fn take(&mut self, message: &rdkafka::message::BorrowedMessage<'_>) {
        let size = message.payload_len() + message.key_len();
        let cadence = &self.shared.cadence;
        if self.builder.rows() > 0 && self.builder.bytes() + size > cadence.bytes_max {
            self.hand_over();
        }
        let context = self.consumer.context();
        let mut assigned = context.assigned();
        // A message of a partition that was taken away while it lay in the queue is somebody else's.
        let Some(position) = assigned.positions.get_mut(&message.partition()) else { return };
        if message.offset() < *position {
            return;
        }
        self.builder.push(*position, record::of(message));
        *position = message.offset() + 1;
        drop(assigned);
        self.shared.taken.fetch_add(size as u64, Relaxed);
        self.due.get_or_insert_with(|| Instant::now() + cadence.interval);
        if self.builder.rows() >= cadence.rows_max || self.builder.bytes() >= cadence.bytes_max {
            self.hand_over();
        }
    }

    /// A partition that was taken away ends its part of the chunk: what was gathered goes on its way now, and the log's
    /// fence decides whether it still counts.
    fn settle_rebalances(&mut self) -> anyhow::Result<()> {
        let mut assigned = self.consumer.context().assigned();
        if let Some(failure) = assigned.failure.take() {
            return Err(failure);
        }
        for (partition, end) in std::mem::take(&mut assigned.left_out) {
            self.builder.cover(partition, end);
            self.due = Some(Instant::now());
        }
        if assigned.revoked.is_empty() {
            return Ok(());
        }
        let revoked = std::mem::take(&mut assigned.revoked);
        drop(assigned);
        self.at_end.retain(|partition| !revoked.contains(partition));
        self.hand_over();
        Ok(())
    }

    fn hand_over(&mut self) {
        self.due = None;
        if !self.builder.is_empty() {
            let chunk = self.builder.finish(clock::now_micros());
            // Fails only when the flow is gone, which has then asked to stop.
            let _ = self.chunks.blocking_send(Arrival::Chunk(chunk));
        }
    }

    fn complain(&mut self, failure: KafkaError) -> anyhow::Result<Option<Ended>> {
        let code = failure.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature)) {
            return Ok(Some(Ended::ProtocolUnknown));
        }
        if let KafkaError::MessageConsumptionFatal(_) = failure {
            let fatal = self.consumer.client().fatal_error().map(|(_, reason)| reason);
            let unknown = fatal.as_deref().is_some_and(|reason| reason.contains("ConsumerGroupHeartbeat"));
            if unknown {
                return Ok(Some(Ended::ProtocolUnknown));
            }
            return Err(anyhow!("{failure}: {}", fatal.unwrap_or_default()));
        }
        let refused = [
            RDKafkaErrorCode::OffsetOutOfRange,
            RDKafkaErrorCode::AutoOffsetReset,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::GroupAuthorizationFailed,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ];
        if code.is_some_and(|code| refused.contains(&code)) {
            return Err(anyhow!(failure).context(format!("read topic {}", self.shared.config.topic)));
        }
        // Everything else librdkafka mends by itself: it reconnects, and goes on where it was.
        if self.complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
            warn!("kafka at {}: {failure}; it is tried again", self.shared.broker.bootstrap);
            self.complained = Some(Instant::now());
        }
        Ok(None)
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
