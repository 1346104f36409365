//! An entry of a Delta log, as far as verification needs it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::affected_file::FileBounds;
use super::attribution::{Lineage, PluginVersion};
use crate::chunk::column;
use crate::counts::Counts;
use crate::offsets::{LogPartition, OffsetRange, Ranges};

/// The actions of one version of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub version: u64,
    pub adds: Vec<Added>,
    pub removes: Vec<Removed>,
    pub txns: Vec<(String, i64)>,
    /// silverd's commit info; null in the commits of other writers.
    pub info: Value,
    /// Delta's id of the table, where the entry sets it.
    pub table_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    pub path: String,
    /// `None` if the statistics have no row count.
    pub rows: Option<u64>,
    pub data_change: bool,
    /// The lowest and highest partition and offset of the rows.
    pub bounds: Option<[(i64, i64); 2]>,
    /// The day of the rows, as the log spells it.
    pub day: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Removed {
    pub path: String,
    pub data_change: bool,
    /// The day of the rows, as the log spells it.
    pub day: Option<String>,
}

/// A file that a Silver commit announces to a side output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AnnouncedFile {
    pub path: String,
    pub rows: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PluginInfo {
    pub interface: String,
    pub digest: String,
    /// The digest of its settings and reference files.
    #[serde(default)]
    pub given: Option<String>,
    /// The version of the decoder, if its input is typed.
    #[serde(default)]
    pub decoder: Option<u32>,
}

impl SilverInfo {
    /// What made the rows of the commit.
    pub(super) fn version(&self) -> Lineage {
        let Some(PluginInfo { digest, given, decoder, .. }) = self.plugin.clone() else { return Lineage::default() };
        Lineage { plugin: PluginVersion { digest, given }, decoder }
    }
}

/// silverd's info in a Silver commit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SilverInfo {
    #[serde(default)]
    pub ranges: Option<RangesInfo>,
    #[serde(default)]
    pub counts: Option<Counts>,
    #[serde(default)]
    pub correction: Option<Correction>,
    #[serde(default)]
    pub plugin: Option<PluginInfo>,
    #[serde(default)]
    pub rejects: Option<AnnouncedFile>,
    #[serde(default)]
    pub late: Option<AnnouncedFile>,
}

/// The info of a correction: rows that were rebuilt.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Correction {
    pub kind: CorrectionKind,
    #[serde(default)]
    pub ranges: RangesInfo,
    /// Of an undo and a replay: exactly the events whose rows it wrote. Older versions of silverd wrote `ranges` alone,
    /// from the first to the last of them.
    #[serde(default)]
    pub event_ranges: Option<BTreeMap<String, Vec<(i64, i64)>>>,
    #[serde(default)]
    pub counts: Counts,
    /// Rejects that are new in the quarantine; the others are there already.
    #[serde(default)]
    pub quarantined: u64,
    /// The days of the replaced rows, since the epoch; `None` for all days.
    #[serde(default)]
    pub days: Option<(i32, i32)>,
    /// The rows of the removed files, and how many of them the added files contain again.
    #[serde(default)]
    pub removed: u64,
    #[serde(default)]
    pub kept: u64,
    /// The log had lost the table's progress. The commit sets it to the ends of the ranges, which start at offset 0.
    #[serde(default)]
    pub progress: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CorrectionKind {
    Rebuild,
    Undo,
    Replay,
    #[default]
    #[serde(other)]
    Unknown,
}

/// Ranges as the commit info has them: `{"cluster:topic:0": [0, 10]}`.
pub type RangesInfo = BTreeMap<String, (i64, i64)>;

pub fn read_ranges(ranges: &RangesInfo) -> Result<Ranges, String> {
    ranges.iter().map(|(log, range)| read_range(log, *range)).collect()
}

fn read_range(log: &str, (start, end): (i64, i64)) -> Result<(LogPartition, OffsetRange), String> {
    let log: LogPartition = log.parse().map_err(|error| format!("{error}"))?;
    if !(0 <= start && start <= end) {
        return Err(format!("[{start}, {end}] of {log} is not a valid range"));
    }
    Ok((log, OffsetRange::new(start, end)))
}

impl Correction {
    /// Exactly the events of an undo or a replay; `None` if the commit does not name them, or is another correction.
    pub(super) fn events(&self) -> Result<Option<Vec<(LogPartition, OffsetRange)>>, String> {
        let names_events = matches!(self.kind, CorrectionKind::Undo | CorrectionKind::Replay);
        let Some(events) = self.event_ranges.as_ref().filter(|_| names_events) else { return Ok(None) };
        let all = events.iter().flat_map(|(log, ranges)| ranges.iter().map(move |range| read_range(log, *range)));
        all.collect::<Result<_, _>>().map(Some)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    add: Option<AddLine>,
    remove: Option<RemoveLine>,
    txn: Option<TxnLine>,
    commit_info: Option<InfoLine>,
    meta_data: Option<MetaLine>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AddLine {
    path: String,
    stats: Option<String>,
    #[serde(default = "yes")]
    data_change: bool,
    partition_values: Option<PartitionValues>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RemoveLine {
    path: String,
    #[serde(default = "yes")]
    data_change: bool,
    partition_values: Option<PartitionValues>,
}

type PartitionValues = BTreeMap<String, Value>;

/// The day of a file's rows: its partition, which a removed file need not have in the log; then the name of its folder.
fn day_of_file(path: &str, values: Option<PartitionValues>) -> Option<String> {
    match values.and_then(|mut values| values.remove(column::EVENT_DATE)) {
        Some(Value::String(day)) => Some(day),
        Some(_) => None,
        None => {
            let folder = |part: &str| Some(part.strip_prefix(column::EVENT_DATE)?.strip_prefix('=')?.to_owned());
            path.split('/').find_map(folder)
        }
    }
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TxnLine {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
struct InfoLine {
    #[serde(default)]
    silverd: Value,
}

#[derive(Deserialize)]
struct MetaLine {
    id: String,
}

/// The part of Delta's statistics with the row count, partitions and offsets.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_records: Option<u64>,
    min_values: Bounds,
    max_values: Bounds,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bounds {
    #[serde(alias = "_partition")]
    partition: Option<i64>,
    #[serde(alias = "_offset")]
    offset: Option<i64>,
    #[serde(alias = "_cluster_id")]
    cluster_id: Option<String>,
    #[serde(alias = "_topic")]
    topic: Option<String>,
    #[serde(flatten)]
    _others: BTreeMap<String, IgnoredAny>,
}

/// The row count in a file's statistics, and the lowest and highest partition and offset.
fn read_stats(stats: Option<&str>) -> (Option<u64>, Option<[(i64, i64); 2]>) {
    let stats: Stats = stats.and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default();
    let (min, max) = (&stats.min_values, &stats.max_values);
    let both = |low: Option<i64>, high: Option<i64>| Some((low?, high?));
    let bounds = both(min.partition, max.partition).zip(both(min.offset, max.offset));
    (stats.num_records, bounds.map(|(partitions, offsets)| [partitions, offsets]))
}

/// The lowest and highest positions in a file's statistics.
pub(super) fn read_bounds(stats: Option<&str>) -> Option<FileBounds> {
    let stats: Stats = serde_json::from_str(stats?).ok()?;
    let (min, max) = (stats.min_values, stats.max_values);
    let one_of = |low: Option<String>, high: Option<String>| match (low, high) {
        (Some(low), Some(high)) if low == high => low,
        _ => "*".to_owned(),
    };
    Some(FileBounds {
        partitions: (min.partition?, max.partition?),
        offsets: (min.offset?, max.offset?),
        cluster: one_of(min.cluster_id, max.cluster_id),
        topic: one_of(min.topic, max.topic),
    })
}

/// The row count in a file's statistics.
pub(super) fn rows_of(stats: Option<&str>) -> Option<u64> {
    read_stats(stats).0
}

impl Entry {
    /// Reads an entry, which has one JSON action per line.
    pub fn parse(version: u64, text: &[u8]) -> Result<Self, String> {
        let mut entry = Self { version, ..Self::default() };
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let line: Line =
                serde_json::from_slice(line).map_err(|error| format!("the entry cannot be read: {error}"))?;
            if let Some(AddLine { path, stats, data_change, partition_values }) = line.add {
                let (rows, bounds) = read_stats(stats.as_deref());
                let day = day_of_file(&path, partition_values);
                entry.adds.push(Added { path, rows, data_change, bounds, day });
            }
            if let Some(RemoveLine { path, data_change, partition_values }) = line.remove {
                let day = day_of_file(&path, partition_values);
                entry.removes.push(Removed { path, data_change, day });
            }
            if let Some(txn) = line.txn {
                entry.txns.push((txn.app_id, txn.version));
            }
            if let Some(info) = line.commit_info {
                entry.info = info.silverd;
            }
            if let Some(metadata) = line.meta_data {
                entry.table_id = Some(metadata.id);
            }
        }
        Ok(entry)
    }

    /// Whether silverd sets application ids again that the log had lost, in a commit of its own.
    pub(super) fn restores_progress(&self) -> bool {
        self.info.get("maintenance").is_some_and(|maintenance| maintenance.get("restored").is_some())
    }

    /// Whether it is a correction that does so.
    pub(super) fn restarts(&self) -> bool {
        self.info["correction"]["progress"].as_bool().unwrap_or(false)
    }

    pub(super) fn txn(&self, app_id: &str) -> Option<i64> {
        self.txns.iter().find(|(id, _)| id == app_id).map(|(_, version)| *version)
    }
}
