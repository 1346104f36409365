//! The Kafka thread: runs one session (a consumer and its poll loop) after another until the source ends.
//!
//! When a partition is assigned, Bronze's log says where to resume, never the consumer group. Nor does the group decide
//! who may write: the fence in Bronze's log does. So if the group assigns nothing, because Kafka still counts a member
//! that was killed (45 s by default), silverd reads the topics without the group.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::client::{self, AdminConsumer, DRAIN_TIMEOUT, GroupProtocol, SET_UP_CONSUMER};
use super::event::SourceEvent;
use super::kafka_error::passes;
use super::options::SourceOptions;
use super::poll_loop::{Assignment, PollLoop, SessionEnd};
use super::problems::ProblemOf;
use super::rebalance::RebalanceContext;
use super::topics::{Topics, find_topics};

/// After this time Kafka has removed a killed member (`group.consumer.session.timeout.ms`, 45 s by default).
const MEMBER_EXPIRY: Duration = Duration::from_secs(60);

/// A consumer with a broker leaves its group within milliseconds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What the Kafka thread and the pipeline share.
pub(super) struct Control {
    pub(super) options: Arc<SourceOptions>,
    pub(super) stop: AtomicBool,
    /// The consumer while it is a member of the group.
    pub(super) group_member: Mutex<Option<Arc<BaseConsumer<RebalanceContext>>>>,
}

/// Runs until the source is stopped, drained, or fails. A drain goes on after failures that pass by themselves; otherwise
/// the pipeline starts another source.
pub(super) fn run(control: &Control, events: &mpsc::Sender<SourceEvent>) -> anyhow::Result<()> {
    let mut failing_since = None;
    loop {
        let began = Instant::now();
        let Err(failure) = run_sessions(control, events) else { return Ok(()) };
        if began.elapsed() > DRAIN_TIMEOUT {
            failing_since = None;
        }
        let since = *failing_since.get_or_insert_with(Instant::now);
        if !control.options.drain || !passes(&failure) || since.elapsed() > DRAIN_TIMEOUT {
            return Err(failure);
        }
        warn!("kafka: {failure:#}; retrying");
        std::thread::sleep(RETRY_INTERVAL);
    }
}

fn run_sessions(control: &Control, events: &mpsc::Sender<SourceEvent>) -> anyhow::Result<()> {
    let options = &control.options;
    let mut protocol = GroupProtocol::from_config(&options.config);
    // Only this process knows the embedded broker, and a drain is short: neither shares the partitions.
    let reads_alone = options.broker.cluster_id.is_some() || options.drain;
    let mut assignment = if reads_alone { Assignment::All } else { Assignment::Group };
    let mut has_waited = false;
    loop {
        match run_session(control, events, protocol, assignment)? {
            SessionEnd::Finished => return Ok(()),
            // No killed member is left, and the group still assigns nothing: the broker ignores the protocol without an
            // error, as Kafka 3.9 does.
            SessionEnd::NothingAssigned if has_waited && protocol == GroupProtocol::Consumer => {
                log_classic();
                protocol = GroupProtocol::Classic;
            }
            SessionEnd::NothingAssigned => {
                info!(
                    "group {} assigns no partitions, and no other silverd writes bronze: reading without the group for \
                     {} s. After a crash Kafka keeps the killed member for a while. A broker older than Kafka 4 needs \
                     \"group.protocol\" = \"classic\" under [source.kafka]",
                    options.config.group,
                    MEMBER_EXPIRY.as_secs()
                );
                assignment = Assignment::AllFor(MEMBER_EXPIRY);
                has_waited = true;
            }
            SessionEnd::PartitionsLost => {
                info!(
                    "group {} has revoked all partitions and assigns none, and no other silverd writes bronze: reading \
                     without the group for {} s",
                    options.config.group,
                    MEMBER_EXPIRY.as_secs()
                );
                assignment = Assignment::AllFor(MEMBER_EXPIRY);
                has_waited = false;
            }
            SessionEnd::Reassign => {}
            SessionEnd::JoinGroup => assignment = Assignment::Group,
            SessionEnd::ProtocolUnsupported => {
                log_classic();
                protocol = GroupProtocol::Classic;
            }
        }
    }
}

fn log_classic() {
    warn!("the broker does not support group.protocol=consumer (KIP-848, Kafka 4): using the classic protocol");
}

/// Runs one consumer from its connection to its end.
fn run_session(
    control: &Control,
    events: &mpsc::Sender<SourceEvent>,
    protocol: GroupProtocol,
    assignment: Assignment,
) -> anyhow::Result<SessionEnd> {
    let (options, stop) = (&control.options, &control.stop);
    let client = client::client_config(&options.config, &options.broker, protocol);
    let Some((found, admin)) = find_topics(options, &client, stop)? else { return Ok(SessionEnd::Finished) };
    let context = RebalanceContext::new(options.clone(), found);
    let consumer: BaseConsumer<RebalanceContext> = client.create_with_context(context).context(SET_UP_CONSUMER)?;
    let consumer = Arc::new(consumer);
    let end = read(control, events, &consumer, admin, assignment);
    *control.group_member.lock() = None;
    close(consumer);
    end
}

/// Reads with a consumer until its session ends.
fn read(
    control: &Control,
    events: &mpsc::Sender<SourceEvent>,
    consumer: &Arc<BaseConsumer<RebalanceContext>>,
    admin: AdminConsumer,
    assignment: Assignment,
) -> anyhow::Result<SessionEnd> {
    let (options, stop, context) = (&control.options, &control.stop, consumer.context());
    let topics = context.topics();
    let logs: HashSet<_> = context.logs().into_iter().collect();
    // A topic may be gone, and its lag with it.
    options.high_watermarks.set_partitions(&logs);
    options.problems.retain(|of| match of {
        ProblemOf::Broker | ProblemOf::Consumer => true,
        ProblemOf::Topic(name) => options.config.topics.names().contains(name),
        ProblemOf::Partition(log) | ProblemOf::Transaction(log) => logs.contains(log),
    });
    match assignment {
        Assignment::Group => {
            subscribe(consumer, &topics)?;
            *control.group_member.lock() = Some(consumer.clone());
        }
        Assignment::All | Assignment::AllFor(_) => context.assign_all(consumer)?,
    }
    let (cluster, partitions) = (context.cluster(), topics.partitions());
    info!(brokers = %options.broker.bootstrap, topic = %options.config.topics, %cluster, partitions, "reading");
    PollLoop::new(options, stop, events, (consumer, admin), assignment).run()
}

/// Asks the group for partitions of these topics, by their names: whether a group knows patterns depends on the broker.
pub(super) fn subscribe(consumer: &BaseConsumer<RebalanceContext>, topics: &Topics) -> anyhow::Result<()> {
    let names: Vec<&str> = topics.names().map(|name| &**name).collect();
    consumer.subscribe(&names).context("subscribe to the topics")
}

/// Closes a consumer on a thread of its own. It leaves its group first, and if librdkafka has no broker any more, that never
/// ends: then the consumer is left behind.
fn close(consumer: Arc<BaseConsumer<RebalanceContext>>) {
    let (closing, closed) = std::sync::mpsc::channel::<()>();
    let close = move || {
        drop(consumer);
        drop(closing);
    };
    let started = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(close);
    if started.is_ok() && closed.recv_timeout(CLOSE_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
        warn!(
            "the consumer cannot leave its group: it is left behind, and Kafka removes it from the group after a while"
        );
    }
}
