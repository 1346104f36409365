//! Reads the newest events of a topic, to look at them. It joins no group, and commits nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use silverd_core::config;
use silverd_core::infer::{Event, Newest, Place};
use silverd_core::offsets::LogPartition;
use tokio_util::sync::CancellationToken;

use super::client::{AdminConsumer, POLL_TIMEOUT, REQUEST_TIMEOUT, offset_of, request_offsets, self_assigned};
use super::kafka_error::{Remedy, remedy};
use super::record;
use super::topics::{TopicError, is_there, topic_problem};

/// After this time without an event, no further one is waited for: the rest may be of transactions.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Adds the newest events of a topic, up to the ends that its partitions have now. Returns the partitions that were not
/// read to these ends. Blocks.
pub(crate) fn newest_events(
    source: &config::Source,
    topic: &str,
    newest: &mut Newest,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<i32>> {
    let consumer = self_assigned(source)?;
    let mut unread = spans(&consumer, topic, &source.brokers, newest.count_max())?;
    assign(&consumer, topic, &unread)?;
    read(&consumer, topic, newest, &mut unread, stop)?;
    Ok(unread.into_keys().collect())
}

/// The offsets of a partition that are read.
struct Span {
    start: i64,
    end: i64,
}

/// The last offsets of each partition that has any: as many as events are wanted, because all may be of one partition.
fn spans(consumer: &AdminConsumer, topic: &str, bootstrap: &str, count: usize) -> anyhow::Result<BTreeMap<i32, Span>> {
    let unreachable = |error| TopicError::BrokerUnreachable { bootstrap: bootstrap.to_owned(), error };
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(unreachable)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found.filter(|found| is_there(found)) else {
        return Err(topic_problem(topic, bootstrap, found).into());
    };
    let logs: Vec<_> =
        found.partitions().iter().map(|partition| LogPartition::new("", topic, partition.id())).collect();
    let request = |which| request_offsets(consumer, &logs, which, REQUEST_TIMEOUT);
    let starts = request(Offset::Beginning).with_context(|| format!("request the first offsets of topic {topic}"))?;
    let ends = request(Offset::End).with_context(|| format!("request the ends of topic {topic}"))?;
    let span = |log: &LogPartition| {
        let end = offset_of(&ends, log);
        let start = offset_of(&starts, log).max(end.saturating_sub(count as i64));
        (start < end).then_some((log.partition, Span { start, end }))
    };
    Ok(logs.iter().filter_map(span).collect())
}

fn assign(consumer: &AdminConsumer, topic: &str, spans: &BTreeMap<i32, Span>) -> anyhow::Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, span) in spans {
        list.add_partition_offset(topic, *partition, Offset::Offset(span.start))?;
    }
    consumer.assign(&list).with_context(|| format!("assign the partitions of topic {topic}"))
}

/// Reads until no partition is left in `unread`, or no event comes any more.
fn read(
    consumer: &AdminConsumer,
    topic: &str,
    newest: &mut Newest,
    unread: &mut BTreeMap<i32, Span>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut last_event = Instant::now();
    while !unread.is_empty() && last_event.elapsed() < IDLE_TIMEOUT {
        if stop.is_cancelled() {
            bail!("stopped before the newest events of topic {topic} were read");
        }
        match consumer.poll(POLL_TIMEOUT) {
            None => {}
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                // Further events of a partition that was read to its end do not count.
                let Some(span) = unread.get(&partition) else { continue };
                last_event = Instant::now();
                if offset < span.end {
                    newest.add(message.timestamp().to_millis().unwrap_or(i64::MIN), event(&message));
                }
                if offset + 1 >= span.end {
                    unread.remove(&partition);
                }
            }
            // What is left before the end are transaction markers and aborted records.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(unread.remove(&partition)),
            Some(Err(failure)) => check(failure).with_context(|| format!("read topic {topic}"))?,
        }
    }
    Ok(())
}

/// An error that passes is waited for. Nothing depends on the group.
pub(super) fn check(failure: KafkaError) -> anyhow::Result<()> {
    use rdkafka::error::RDKafkaErrorCode::GroupAuthorizationFailed;
    let code = failure.rdkafka_error_code();
    match code.and_then(remedy) {
        _ if code == Some(GroupAuthorizationFailed) => Ok(()),
        Some(Remedy::User(hint)) => Err(failure).context(hint),
        Some(Remedy::NewConsumer) => Err(failure.into()),
        _ => Ok(()),
    }
}

fn event(message: &BorrowedMessage<'_>) -> Event {
    let record = record::from_message(message);
    Event {
        place: Place {
            topic: Some(message.topic().to_owned()),
            partition: Some(message.partition()),
            offset: record.offset,
        },
        has_key: record.key.is_some(),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.map(|(name, _)| name.into_owned()).collect(),
    }
}
