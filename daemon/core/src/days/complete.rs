//! Up to which event time a table is complete.

/// Where a partition ends in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub offset: i64,
    /// When Kafka was asked, in microseconds; `None` if it has not answered in this session.
    pub asked_at: Option<i64>,
}

/// How far a table has processed a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionFacts {
    /// The next offset that the table processes.
    pub next: i64,
    /// The Kafka timestamp of the last record before it, in microseconds. No later than when the record was read: a
    /// producer's clock that is ahead makes no day complete.
    pub last_timestamp: Option<i64>,
    pub end: Option<End>,
}

/// Up to which event time a table has all records that Kafka has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompleteUntil {
    /// In microseconds.
    Time(i64),
    /// It is not known of so many partitions.
    Unknown { partitions: usize },
}

impl PartitionFacts {
    /// Up to which event time the partition is processed; `None` if that is not known.
    ///
    /// | the end is known | processed to it | last record | complete until |
    /// |------------------|-----------------|-------------|----------------|
    /// | no               |                 |             | not known      |
    /// | yes              | yes             |             | Kafka was asked: an empty partition counts, too |
    /// | yes              | no              | known       | its timestamp, but no later than Kafka was asked |
    /// | yes              | no              | not known   | not known      |
    pub fn complete_until(&self) -> Option<i64> {
        let end = self.end?;
        let asked_at = end.asked_at?;
        if self.next >= end.offset { Some(asked_at) } else { Some(self.last_timestamp?.min(asked_at)) }
    }

    /// Offsets that Kafka has and the table has not processed.
    pub fn lag(&self) -> i64 {
        self.end.map_or(0, |end| (end.offset - self.next).max(0))
    }
}

/// The least of all partitions. Without any partition nothing is known.
pub fn complete_until<'p>(partitions: impl IntoIterator<Item = &'p PartitionFacts>) -> CompleteUntil {
    let (mut least, mut unknown) = (None::<i64>, 0);
    for partition in partitions {
        match partition.complete_until() {
            Some(until) => least = Some(least.map_or(until, |least| least.min(until))),
            None => unknown += 1,
        }
    }
    match least {
        Some(until) if unknown == 0 => CompleteUntil::Time(until),
        _ => CompleteUntil::Unknown { partitions: unknown },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(next: i64, last_timestamp: Option<i64>, end: Option<(i64, Option<i64>)>) -> PartitionFacts {
        PartitionFacts { next, last_timestamp, end: end.map(|(offset, asked_at)| End { offset, asked_at }) }
    }

    #[test]
    fn complete_until_follows_its_truth_table() {
        for (next, last, end, expected) in [
            (5, Some(40), None, None),
            (5, Some(40), Some((5, None)), None),
            (5, Some(40), Some((5, Some(100))), Some(100)),
            (0, None, Some((0, Some(100))), Some(100)),
            (6, None, Some((5, Some(100))), Some(100)),
            (4, Some(40), Some((5, Some(100))), Some(40)),
            (4, Some(140), Some((5, Some(100))), Some(100)),
            (4, None, Some((5, Some(100))), None),
        ] {
            let found = partition(next, last, end).complete_until();
            assert_eq!(found, expected, "{next} {last:?} {end:?}");
        }
    }

    #[test]
    fn a_table_without_partitions_is_not_known_to_be_complete() {
        assert_eq!(complete_until([]), CompleteUntil::Unknown { partitions: 0 });
    }

    #[test]
    fn lag_is_never_negative() {
        assert_eq!(partition(7, None, Some((5, None))).lag(), 0);
        assert_eq!(partition(3, None, Some((5, None))).lag(), 2);
        assert_eq!(partition(3, None, None).lag(), 0);
    }

    proptest! {
        /// No partition with unprocessed records lets a table be complete beyond its last processed record.
        #[test]
        fn no_partition_is_left_behind(
            partitions in prop::collection::vec((0i64..9, prop::option::of(0i64..99), 0i64..9, 0i64..99), 1..8),
        ) {
            let facts: Vec<_> = partitions
                .iter()
                .map(|(next, last, end, asked_at)| partition(*next, *last, Some((*end, Some(*asked_at)))))
                .collect();
            if let CompleteUntil::Time(until) = complete_until(&facts) {
                for facts in &facts {
                    let end = facts.end.unwrap_or(End { offset: 0, asked_at: None });
                    prop_assert!(Some(until) <= end.asked_at);
                    prop_assert!(facts.lag() == 0 || Some(until) <= facts.last_timestamp);
                }
            }
        }
    }
}
