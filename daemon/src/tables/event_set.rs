//! Sets of events, by their positions in Kafka: a compressed bitmap of offsets for each log partition.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use roaring::RoaringTreemap;
use silverd_core::chunk;
use silverd_core::offsets::{LogPartition, OffsetRange, Offsets, Ranges};
use silverd_core::schema::added;

use super::column::column;

/// The names of the columns with the position of an event: cluster, topic, partition, offset.
type CoordinateColumns = [&'static str; 4];

/// The coordinates of a Silver table's rows.
pub(crate) const ROW_COORDINATES: CoordinateColumns =
    [added::CLUSTER_ID, added::TOPIC, added::PARTITION, added::OFFSET];
/// The coordinates of records, in Bronze and in the side outputs.
pub(crate) const RECORD_COORDINATES: CoordinateColumns =
    [chunk::column::CLUSTER_ID, chunk::column::TOPIC, chunk::column::PARTITION, chunk::column::OFFSET];

/// The positions of the events of a batch, by row.
pub(crate) struct Coordinates {
    clusters: ArrayRef,
    topics: ArrayRef,
    partitions: ArrayRef,
    offsets: ArrayRef,
}

/// A set of events.
#[derive(Default, Clone)]
pub(crate) struct EventSet(BTreeMap<LogPartition, RoaringTreemap>);

impl Coordinates {
    pub(crate) fn of(batch: &RecordBatch, columns: CoordinateColumns) -> anyhow::Result<Self> {
        let cast_column = |name: &str, ty: DataType| anyhow::Ok(cast(column(batch, name)?, &ty)?);
        let [clusters, topics, partitions, offsets] = columns;
        Ok(Self {
            clusters: cast_column(clusters, DataType::Utf8)?,
            topics: cast_column(topics, DataType::Utf8)?,
            partitions: cast_column(partitions, DataType::Int32)?,
            offsets: cast_column(offsets, DataType::Int64)?,
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.offsets.len()
    }

    pub(crate) fn offset(&self, row: usize) -> i64 {
        self.offsets.as_primitive::<Int64Type>().value(row)
    }

    /// Whether two rows are of the same event.
    pub(crate) fn are_equal(&self, a: usize, b: usize) -> bool {
        self.offset(a) == self.offset(b) && self.are_of_one_log(a, b)
    }

    fn are_of_one_log(&self, a: usize, b: usize) -> bool {
        let (clusters, topics) = (self.clusters.as_string::<i32>(), self.topics.as_string::<i32>());
        let partitions = self.partitions.as_primitive::<Int32Type>().values();
        partitions[a] == partitions[b] && topics.value(a) == topics.value(b) && clusters.value(a) == clusters.value(b)
    }

    /// Consecutive rows of the same log partition.
    pub(crate) fn runs(&self) -> Vec<(LogPartition, Range<usize>)> {
        let (clusters, topics) = (self.clusters.as_string::<i32>(), self.topics.as_string::<i32>());
        let partitions = self.partitions.as_primitive::<Int32Type>().values();
        let (mut runs, mut start) = (Vec::new(), 0);
        for row in 1..=self.rows() {
            if row == self.rows() || !self.are_of_one_log(start, row) {
                let log = LogPartition::new(clusters.value(start), topics.value(start), partitions[start]);
                runs.push((log, start..row));
                start = row;
            }
        }
        runs
    }
}

impl EventSet {
    pub(crate) fn of_ranges<'r>(ranges: impl IntoIterator<Item = &'r Ranges>) -> Self {
        let mut events = Self::default();
        for (log, range) in ranges.into_iter().flat_map(Ranges::iter) {
            events.0.entry(log.clone()).or_default().insert_range(range.start as u64..range.end as u64);
        }
        events
    }

    /// Inserts all offsets of a range.
    pub(crate) fn insert_range(&mut self, log: &LogPartition, range: OffsetRange) {
        self.0.entry(log.clone()).or_default().insert_range(range.start as u64..range.end as u64);
    }

    /// Removes the events of other sets.
    pub(crate) fn remove(&mut self, others: &EventSet) {
        for (log, offsets) in &mut self.0 {
            if let Some(other) = others.0.get(log) {
                *offsets -= other;
            }
        }
    }

    /// Removes the offsets of a range, and returns how many of them there were.
    pub(crate) fn remove_range(&mut self, log: &LogPartition, range: OffsetRange) -> u64 {
        self.0.get_mut(log).map_or(0, |offsets| offsets.remove_range(range.start as u64..range.end as u64))
    }

    /// The events of the rows of some batches.
    pub(crate) fn of_batches<'b>(
        batches: impl IntoIterator<Item = &'b RecordBatch>,
        columns: CoordinateColumns,
    ) -> anyhow::Result<Self> {
        let mut events = Self::default();
        for batch in batches {
            events.insert(&Coordinates::of(batch, columns)?);
        }
        Ok(events)
    }

    pub(crate) fn insert(&mut self, coordinates: &Coordinates) {
        for (log, rows) in coordinates.runs() {
            self.0.entry(log).or_default().extend(rows.map(|row| coordinates.offset(row) as u64));
        }
    }

    /// Inserts the rows for which `wanted` is true.
    pub(crate) fn insert_some(&mut self, coordinates: &Coordinates, wanted: &BooleanArray) {
        for (log, rows) in coordinates.runs() {
            let offsets = rows.filter(|row| wanted.value(*row)).map(|row| coordinates.offset(row) as u64);
            self.0.entry(log).or_default().extend(offsets);
        }
    }

    /// Inserts the rows for which `wanted` is true. Returns which of these were in the set already, also by a row before them.
    pub(crate) fn insert_again(&mut self, coordinates: &Coordinates, wanted: &BooleanArray) -> Vec<bool> {
        let mut again = vec![false; coordinates.rows()];
        for (log, rows) in coordinates.runs() {
            let offsets = self.0.entry(log).or_default();
            for row in rows.filter(|row| wanted.value(*row)) {
                again[row] = !offsets.insert(coordinates.offset(row) as u64);
            }
        }
        again
    }

    pub(crate) fn merge(&mut self, others: &EventSet) {
        for (log, offsets) in &others.0 {
            *self.0.entry(log.clone()).or_default() |= offsets;
        }
    }

    pub(crate) fn without(&self, others: &EventSet) -> EventSet {
        let difference = self.0.iter().map(|(log, offsets)| match others.0.get(log) {
            Some(other) => (log.clone(), offsets - other),
            None => (log.clone(), offsets.clone()),
        });
        Self(difference.collect())
    }

    /// The events that are in both sets.
    pub(crate) fn and(&self, others: &EventSet) -> EventSet {
        let both = self.0.iter().filter_map(|(log, offsets)| Some((log.clone(), offsets & others.0.get(log)?)));
        Self(both.collect())
    }

    /// The events that a table with these next offsets has passed.
    pub(crate) fn passed(&self, next: &Offsets) -> EventSet {
        let passed = self.0.iter().filter_map(|(log, offsets)| {
            let next = u64::try_from(*next.get(log)?).ok()?;
            let mut offsets = offsets.clone();
            offsets.remove_range(next..);
            Some((log.clone(), offsets))
        });
        Self(passed.collect())
    }

    /// Whether the event of each row is in the set.
    pub(crate) fn mask(&self, coordinates: &Coordinates) -> BooleanArray {
        let mut mask = vec![false; coordinates.rows()];
        for (log, rows) in coordinates.runs() {
            if let Some(offsets) = self.0.get(&log) {
                for row in rows {
                    mask[row] = offsets.contains(coordinates.offset(row) as u64);
                }
            }
        }
        mask.into()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.values().all(RoaringTreemap::is_empty)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.values().map(RoaringTreemap::len).sum()
    }

    /// How many of the events are not in `others`.
    pub(crate) fn count_not_in(&self, others: &EventSet) -> u64 {
        let count = |(log, offsets): (&LogPartition, &RoaringTreemap)| {
            offsets.len() - others.0.get(log).map_or(0, |other| offsets.intersection_len(other))
        };
        self.0.iter().map(count).sum()
    }

    /// The first `count` events.
    pub(crate) fn first(&self, count: usize) -> Vec<(LogPartition, i64)> {
        let all =
            self.0.iter().flat_map(|(log, offsets)| offsets.iter().map(move |offset| (log.clone(), offset as i64)));
        all.take(count).collect()
    }

    /// The log partitions that have events in the set.
    pub(crate) fn logs(&self) -> impl Iterator<Item = &LogPartition> {
        self.0.iter().filter(|(_, offsets)| !offsets.is_empty()).map(|(log, _)| log)
    }

    /// Exactly these events, as few ranges as possible, in order.
    pub(crate) fn ranges(&self) -> Vec<(LogPartition, OffsetRange)> {
        let mut ranges = Vec::new();
        for (log, offsets) in &self.0 {
            let mut last: Option<OffsetRange> = None;
            for (high, bitmap) in offsets.bitmaps() {
                let offset = |low: u32| (i64::from(high) << 32) | i64::from(low);
                let mut parts = bitmap.iter();
                while let Some(part) = parts.next_range() {
                    let (start, end) = (offset(*part.start()), offset(*part.end()) + 1);
                    last = match last {
                        Some(range) if range.end == start => Some(OffsetRange::new(range.start, end)),
                        before => {
                            ranges.extend(before.map(|range| (log.clone(), range)));
                            Some(OffsetRange::new(start, end))
                        }
                    };
                }
            }
            ranges.extend(last.map(|range| (log.clone(), range)));
        }
        ranges
    }

    /// From the first to the last event of each log partition.
    pub(crate) fn bounds(&self) -> Ranges {
        let bounds = self.0.iter().filter_map(|(log, offsets)| {
            Some((log.clone(), OffsetRange::new(offsets.min()? as i64, offsets.max()? as i64 + 1)))
        });
        bounds.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray};

    use super::*;

    fn coordinates(rows: &[(&str, i32, i64)]) -> Coordinates {
        let clusters = StringArray::from_iter_values(rows.iter().map(|row| row.0));
        let topics = StringArray::from_iter_values(rows.iter().map(|_| "t"));
        let partitions = Int32Array::from_iter_values(rows.iter().map(|row| row.1));
        let offsets = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("c", Arc::new(clusters)),
            ("t", Arc::new(topics)),
            ("p", Arc::new(partitions)),
            ("o", Arc::new(offsets)),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        Coordinates::of(&batch, ["c", "t", "p", "o"]).expect("coordinates")
    }

    #[test]
    fn clusters_and_partitions_are_distinguished() {
        let mut events = EventSet::default();
        events.insert(&coordinates(&[("a", 0, 1), ("a", 0, 2), ("a", 1, 2), ("b", 0, 7), ("a", 0, 9)]));
        assert_eq!(events.len(), 5);
        let asked = coordinates(&[("a", 0, 2), ("b", 0, 2), ("b", 0, 7), ("a", 1, 9), ("a", 0, 9), ("x", 0, 1)]);
        assert_eq!(events.mask(&asked), BooleanArray::from(vec![true, false, true, false, true, false]));
        let log = |cluster: &str, partition| LogPartition::new(cluster, "t", partition);
        let bounds = events.bounds();
        assert_eq!(bounds.get(&log("a", 0)), Some(OffsetRange::new(1, 10)));
        assert_eq!(bounds.get(&log("b", 0)), Some(OffsetRange::new(7, 8)));
    }

    #[test]
    fn sets_of_ranges_are_compared() {
        let log = LogPartition::new("a", "t", 0);
        let range = |start, end| Ranges::from_iter([(log.clone(), OffsetRange::new(start, end))]);
        let events = EventSet::of_ranges(&[range(0, 10), range(20, 30)]);
        assert_eq!(events.len(), 20);
        assert_eq!(events.count_not_in(&EventSet::of_ranges(&[range(5, 25)])), 10);
        assert_eq!(events.without(&EventSet::of_ranges(&[range(0, 29)])).first(5), [(log.clone(), 29)]);
    }

    #[test]
    fn ranges_are_inserted_and_removed() {
        let (log, other) = (LogPartition::new("a", "t", 0), LogPartition::new("b", "t", 1));
        let mut events = EventSet::default();
        events.insert_range(&log, OffsetRange::new(0, 10));
        assert_eq!(events.remove_range(&log, OffsetRange::new(8, 20)), 2);
        assert_eq!(events.remove_range(&other, OffsetRange::new(0, 20)), 0);
        let mut others = EventSet::default();
        others.insert_range(&log, OffsetRange::new(0, 3));
        others.insert_range(&other, OffsetRange::new(3, 5));
        events.remove(&others);
        assert_eq!(events.ranges(), [(log, OffsetRange::new(3, 8))]);
        assert!(!events.is_empty());
        events.remove(&events.clone());
        assert!(events.is_empty());
    }

    #[test]
    fn ranges_are_exact() {
        let (log, other) = (LogPartition::new("a", "t", 0), LogPartition::new("b", "t", 1));
        let range = |log: &LogPartition, start, end| Ranges::from_iter([(log.clone(), OffsetRange::new(start, end))]);
        let high = 1_i64 << 32;
        let parts = [
            range(&log, 0, 10),
            range(&log, 10, 12),
            range(&log, 20, 21),
            range(&log, high - 70_000, high + 3),
            range(&other, 5, 6),
        ];
        let expected = [
            (log.clone(), OffsetRange::new(0, 12)),
            (log.clone(), OffsetRange::new(20, 21)),
            (log.clone(), OffsetRange::new(high - 70_000, high + 3)),
            (other, OffsetRange::new(5, 6)),
        ];
        assert_eq!(EventSet::of_ranges(&parts).ranges(), expected);
        assert!(EventSet::default().ranges().is_empty());
    }

    #[test]
    fn events_are_found_again_and_by_next_offsets() {
        let rows = coordinates(&[("a", 0, 1), ("a", 0, 2), ("a", 0, 1), ("a", 0, 1), ("b", 0, 1)]);
        let wanted = BooleanArray::from(vec![true, true, true, false, true]);
        let mut events = EventSet::default();
        assert_eq!(events.insert_again(&rows, &wanted), [false, false, true, false, false]);
        assert_eq!(events.insert_again(&rows, &wanted), [true, true, true, false, true]);

        let log = LogPartition::new("a", "t", 0);
        let passed = events.passed(&Offsets::from([(log.clone(), 2)]));
        assert_eq!(passed.first(5), [(log.clone(), 1)]);
        assert_eq!(events.and(&passed).first(5), [(log.clone(), 1)]);
        assert_eq!(events.without(&passed).logs().count(), 2);
        // What no program of ours writes.
        let mut odd = EventSet::default();
        odd.insert(&coordinates(&[("a", 0, -1)]));
        assert_eq!((odd.passed(&Offsets::from([(log, 100)])).len(), odd.len()), (0, 1));
    }
}
