//! Reads records again that Bronze has lost, at exact offsets, as far as Kafka still has them. It joins no group, and commits
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};
use silverd_core::chunk::{Chunk, ChunkBuilder};
use silverd_core::config;
use silverd_core::offsets::{LogPartition, OffsetRange};
use tokio_util::sync::CancellationToken;

use super::client::{
    AdminConsumer, METADATA_TIMEOUT, POLL_TIMEOUT, REQUEST_TIMEOUT, offset_of, request_offsets, self_assigned,
};
use super::newest::check;
use super::options::Progress;
use super::record;
use super::topic_ids::topic_ids;
use super::topics::{TopicError, is_there};

/// After this time without a record, Kafka is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Ranges with fewer offsets between them are read as one.
const SKIP_OFFSETS_MAX: i64 = 10_000;

/// Offsets of log partitions: ranges in their order, which do not overlap.
pub(crate) type OffsetRanges = BTreeMap<LogPartition, Vec<OffsetRange>>;

/// The wanted records that Kafka may still have.
pub(crate) struct StillInKafka {
    consumer: AdminConsumer,
    /// The wanted offsets that are not before the first one of their log partition.
    offsets: OffsetRanges,
    /// The log partitions that cannot be read at all, and why.
    pub(crate) unreadable: Vec<(LogPartition, String)>,
}

/// When a chunk is full.
#[derive(Clone, Copy)]
pub(crate) struct ChunkSize {
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
}

/// The offsets of a log partition that are wanted, and the ranges that are read for them.
struct Wanted<'w> {
    log: &'w LogPartition,
    offsets: &'w [OffsetRange],
    read: Vec<OffsetRange>,
}

/// A range of one partition that is read, and the offsets in it that are wanted.
struct Span<'w> {
    log: &'w LogPartition,
    wanted: &'w [OffsetRange],
    range: OffsetRange,
}

impl StillInKafka {
    /// Asks which of the wanted offsets Kafka still has. `bronze` says which logs these were. Blocks.
    pub(crate) fn find(source: &config::Source, wanted: &OffsetRanges, bronze: &Progress) -> anyhow::Result<Self> {
        let (consumer, bootstrap) = (self_assigned(source)?, &source.brokers);
        let metadata = consumer
            .fetch_metadata(None, REQUEST_TIMEOUT)
            .map_err(|error| TopicError::BrokerUnreachable { bootstrap: bootstrap.clone(), error })?;
        let cluster = consumer.client().fetch_cluster_id(REQUEST_TIMEOUT);
        let cluster = cluster.ok_or_else(|| TopicError::ClusterIdMissing { bootstrap: bootstrap.clone() })?;
        let names: BTreeSet<&str> = wanted.keys().map(|log| &*log.topic).collect();
        let ids = topic_ids(&consumer, &names.into_iter().collect::<Vec<_>>(), METADATA_TIMEOUT);
        let (mut unreadable, mut readable) = (Vec::new(), Vec::new());
        for log in wanted.keys() {
            let reason = match *log.cluster == *cluster {
                true => why_unreadable(log, &metadata, ids.get(&*log.topic), bronze),
                false => Some(format!("{bootstrap} is the cluster {cluster}, and not {}", log.cluster)),
            };
            match reason {
                Some(reason) => unreadable.push((log.clone(), reason)),
                None => readable.push(log),
            }
        }
        let request = |which| request_offsets(&consumer, readable.iter().copied(), which, REQUEST_TIMEOUT);
        let firsts = request(Offset::Beginning).context("request the first offsets of the partitions")?;
        let ends = request(Offset::End).context("request the ends of the partitions")?;
        let mut offsets = OffsetRanges::new();
        for log in readable {
            let (first, end) = (offset_of(&firsts, log), offset_of(&ends, log));
            let next = bronze.offsets.get(log).copied().unwrap_or(0);
            if end < next {
                let reason =
                    format!("the log ends at offset {end}, and bronze has read it up to {next}: its end was cut");
                unreadable.push((log.clone(), reason));
                continue;
            }
            let kept = wanted.get(log).into_iter().flatten().filter(|range| range.end > first);
            let kept: Vec<_> = kept.map(|range| OffsetRange::new(range.start.max(first), range.end)).collect();
            if !kept.is_empty() {
                offsets.insert(log.clone(), kept);
            }
        }
        Ok(Self { consumer, offsets, unreadable })
    }

    /// Whether Kafka still has an offset, or had no record at it.
    pub(crate) fn has(&self, log: &LogPartition, offset: i64) -> bool {
        self.offsets.get(log).is_some_and(|ranges| contains(ranges, offset))
    }

    /// Reads the records, in chunks whose time of ingestion is 0. Blocks.
    pub(crate) fn read(
        &self,
        size: ChunkSize,
        stop: &CancellationToken,
        mut write: impl FnMut(Chunk) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut topics = BTreeMap::<&Arc<str>, Vec<Wanted<'_>>>::new();
        for (log, offsets) in &self.offsets {
            topics.entry(&log.topic).or_default().push(Wanted { log, offsets, read: joined(offsets) });
        }
        let mut chunk = ChunkBuilder::default();
        // That a partition was read to its end is said without its topic: one topic at a time.
        for (topic, logs) in topics {
            let rounds = logs.iter().map(|wanted| wanted.read.len()).max().unwrap_or(0);
            for round in 0..rounds {
                let mut spans = BTreeMap::new();
                for Wanted { log, offsets, read } in &logs {
                    if let Some(range) = read.get(round) {
                        spans.insert(log.partition, Span { log, wanted: offsets, range: *range });
                    }
                }
                let read = self.read_spans(topic, spans, &mut chunk, size, stop, &mut write);
                read.with_context(|| format!("read topic {topic} again"))?;
            }
        }
        if chunk.rows() > 0 {
            write(chunk.finish(0))?;
        }
        Ok(())
    }

    /// Reads one range of each of some partitions of a topic, to their ends.
    fn read_spans(
        &self,
        topic: &str,
        mut unread: BTreeMap<i32, Span<'_>>,
        chunk: &mut ChunkBuilder,
        size: ChunkSize,
        stop: &CancellationToken,
        write: &mut impl FnMut(Chunk) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut starts = TopicPartitionList::new();
        for (partition, span) in &unread {
            starts.add_partition_offset(topic, *partition, Offset::Offset(span.range.start))?;
        }
        self.consumer.assign(&starts).context("assign its partitions")?;
        let mut last_record = Instant::now();
        while !unread.is_empty() {
            if stop.is_cancelled() {
                bail!("interrupted");
            }
            match self.consumer.poll(POLL_TIMEOUT) {
                None if last_record.elapsed() > IDLE_TIMEOUT => {
                    let partitions: Vec<_> = unread.keys().map(i32::to_string).collect();
                    bail!(
                        "Kafka has given no record of the partitions {} for {} s: expected those up to their ends. Run \
                         the command again",
                        partitions.join(", "),
                        IDLE_TIMEOUT.as_secs()
                    );
                }
                None => {}
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    // Further records of a partition that was read to its end do not count.
                    let Some(span) = unread.get(&partition).filter(|_| message.topic() == topic) else { continue };
                    last_record = Instant::now();
                    if contains(span.wanted, offset) && span.range.contains(offset) {
                        let log = chunk.log(span.log);
                        chunk.push(log, offset, record::from_message(&message));
                    }
                    if offset + 1 >= span.range.end {
                        unread.remove(&partition);
                    }
                    if chunk.rows() >= size.rows_max || chunk.bytes() >= size.bytes_max {
                        write(chunk.finish(0))?;
                    }
                }
                // What is left before the end are transaction markers and aborted records.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(unread.remove(&partition)),
                Some(Err(failure)) => check(failure)?,
            }
        }
        Ok(())
    }
}

/// Why a partition of the right cluster is not the one that Bronze has read.
fn why_unreadable(log: &LogPartition, metadata: &Metadata, id: Option<&String>, bronze: &Progress) -> Option<String> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == &*log.topic);
    let Some(topic) = topic.filter(|topic| is_there(topic)) else {
        return Some("the topic does not exist, or this user may not read it".to_owned());
    };
    if !topic.partitions().iter().any(|partition| partition.id() == log.partition) {
        return Some("the topic has no such partition".to_owned());
    }
    match (bronze.topic_ids.get(&log.topic_name()), id) {
        (Some(stored), Some(found)) if **stored != **found => {
            Some(format!("the topic was deleted and created again: its id was {stored}, and is {found} now"))
        }
        _ => None,
    }
}

/// The ranges, joined where there is little between them.
fn joined(ranges: &[OffsetRange]) -> Vec<OffsetRange> {
    let mut joined: Vec<OffsetRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start - last.end < SKIP_OFFSETS_MAX => last.end = range.end,
            _ => joined.push(*range),
        }
    }
    joined
}

fn contains(ranges: &[OffsetRange], offset: i64) -> bool {
    let after = ranges.partition_point(|range| range.start <= offset);
    after > 0 && ranges[after - 1].contains(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(i64, i64)]) -> Vec<OffsetRange> {
        of.iter().map(|(start, end)| OffsetRange::new(*start, *end)).collect()
    }

    #[test]
    fn ranges_that_are_near_are_read_as_one() {
        let far = 20 + SKIP_OFFSETS_MAX;
        assert_eq!(joined(&ranges(&[(0, 5), (7, 20), (far, far + 1)])), ranges(&[(0, 20), (far, far + 1)]));
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn only_wanted_offsets_are_contained() {
        let wanted = ranges(&[(2, 5), (7, 8)]);
        let found: Vec<i64> = (0..10).filter(|offset| contains(&wanted, *offset)).collect();
        assert_eq!(found, [2, 3, 4, 7]);
        assert!(!contains(&[], 0));
    }
}
