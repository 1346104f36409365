//! A data file that cannot be read, and what is in it: its day, and the offsets of its rows as the log knows them.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::entry::{Added, Entry, RangesInfo, read_bounds, read_ranges};
use crate::offsets::LogPartition;

/// A data file of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AffectedFile {
    pub file: String,
    /// The day of its rows.
    pub day: Option<String>,
    /// The offsets of its rows. Not each of them has a row in it.
    pub offsets: Vec<CoveredOffsets>,
    #[serde(skip)]
    pub owner: FileOwner,
}

/// The table that a file or a log belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOwner {
    Bronze,
    /// With its name.
    Silver(String),
    SideOutput,
}

/// Offsets of one log partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoveredOffsets {
    /// `cluster:topic:partition`; `*` where the file has several clusters or topics.
    pub partition: String,
    pub start: i64,
    /// Exclusive.
    pub end: i64,
}

/// More log partitions than that are not listed.
const PARTITIONS_MAX: usize = 100;
/// More than that are not shown in a text.
const PARTITIONS_SHOWN_MAX: usize = 8;

/// The offsets of a file's rows: those of the commit that added it, if it is known and has ranges, as far as the file's
/// statistics allow. Otherwise, as for a compacted file, the lowest and highest ones of the statistics.
pub fn covered_offsets(file: &str, commit: Option<&Entry>, stats: Option<&str>) -> Vec<CoveredOffsets> {
    let adds = |added: &Added| added.path == file;
    let ranges = commit.filter(|entry| entry.adds.iter().any(adds)).and_then(|entry| {
        let ranges = RangesInfo::deserialize(entry.info.get("ranges")?).ok()?;
        read_ranges(&ranges).ok()
    });
    let bounds = read_bounds(stats);
    match (ranges, bounds) {
        (Some(ranges), bounds) => {
            let covered = ranges.iter().filter_map(|(log, range)| {
                let (start, end) = match &bounds {
                    Some(bounds) if !bounds.has_partition(log) => return None,
                    Some(bounds) => (range.start.max(bounds.offsets.0), range.end.min(bounds.offsets.1 + 1)),
                    None => (range.start, range.end),
                };
                (start < end).then(|| CoveredOffsets { partition: log.to_string(), start, end })
            });
            covered.take(PARTITIONS_MAX).collect()
        }
        (None, Some(bounds)) => {
            let covered = |partition| CoveredOffsets {
                partition: format!("{}:{}:{partition}", bounds.cluster, bounds.topic),
                start: bounds.offsets.0,
                end: bounds.offsets.1 + 1,
            };
            (bounds.partitions.0..=bounds.partitions.1).take(PARTITIONS_MAX).map(covered).collect()
        }
        (None, None) => Vec::new(),
    }
}

/// The lowest and highest values of a file's statistics.
pub(super) struct FileBounds {
    /// `*` if there are several.
    pub(super) cluster: String,
    pub(super) topic: String,
    pub(super) partitions: (i64, i64),
    pub(super) offsets: (i64, i64),
}

impl FileBounds {
    fn has_partition(&self, log: &LogPartition) -> bool {
        let is_among = |found: &str, name: &str| found == "*" || found == name;
        is_among(&self.cluster, &log.cluster)
            && is_among(&self.topic, &log.topic)
            && (self.partitions.0..=self.partitions.1).contains(&i64::from(log.partition))
    }
}

impl FileOwner {
    /// What to do when the table's log has lost its progress.
    pub(super) fn help_with_lost_progress(&self) -> String {
        match self {
            Self::Bronze => "start silverd: it reads the offsets from Bronze's rows, and sets them again".to_owned(),
            Self::Silver(table) => format!(
                "`silverd rebuild {table}`, without days, makes all its rows again from Bronze, and sets its progress. \
                 Until then silverd does not write the table"
            ),
            Self::SideOutput => "stop silverd, move the table's folder away, and start silverd, which creates it again. \
                                 `silverd rebuild TABLE` of each Silver table finds its rejects again. Until then silverd \
                                 writes neither this table nor the Silver tables that send rows to it"
                .to_owned(),
        }
    }
}

/// The first of some offsets, and how many more there are.
pub(super) fn describe_offsets(offsets: &[CoveredOffsets]) -> Vec<String> {
    let shown = offsets.iter().take(PARTITIONS_SHOWN_MAX);
    let mut parts: Vec<_> =
        shown.map(|CoveredOffsets { partition, start, end }| format!("{partition} offsets {start}..{end}")).collect();
    match offsets.len().saturating_sub(PARTITIONS_SHOWN_MAX) {
        0 => {}
        more => parts.push(format!("and {more} more partitions")),
    }
    parts
}

impl AffectedFile {
    /// The name, the day and the offsets.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("file {}", self.file);
        let mut parts = Vec::new();
        parts.extend(self.day.as_ref().map(|day| format!("the day {day}")));
        parts.extend(describe_offsets(&self.offsets));
        if !parts.is_empty() {
            let _ = write!(text, " ({})", parts.join(", "));
        }
        text
    }

    /// What to do without the file.
    pub(super) fn help(&self) -> String {
        let restore = "restore the file from a backup. Without one";
        match (&self.owner, &self.day) {
            (FileOwner::Silver(table), Some(day)) => format!(
                "{restore}: `silverd rebuild {table} --from {day} --to {day}` makes the rows of that day again from Bronze"
            ),
            (FileOwner::Silver(table), None) => {
                format!("{restore}: `silverd rebuild {table}` makes the table's rows again from Bronze")
            }
            (FileOwner::Bronze, _) => format!(
                "{restore}: Kafka may still have the records of these offsets. `silverd repair bronze` reads them again, and \
                 records as lost what Kafka no longer has. Until then, do not rebuild the rows of these events: Silver \
                 tables keep those that they have"
            ),
            (FileOwner::SideOutput, _) => format!(
                "{restore}, its rows are lost. The events are in Bronze: `silverd rebuild` of a Silver table finds its \
                 rejects again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn commit(path: &str, info: serde_json::Value) -> Entry {
        let add = Added { path: path.to_owned(), rows: Some(1), data_change: true, bounds: None, day: None };
        Entry { adds: vec![add], info, ..Entry::default() }
    }

    fn stats(clusters: [&str; 2], partitions: (i64, i64), offsets: (i64, i64)) -> String {
        let [first, last] = clusters;
        json!({
            "numRecords": 3,
            "minValues": { "_cluster_id": first, "_topic": "t", "_partition": partitions.0, "_offset": offsets.0, "x": 1 },
            "maxValues": { "_cluster_id": last, "_topic": "t", "_partition": partitions.1, "_offset": offsets.1 },
        })
        .to_string()
    }

    #[track_caller]
    fn check(commit: Option<Entry>, stats: Option<String>, expected: &[&str]) {
        let covered = covered_offsets("f", commit.as_ref(), stats.as_deref());
        let shown = |covered: &CoveredOffsets| format!("{} {}..{}", covered.partition, covered.start, covered.end);
        assert_eq!(covered.iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn offsets_come_from_the_commit_within_the_statistics() {
        let ranges = || json!({ "ranges": { "c:t:0": [0, 10], "c:t:1": [5, 50], "c:t:7": [0, 9] } });
        let all = ["c:t:0 0..10", "c:t:1 5..50", "c:t:7 0..9"];
        check(Some(commit("f", ranges())), None, &all);
        let some = stats(["c", "c"], (0, 1), (3, 30));
        check(Some(commit("f", ranges())), Some(some.clone()), &["c:t:0 3..10", "c:t:1 5..31"]);
        // Another file's commit, or a compaction's, says nothing of this file.
        for other in [commit("g", ranges()), commit("f", json!({ "maintenance": {} })), commit("f", json!(null))] {
            check(Some(other), Some(some.clone()), &["c:t:0 3..31", "c:t:1 3..31"]);
        }
        check(None, Some(stats(["b", "c"], (2, 2), (3, 3))), &["*:t:2 3..4"]);
        check(None, Some("{}".to_owned()), &[]);
        check(None, Some("nonsense".to_owned()), &[]);
        check(Some(commit("f", json!({ "ranges": { "c:t:0": [9, 1] } }))), None, &[]);
    }

    #[test]
    fn bronze_and_silver_have_their_way_out() {
        let file = |owner: FileOwner, day: Option<&str>| AffectedFile {
            file: "f".to_owned(),
            day: day.map(str::to_owned),
            offsets: (0..9).map(|n| CoveredOffsets { partition: format!("c:t:{n}"), start: n, end: 20 }).collect(),
            owner,
        };
        let silver = file(FileOwner::Silver("views".to_owned()), Some("2025-03-02"));
        assert!(
            silver.help().contains("`silverd rebuild views --from 2025-03-02 --to 2025-03-02`"),
            "{}",
            silver.help()
        );
        let described = silver.describe();
        assert!(
            described.starts_with("file f (the day 2025-03-02, c:t:0 offsets 0..20, c:t:1 offsets 1..20"),
            "{described}"
        );
        assert!(described.ends_with("c:t:7 offsets 7..20, and 1 more partitions)"), "{described}");
        assert!(file(FileOwner::Silver("views".to_owned()), None).help().contains("`silverd rebuild views`"));
        assert!(file(FileOwner::Bronze, None).help().contains("Kafka may still have"));
        assert!(file(FileOwner::SideOutput, None).help().contains("its rows are lost"));
    }
}
