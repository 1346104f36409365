//! Sets of events by where they lie in Kafka's logs: a bit for each offset, compressed.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use roaring::RoaringTreemap;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

/// The columns that say where a record or a row came from, in the order: cluster, topic, partition, offset.
pub type Names = [&'static str; 4];

/// Where the rows of a batch came from.
pub struct Coordinates {
    clusters: ArrayRef,
    topics: ArrayRef,
    partitions: ArrayRef,
    offsets: ArrayRef,
}

impl Coordinates {
    pub fn of(batch: &RecordBatch, names: Names) -> anyhow::Result<Self> {
        let column = |name: &str, ty: DataType| {
            let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
            anyhow::Ok(cast(column, &ty)?)
        };
        let [clusters, topics, partitions, offsets] = names;
        Ok(Self {
            clusters: column(clusters, DataType::Utf8)?,
            topics: column(topics, DataType::Utf8)?,
            partitions: column(partitions, DataType::Int32)?,
            offsets: column(offsets, DataType::Int64)?,
        })
    }

    pub fn rows(&self) -> usize {
        self.offsets.len()
    }

    pub fn offset(&self, row: usize) -> i64 {
        self.offsets.as_primitive::<Int64Type>().value(row)
    }

    pub fn partition(&self, row: usize) -> i32 {
        self.partitions.as_primitive::<Int32Type>().value(row)
    }

    /// Runs of rows of one log partition: its name, and the rows.
    pub fn runs(&self) -> Vec<(LogPartition, std::ops::Range<usize>)> {
        let (clusters, topics) = (self.clusters.as_string::<i32>(), self.topics.as_string::<i32>());
        let partitions = self.partitions.as_primitive::<Int32Type>().values();
        let same = |a: usize, b: usize| {
            partitions[a] == partitions[b]
                && topics.value(a) == topics.value(b)
                && clusters.value(a) == clusters.value(b)
        };
        let (mut runs, mut start) = (Vec::new(), 0);
        for row in 1..=self.rows() {
            if row == self.rows() || !same(start, row) {
                let log = LogPartition::new(clusters.value(start), topics.value(start), partitions[start]);
                runs.push((log, start..row));
                start = row;
            }
        }
        runs
    }
}

/// A set of events.
#[derive(Default, Clone)]
pub struct Places(BTreeMap<LogPartition, RoaringTreemap>);

impl Places {
    pub fn of_ranges<'r>(ranges: impl IntoIterator<Item = &'r Ranges>) -> Self {
        let mut places = Self::default();
        for (log, range) in ranges.into_iter().flat_map(Ranges::iter) {
            places.0.entry(log.clone()).or_default().insert_range(range.start as u64..range.end as u64);
        }
        places
    }

    pub fn insert(&mut self, coordinates: &Coordinates) {
        for (log, rows) in coordinates.runs() {
            let of = self.0.entry(log).or_default();
            of.extend(rows.map(|row| coordinates.offset(row) as u64));
        }
    }

    /// As `insert`, for the rows of which `wanted` is true.
    pub fn insert_some(&mut self, coordinates: &Coordinates, wanted: &BooleanArray) {
        for (log, rows) in coordinates.runs() {
            let of = self.0.entry(log).or_default();
            of.extend(rows.filter(|row| wanted.value(*row)).map(|row| coordinates.offset(row) as u64));
        }
    }

    pub fn merge(&mut self, others: Places) {
        for (log, of) in others.0 {
            *self.0.entry(log).or_default() |= of;
        }
    }

    pub fn without(&self, others: &Places) -> Places {
        let left = self.0.iter().map(|(log, of)| match others.0.get(log) {
            Some(other) => (log.clone(), of - other),
            None => (log.clone(), of.clone()),
        });
        Self(left.collect())
    }

    /// For each row, whether its event is in the set.
    pub fn mask(&self, coordinates: &Coordinates) -> BooleanArray {
        let mut mask = vec![false; coordinates.rows()];
        for (log, rows) in coordinates.runs() {
            if let Some(of) = self.0.get(&log) {
                for row in rows {
                    mask[row] = of.contains(coordinates.offset(row) as u64);
                }
            }
        }
        mask.into()
    }

    pub fn len(&self) -> u64 {
        self.0.values().map(RoaringTreemap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of these are not in `others`.
    pub fn count_beyond(&self, others: &Places) -> u64 {
        let common = |(log, of): (&LogPartition, &RoaringTreemap)| {
            of.len() - others.0.get(log).map_or(0, |other| of.intersection_len(other))
        };
        self.0.iter().map(common).sum()
    }

    pub fn intersects(&self, others: &Places) -> bool {
        self.count_beyond(others) < self.len()
    }

    /// The first so many of them.
    pub fn first(&self, count: usize) -> Vec<(LogPartition, i64)> {
        let all = self.0.iter().flat_map(|(log, of)| of.iter().map(move |offset| (log.clone(), offset as i64)));
        all.take(count).collect()
    }

    /// From the first to the last event of each log partition.
    pub fn bounds(&self) -> Ranges {
        let bounds = self
            .0
            .iter()
            .filter_map(|(log, of)| Some((log.clone(), OffsetRange::new(of.min()? as i64, of.max()? as i64 + 1))));
        bounds.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray};

    use super::*;

    const NAMES: Names = ["c", "t", "p", "o"];

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
        Coordinates::of(&RecordBatch::try_from_iter(columns).expect("a batch"), NAMES).expect("coordinates")
    }

    #[test]
    fn clusters_and_partitions_are_told_apart() {
        let mut places = Places::default();
        places.insert(&coordinates(&[("a", 0, 1), ("a", 0, 2), ("a", 1, 2), ("b", 0, 7), ("a", 0, 9)]));
        assert_eq!(places.len(), 5);
        let asked = coordinates(&[("a", 0, 2), ("b", 0, 2), ("b", 0, 7), ("a", 1, 9), ("a", 0, 9), ("x", 0, 1)]);
        assert_eq!(places.mask(&asked), BooleanArray::from(vec![true, false, true, false, true, false]));
        let log = |cluster: &str, partition| LogPartition::new(cluster, "t", partition);
        let bounds = places.bounds();
        assert_eq!(bounds.get(&log("a", 0)), Some(OffsetRange::new(1, 10)));
        assert_eq!(bounds.get(&log("b", 0)), Some(OffsetRange::new(7, 8)));
    }

    #[test]
    fn ranges_are_sets_too() {
        let log = LogPartition::new("a", "t", 0);
        let range = |start, end| Ranges::from_iter([(log.clone(), OffsetRange::new(start, end))]);
        let places = Places::of_ranges(&[range(0, 10), range(20, 30)]);
        assert_eq!(places.len(), 20);
        assert_eq!(places.count_beyond(&Places::of_ranges(&[range(5, 25)])), 10);
        assert!(!places.intersects(&Places::of_ranges(&[range(10, 20)])));
    }
}
