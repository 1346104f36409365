//! What replay reads at once: a small data file, or a row group of a large one, and the offsets in it.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use serde::Deserialize;
use silverd_core::chunk::column;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use super::read_window::partitions_and_offsets;
use crate::delta::{DataFile, FileToRead, ROW_GROUP_ROWS_MAX, RowGroups};

/// A larger file is read by row groups.
const WHOLE_FILE_BYTES_MAX: u64 = 8 << 20;

/// A data file, or a row group of a large one. The row groups of a compacted file resemble the small files that it
/// replaced.
pub(super) struct FilePart {
    pub(super) file: FileToRead,
    pub(super) group: Option<usize>,
    pub(super) rows: u64,
    /// About the memory that its records take.
    pub(super) bytes: u64,
    /// The offsets of each log partition.
    pub(super) offsets: BTreeMap<LogPartition, OffsetRange>,
}

impl FilePart {
    /// The parts of a file; none if it has none of these offsets.
    pub(super) async fn of_file(log: &LogStoreRef, file: &DataFile, missing: &Ranges) -> anyhow::Result<Vec<Self>> {
        let stats = Stats::of(file);
        if !stats.as_ref().is_none_or(|stats| stats.may_overlap(missing)) {
            return Ok(Vec::new());
        }
        match stats.and_then(|stats| stats.single_partition(file)) {
            Some(part) => Ok(vec![part]),
            None => Self::read(log, file).await.with_context(|| unreadable("read offsets of", &file.to_read())),
        }
    }

    /// Reads only the columns with the partitions and offsets of a file.
    pub(super) async fn read(log: &LogStoreRef, file: &DataFile) -> anyhow::Result<Vec<Self>> {
        let groups = RowGroups::open(log.object_store(None), file.to_read()).await?;
        let (mut parts, count) = (Vec::new(), groups.sizes().len());
        for (group, (rows, bytes)) in groups.sizes().enumerate() {
            let offsets = read_offsets_of(&groups, group).await?;
            let group = (count > 1).then_some(group);
            parts.push(Self { file: file.to_read(), group, rows, bytes, offsets });
        }
        Ok(parts)
    }

    /// About how many rows and bytes of it are in a window: as if all its offsets were equally large.
    pub(super) fn estimate(&self, window: &Ranges) -> (u64, u64) {
        let (mut all, mut inside) = (0, 0);
        for (log, held) in &self.offsets {
            all += held.len();
            if let Some(range) = window.get(log) {
                inside += (held.end.min(range.end) - held.start.max(range.start)).max(0);
            }
        }
        let share = inside as f64 / all.max(1) as f64;
        let of = |total: u64| (total as f64 * share).ceil() as u64;
        (of(self.rows), of(self.bytes))
    }
}

/// What to do about a file that cannot be read, for the context of the error.
pub(super) fn unreadable(what: &str, file: &FileToRead) -> String {
    format!(
        "{what} bronze file {} (if it is missing or damaged, `silverd repair bronze` reads its events again from Kafka)",
        file.path
    )
}

pub(super) fn overlaps_any(offsets: &BTreeMap<LogPartition, OffsetRange>, wanted: &Ranges) -> bool {
    wanted.iter().any(|(log, range)| offsets.get(log).is_some_and(|held| overlap(*held, range)))
}

fn overlap(a: OffsetRange, b: OffsetRange) -> bool {
    a.start < b.end && b.start < a.end
}

/// The Delta statistics of a Bronze file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    num_records: u64,
    min_values: Bounds,
    max_values: Bounds,
}

#[derive(Deserialize)]
struct Bounds {
    cluster_id: String,
    topic: String,
    partition: i32,
    offset: i64,
}

impl Stats {
    pub(crate) fn of(file: &DataFile) -> Option<Self> {
        serde_json::from_str(file.stats.as_deref()?).ok()
    }

    /// The offsets of a log partition between which the file may have records; `None` if it has none of it.
    pub(crate) fn offsets_of(&self, log: &LogPartition) -> Option<OffsetRange> {
        let (min, max) = (&self.min_values, &self.max_values);
        let may_have = (&*min.cluster_id..=&*max.cluster_id).contains(&&*log.cluster)
            && (&*min.topic..=&*max.topic).contains(&&*log.topic)
            && (min.partition..=max.partition).contains(&log.partition);
        (may_have && 0 <= min.offset && min.offset <= max.offset).then(|| OffsetRange::new(min.offset, max.offset + 1))
    }

    pub(crate) fn may_overlap(&self, wanted: &Ranges) -> bool {
        wanted.iter().any(|(log, range)| self.offsets_of(log).is_some_and(|held| overlap(held, range)))
    }

    /// If all records of a small file belong to one log partition, the statistics suffice to describe it. Assumes that
    /// its records take four times as many bytes in memory as on disk.
    fn single_partition(&self, file: &DataFile) -> Option<FilePart> {
        let (min, max) = (&self.min_values, &self.max_values);
        let one = min.cluster_id == max.cluster_id && min.topic == max.topic && min.partition == max.partition;
        let log = LogPartition::new(min.cluster_id.as_str(), min.topic.as_str(), min.partition);
        let offsets = BTreeMap::from([(log, OffsetRange::new(min.offset, max.offset + 1))]);
        let small = self.num_records <= ROW_GROUP_ROWS_MAX as u64 && file.size <= WHOLE_FILE_BYTES_MAX;
        let (rows, bytes) = (self.num_records, file.size * 4);
        let part = || FilePart { file: file.to_read(), group: None, rows, bytes, offsets };
        (one && small).then(part)
    }
}

/// The offsets of each log partition in a row group.
async fn read_offsets_of(groups: &RowGroups, group: usize) -> anyhow::Result<BTreeMap<LogPartition, OffsetRange>> {
    let names = [column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::OFFSET];
    let mut batches = groups.read(group, Some(&names))?;
    let mut found = BTreeMap::<LogPartition, OffsetRange>::new();
    while let Some(batch) = batches.try_next().await? {
        let text = |name: &str| -> anyhow::Result<_> {
            Ok(cast(batch.column_by_name(name).with_context(|| format!("no column {name}"))?, &DataType::Utf8)?)
        };
        let (clusters, topics) = (text(column::CLUSTER_ID)?, text(column::TOPIC)?);
        let (clusters, topics) = (clusters.as_string::<i32>(), topics.as_string::<i32>());
        let (partitions, offsets) = partitions_and_offsets(&batch)?;
        let mut last: Option<(LogPartition, OffsetRange)> = None;
        for row in 0..batch.num_rows() {
            let (partition, offset) = (partitions[row], offsets[row]);
            let same = last.as_ref().is_some_and(|(log, _)| {
                log.partition == partition && *log.cluster == *clusters.value(row) && *log.topic == *topics.value(row)
            });
            if !same {
                extend(&mut found, last.take());
                let log = LogPartition::new(clusters.value(row), topics.value(row), partition);
                last = Some((log, OffsetRange::new(offset, offset + 1)));
            } else if let Some((_, range)) = &mut last {
                *range = OffsetRange::new(range.start.min(offset), range.end.max(offset + 1));
            }
        }
        extend(&mut found, last);
    }
    Ok(found)
}

fn extend(found: &mut BTreeMap<LogPartition, OffsetRange>, more: Option<(LogPartition, OffsetRange)>) {
    if let Some((log, range)) = more {
        let held = found.entry(log).or_insert(range);
        *held = OffsetRange::new(held.start.min(range.start), held.end.max(range.end));
    }
}
