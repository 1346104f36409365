//! Kafka offsets: partitions, half-open ranges of offsets, and how a range relates to what a table already has.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// One partition of one topic of one cluster: an append-only log with offsets of its own.
///
/// The cluster is part of the identity, so that a broker that was set up again is never taken for the old one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPartition {
    pub cluster: Arc<str>,
    pub topic: Arc<str>,
    pub partition: i32,
}

/// The prefix of the Delta `txn` application ids that silverd writes.
const APP_PREFIX: &str = "silverd";

impl LogPartition {
    pub fn new(cluster: impl Into<Arc<str>>, topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { cluster: cluster.into(), topic: topic.into(), partition }
    }

    pub fn topic_name(&self) -> TopicName {
        TopicName { cluster: self.cluster.clone(), topic: self.topic.clone() }
    }

    /// The application id of the Delta `txn` action whose version is this log partition's next offset.
    pub fn app_id(&self) -> String {
        format!("{APP_PREFIX}:{self}")
    }

    /// The reverse of [`app_id`](Self::app_id); `None` for the ids of other writers.
    pub fn from_app_id(app_id: &str) -> Option<Self> {
        app_id.strip_prefix(APP_PREFIX)?.strip_prefix(':')?.parse().ok()
    }
}

impl fmt::Display for LogPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.cluster, self.topic, self.partition)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected cluster:topic:partition, found `{0}`")]
pub struct NotALogPartition(String);

impl FromStr for LogPartition {
    type Err = NotALogPartition;

    /// A topic name has no colon, but a cluster id may have one, so the text is split from its end.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.rsplitn(3, ':');
        let (partition, topic, cluster) = (parts.next(), parts.next(), parts.next());
        match (partition.and_then(|p| p.parse().ok()), topic, cluster) {
            (Some(partition), Some(topic), Some(cluster)) if partition >= 0 => Ok(Self::new(cluster, topic, partition)),
            _ => Err(NotALogPartition(text.to_owned())),
        }
    }
}

/// A topic of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName {
    pub cluster: Arc<str>,
    pub topic: Arc<str>,
}

/// The id that Kafka gave each topic.
pub type TopicIds = BTreeMap<TopicName, Arc<str>>;

impl TopicName {
    /// The application id of the `txn` action that says which id a topic had when its records were first stored.
    pub fn app_id(&self, id: &str) -> String {
        format!("{APP_PREFIX}-topic:{}:{}:{id}", self.cluster, self.topic)
    }

    /// The reverse of [`app_id`](Self::app_id).
    pub fn from_app_id(app_id: &str) -> Option<(Self, Arc<str>)> {
        let mut parts = app_id.strip_prefix(APP_PREFIX)?.strip_prefix("-topic:")?.rsplitn(3, ':');
        let (id, topic, cluster) = (parts.next()?, parts.next()?, parts.next()?);
        Some((Self { cluster: cluster.into(), topic: topic.into() }, id.into()))
    }
}

/// The next offset of each log partition: every offset below it has been processed.
pub type Offsets = BTreeMap<LogPartition, i64>;

/// The offsets `start..end` of one log partition. Not every offset has a record (aborted transactions, compacted
/// topics).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    pub start: i64,
    pub end: i64,
}

/// How a range relates to a table whose next offset is `next`:
///
/// | range and `next`         | status                                       |
/// |--------------------------|----------------------------------------------|
/// | `end ≤ next`             | `Done`: the table has all of it              |
/// | `start ≤ next < end`     | `New(next..end)`: the table lacks this part  |
/// | `next < start`           | `Gap(next..start)`: the table lacks this first|
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeStatus {
    Done,
    New(OffsetRange),
    Gap(OffsetRange),
}

impl OffsetRange {
    pub fn new(start: i64, end: i64) -> Self {
        debug_assert!(0 <= start && start <= end, "{start}..{end}");
        Self { start, end }
    }

    /// The number of offsets.
    pub fn len(&self) -> i64 {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    pub fn contains(&self, offset: i64) -> bool {
        self.start <= offset && offset < self.end
    }

    pub fn status(&self, next: i64) -> RangeStatus {
        if self.end <= next {
            RangeStatus::Done
        } else if self.start <= next {
            RangeStatus::New(Self::new(next, self.end))
        } else {
            RangeStatus::Gap(Self::new(next, self.start))
        }
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// The offsets that a chunk or a commit covers: at most one range for each log partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<LogPartition, OffsetRange>);

impl Ranges {
    pub fn insert(&mut self, log: LogPartition, range: OffsetRange) {
        self.0.insert(log, range);
    }

    pub fn get(&self, log: &LogPartition) -> Option<OffsetRange> {
        self.0.get(log).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&LogPartition, OffsetRange)> {
        self.0.iter().map(|(log, range)| (log, *range))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of offsets in all ranges.
    pub fn total(&self) -> i64 {
        self.0.values().map(OffsetRange::len).sum()
    }

    /// The ranges of a topic, by partition. They must be of one cluster.
    pub fn of_topic(&self, topic: &str) -> BTreeMap<i32, OffsetRange> {
        self.iter().filter(|(log, _)| *log.topic == *topic).map(|(log, range)| (log.partition, range)).collect()
    }

    /// The ranges of the topics that `takes` allows.
    pub fn of_topics(&self, takes: impl Fn(&str) -> bool) -> Ranges {
        // The partitions of a topic follow one another.
        let mut last: Option<(&str, bool)> = None;
        let mut is_taken = |topic| match last {
            Some((known, taken)) if known == topic => taken,
            _ => last.insert((topic, takes(topic))).1,
        };
        let mut ranges = Ranges::default();
        for (log, range) in &self.0 {
            if is_taken(&log.topic) {
                ranges.insert(log.clone(), *range);
            }
        }
        ranges
    }

    /// The ranges of one cluster, and all others.
    pub fn split_cluster(&self, cluster: &str) -> (Ranges, Ranges) {
        let (cluster, others) = self.0.clone().into_iter().partition(|(log, _)| *log.cluster == *cluster);
        (Self(cluster), Self(others))
    }

    /// The end of each range: the next offsets of a table that has these ranges.
    pub fn ends(&self) -> Offsets {
        self.0.iter().map(|(log, range)| (log.clone(), range.end)).collect()
    }

    /// Whether a table with these next offsets has all of these ranges.
    pub fn within(&self, next: &Offsets) -> bool {
        self.0.iter().all(|(log, range)| next.get(log).is_some_and(|next| range.end <= *next))
    }

    /// The part of these ranges that a table with these next offsets lacks. Offsets before the ranges are ignored: they
    /// were never available. A log partition that the table does not know is lacking even if its range is empty.
    pub fn beyond(&self, next: &Offsets) -> Ranges {
        let new = |(log, range): (&LogPartition, OffsetRange)| match next.get(log).map(|next| range.status(*next)) {
            Some(RangeStatus::Done) => None,
            Some(RangeStatus::New(part)) => Some((log.clone(), part)),
            Some(RangeStatus::Gap(_)) | None => Some((log.clone(), range)),
        };
        self.iter().filter_map(new).collect()
    }

    /// For a table with these next offsets: the part of these ranges that it lacks, and the gap before them. A log
    /// partition that the table does not know starts at offset 0.
    pub fn new_and_gap(&self, next: &Offsets) -> (Ranges, Ranges) {
        let (mut new, mut gap) = (Ranges::default(), Ranges::default());
        for (log, range) in &self.0 {
            match range.status(next.get(log).copied().unwrap_or(0)) {
                RangeStatus::Done => {}
                RangeStatus::New(part) => new.insert(log.clone(), part),
                RangeStatus::Gap(missing) => gap.insert(log.clone(), missing),
            }
        }
        (new, gap)
    }
}

impl FromIterator<(LogPartition, OffsetRange)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (LogPartition, OffsetRange)>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

/// What a table with the next offsets `next` lacks of logs that end at `ends`.
pub fn missing(next: &Offsets, ends: &Offsets) -> Ranges {
    ends.iter()
        .map(|(log, end)| (log, next.get(log).copied().unwrap_or(0), *end))
        .filter(|(_, start, end)| start < end)
        .map(|(log, start, end)| (log.clone(), OffsetRange::new(start, end)))
        .collect()
}

/// Moves `offsets` forward to `ends`, never backward.
pub fn advance(offsets: &mut Offsets, ends: &Offsets) {
    for (log, end) in ends {
        let next = offsets.entry(log.clone()).or_insert(*end);
        *next = (*next).max(*end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(partition: i32) -> LogPartition {
        LogPartition::new("c", "t", partition)
    }

    #[test]
    fn status_follows_its_truth_table() {
        let range = OffsetRange::new(10, 20);
        assert_eq!(range.status(25), RangeStatus::Done);
        assert_eq!(range.status(20), RangeStatus::Done);
        assert_eq!(range.status(19), RangeStatus::New(OffsetRange::new(19, 20)));
        assert_eq!(range.status(10), RangeStatus::New(OffsetRange::new(10, 20)));
        assert_eq!(range.status(9), RangeStatus::Gap(OffsetRange::new(9, 10)));
        assert_eq!(range.status(0), RangeStatus::Gap(OffsetRange::new(0, 10)));
    }

    #[test]
    fn app_ids_parse_back() {
        for cluster in ["abc", "a:b", "5L6g3nShT-eMCtK--X86sw", ""] {
            let log = LogPartition::new(cluster, "events.raw", 7);
            assert_eq!(LogPartition::from_app_id(&log.app_id()), Some(log));
        }
        for foreign in ["", "silverd", "silverd:", "silverd:x", "spark:c:t:1", "silverd:c:t:x", "silverd:c:t:-1"] {
            assert_eq!(LogPartition::from_app_id(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn ids_of_topics_parse_back() {
        for cluster in ["abc", "a:b", ""] {
            let name = TopicName { cluster: cluster.into(), topic: "events.raw".into() };
            let app_id = name.app_id("5L6g3nShT-eMCtK_X86sw");
            assert_eq!(LogPartition::from_app_id(&app_id), None);
            assert_eq!(TopicName::from_app_id(&app_id), Some((name, "5L6g3nShT-eMCtK_X86sw".into())));
        }
        assert_eq!(TopicName::from_app_id("silverd:c:t:0"), None);
    }

    #[test]
    fn beyond_is_the_part_that_the_table_lacks() {
        let range = |start, end| Ranges::from_iter([(log(0), OffsetRange::new(start, end))]);
        let next = Offsets::from([(log(0), 10)]);
        assert_eq!(range(5, 10).beyond(&next), Ranges::default());
        assert_eq!(range(5, 15).beyond(&next), range(10, 15));
        assert_eq!(range(12, 15).beyond(&next), range(12, 15));
        assert_eq!(range(12, 15).beyond(&Offsets::new()), range(12, 15));
        assert_eq!(range(0, 0).beyond(&Offsets::new()), range(0, 0));
        assert_eq!(range(10, 10).beyond(&next), Ranges::default());
    }

    #[test]
    fn total_adds_up_the_lengths() {
        let ranges = Ranges::from_iter([(log(0), OffsetRange::new(5, 7)), (log(2), OffsetRange::new(0, 3))]);
        assert_eq!((ranges.total(), Ranges::default().total()), (5, 0));
    }

    #[test]
    fn ranges_of_topics() {
        let range = OffsetRange::new(0, 1);
        let logs = [("t", 0), ("t", 1), ("u", 0)];
        let ranges: Ranges =
            logs.map(|(topic, partition)| (LogPartition::new("c", topic, partition), range)).into_iter().collect();
        assert_eq!(ranges.of_topic("t"), BTreeMap::from([(0, range), (1, range)]));
        assert_eq!(
            ranges.of_topics(|topic| topic == "u"),
            [(LogPartition::new("c", "u", 0), range)].into_iter().collect()
        );
    }

    #[test]
    fn missing_is_the_difference() {
        let next = Offsets::from([(log(0), 5), (log(1), 9)]);
        let ends = Offsets::from([(log(0), 7), (log(1), 9), (log(2), 3)]);
        let expected = Ranges::from_iter([(log(0), OffsetRange::new(5, 7)), (log(2), OffsetRange::new(0, 3))]);
        assert_eq!(missing(&next, &ends), expected);
    }

    proptest! {
        /// With any ranges, a table that fills the gaps and takes the new parts has every offset exactly once.
        #[test]
        fn taking_what_is_new_covers_each_offset_once(cuts in prop::collection::vec((0i64..60, 0i64..30), 1..40)) {
            let mut next = Offsets::new();
            let mut seen = Vec::new();
            for (start, length) in cuts {
                let offered = Ranges::from_iter([(log(0), OffsetRange::new(start, start + length))]);
                let (new, gap) = offered.new_and_gap(&next);
                prop_assert!(new.is_empty() || gap.is_empty());
                for (_, range) in gap.iter() {
                    seen.extend(range.start..range.end);
                }
                advance(&mut next, &gap.ends());
                let (new, gap) = offered.new_and_gap(&next);
                prop_assert!(gap.is_empty());
                for (_, range) in new.iter() {
                    seen.extend(range.start..range.end);
                }
                advance(&mut next, &new.ends());
                let (new, gap) = offered.new_and_gap(&next);
                prop_assert!(new.is_empty() && gap.is_empty());
            }
            let end = next.get(&log(0)).copied().unwrap_or(0);
            prop_assert_eq!(seen, (0..end).collect::<Vec<_>>());
        }
    }
}
