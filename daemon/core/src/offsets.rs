//! Offsets of Kafka logs: who they belong to, half-open ranges of them, and what a table that has come so far makes of
//! the next range that it is offered.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// One partition of one topic of one cluster: an append-only log of its own, with its own offsets.
///
/// The cluster is part of the identity, so that a broker that was set up anew is never mistaken for the old one.
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

    /// A topic's name has no colon; a cluster's id may have one, so the text is split from its end.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.rsplitn(3, ':');
        let (partition, topic, cluster) = (parts.next(), parts.next(), parts.next());
        match (partition.and_then(|p| p.parse().ok()), topic, cluster) {
            (Some(partition), Some(topic), Some(cluster)) if partition >= 0 => Ok(Self::new(cluster, topic, partition)),
            _ => Err(NotALogPartition(text.to_owned())),
        }
    }
}

/// For each log partition the offset that comes next: everything below it is done.
pub type Offsets = BTreeMap<LogPartition, i64>;

/// The offsets `start..end` of one log partition. Some of them may hold no record (aborted transactions, compaction).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    pub start: i64,
    pub end: i64,
}

/// What a table whose next offset is `next` makes of a range:
///
/// | range and `next`         | fit                                          |
/// |--------------------------|----------------------------------------------|
/// | `end ≤ next`             | `Done`: all of it is in the table            |
/// | `start ≤ next < end`     | `Take(next..end)`: the part that is new      |
/// | `next < start`           | `Gap(next..start)`: something is missing     |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Done,
    Take(OffsetRange),
    Gap(OffsetRange),
}

impl OffsetRange {
    pub fn new(start: i64, end: i64) -> Self {
        debug_assert!(0 <= start && start <= end, "{start}..{end}");
        Self { start, end }
    }

    pub fn contains(&self, offset: i64) -> bool {
        self.start <= offset && offset < self.end
    }

    pub fn fit(&self, next: i64) -> Fit {
        if self.end <= next {
            Fit::Done
        } else if self.start <= next {
            Fit::Take(Self::new(next, self.end))
        } else {
            Fit::Gap(Self::new(next, self.start))
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

    /// Where each of these ranges ends: what a table has next once it holds them.
    pub fn ends(&self) -> Offsets {
        self.0.iter().map(|(log, range)| (log.clone(), range.end)).collect()
    }

    /// True when a table that has come to `offsets` holds all of this.
    pub fn within(&self, offsets: &Offsets) -> bool {
        self.0.iter().all(|(log, range)| offsets.get(log).is_some_and(|next| range.end <= *next))
    }

    /// The part of these ranges that a table that has come to `next` does not hold. Offsets before it that the table lacks
    /// are no matter: they were never there to be read.
    pub fn beyond(&self, next: &Offsets) -> Ranges {
        let new = |(log, range): (&LogPartition, OffsetRange)| match range.fit(*next.get(log).unwrap_or(&range.start)) {
            Fit::Done => None,
            Fit::Take(part) => Some((log.clone(), part)),
            Fit::Gap(_) => Some((log.clone(), range)),
        };
        self.iter().filter_map(new).collect()
    }

    /// What is new in these ranges to a table that has come to `next`, and what it misses before them. A log partition
    /// that the table has never seen counts from offset 0.
    pub fn against(&self, next: &Offsets) -> (Ranges, Ranges) {
        let (mut take, mut gap) = (Ranges::default(), Ranges::default());
        for (log, range) in &self.0 {
            match range.fit(next.get(log).copied().unwrap_or(0)) {
                Fit::Done => {}
                Fit::Take(part) => take.insert(log.clone(), part),
                Fit::Gap(missing) => gap.insert(log.clone(), missing),
            }
        }
        (take, gap)
    }
}

impl FromIterator<(LogPartition, OffsetRange)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (LogPartition, OffsetRange)>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

/// What a table that has come to `next` still lacks of a log that goes to `head`.
pub fn missing(next: &Offsets, head: &Offsets) -> Ranges {
    head.iter()
        .map(|(log, end)| (log, next.get(log).copied().unwrap_or(0), *end))
        .filter(|(_, start, end)| start < end)
        .map(|(log, start, end)| (log.clone(), OffsetRange::new(start, end)))
        .collect()
}

/// Moves `offsets` forward to where `ranges` end. Never backward.
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
    fn fit_follows_its_truth_table() {
        let range = OffsetRange::new(10, 20);
        assert_eq!(range.fit(25), Fit::Done);
        assert_eq!(range.fit(20), Fit::Done);
        assert_eq!(range.fit(19), Fit::Take(OffsetRange::new(19, 20)));
        assert_eq!(range.fit(10), Fit::Take(OffsetRange::new(10, 20)));
        assert_eq!(range.fit(9), Fit::Gap(OffsetRange::new(9, 10)));
        assert_eq!(range.fit(0), Fit::Gap(OffsetRange::new(0, 10)));
    }

    #[test]
    fn app_ids_come_back() {
        for cluster in ["abc", "a:b", "5L6g3nShT-eMCtK--X86sw", ""] {
            let log = LogPartition::new(cluster, "events.raw", 7);
            assert_eq!(LogPartition::from_app_id(&log.app_id()), Some(log));
        }
        for foreign in ["", "silverd", "silverd:", "silverd:x", "spark:c:t:1", "silverd:c:t:x", "silverd:c:t:-1"] {
            assert_eq!(LogPartition::from_app_id(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn beyond_is_what_is_not_there_yet() {
        let range = |start, end| Ranges::from_iter([(log(0), OffsetRange::new(start, end))]);
        let next = Offsets::from([(log(0), 10)]);
        assert_eq!(range(5, 10).beyond(&next), Ranges::default());
        assert_eq!(range(5, 15).beyond(&next), range(10, 15));
        assert_eq!(range(12, 15).beyond(&next), range(12, 15));
        assert_eq!(range(12, 15).beyond(&Offsets::new()), range(12, 15));
    }

    #[test]
    fn missing_is_what_lies_between() {
        let next = Offsets::from([(log(0), 5), (log(1), 9)]);
        let head = Offsets::from([(log(0), 7), (log(1), 9), (log(2), 3)]);
        let expected = Ranges::from_iter([(log(0), OffsetRange::new(5, 7)), (log(2), OffsetRange::new(0, 3))]);
        assert_eq!(missing(&next, &head), expected);
    }

    proptest! {
        /// Whatever is offered, a table that takes what is new and fills what it misses ends with every offset once.
        #[test]
        fn taking_what_is_new_covers_each_offset_once(cuts in prop::collection::vec((0i64..60, 0i64..30), 1..40)) {
            let mut next = Offsets::new();
            let mut seen = Vec::new();
            for (start, length) in cuts {
                let offered = Ranges::from_iter([(log(0), OffsetRange::new(start, start + length))]);
                let (take, gap) = offered.against(&next);
                prop_assert!(take.is_empty() || gap.is_empty());
                for (_, range) in gap.iter() {
                    seen.extend(range.start..range.end);
                }
                advance(&mut next, &gap.ends());
                let (take, gap) = offered.against(&next);
                prop_assert!(gap.is_empty());
                for (_, range) in take.iter() {
                    seen.extend(range.start..range.end);
                }
                advance(&mut next, &take.ends());
                let (take, gap) = offered.against(&next);
                prop_assert!(take.is_empty() && gap.is_empty());
            }
            let end = next.get(&log(0)).copied().unwrap_or(0);
            prop_assert_eq!(seen, (0..end).collect::<Vec<_>>());
        }
    }
}
