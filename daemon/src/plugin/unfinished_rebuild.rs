//! What is left of a rollback: the rows of the version that failed, until the version before it has made them again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use crate::delta::PluginVersion;

/// Rows of a version that was rolled back, until another version has made them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnfinishedRebuild {
    failed: String,
    failed_given: Option<String>,
    by: String,
    by_given: Option<String>,
    /// Why the version failed.
    #[serde(rename = "why")]
    pub(crate) reason: String,
    /// The offsets that it committed, for each log partition `cluster:topic:partition`, end exclusive.
    ranges: BTreeMap<String, Vec<[i64; 2]>>,
    /// The version of the table after it. A later correction may have made the rows again.
    pub(crate) after_version: u64,
}

impl UnfinishedRebuild {
    /// The version `by` has to make the rows again of what `failed` committed.
    pub(crate) fn new(
        failed: &PluginVersion,
        by: &PluginVersion,
        reason: String,
        committed: &[Ranges],
        after_version: u64,
    ) -> Self {
        let mut ranges = BTreeMap::<String, Vec<[i64; 2]>>::new();
        for (log, range) in committed.iter().flat_map(Ranges::iter) {
            ranges.entry(log.to_string()).or_default().push([range.start, range.end]);
        }
        ranges.values_mut().for_each(merge_adjacent);
        let (failed, by) = (failed.clone(), by.clone());
        Self {
            failed: failed.digest,
            failed_given: failed.given,
            by: by.digest,
            by_given: by.given,
            reason,
            ranges,
            after_version,
        }
    }

    pub(crate) fn failed(&self) -> PluginVersion {
        PluginVersion { digest: self.failed.clone(), given: self.failed_given.clone() }
    }

    pub(crate) fn by(&self) -> PluginVersion {
        PluginVersion { digest: self.by.clone(), given: self.by_given.clone() }
    }

    /// The offsets that the failed version committed.
    pub(crate) fn committed(&self) -> Vec<Ranges> {
        let mut committed = Vec::new();
        for (log, ranges) in &self.ranges {
            let Ok(log) = log.parse::<LogPartition>() else { continue };
            let one = |[start, end]: &[i64; 2]| Ranges::from_iter([(log.clone(), OffsetRange::new(*start, *end))]);
            committed.extend(ranges.iter().map(one));
        }
        committed
    }
}

/// Sorts ranges of one log partition, and joins those without a gap between them.
fn merge_adjacent(ranges: &mut Vec<[i64; 2]>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let joins = next[0] <= range[1];
        if joins {
            range[1] = range[1].max(next[1]);
        }
        joins
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn offsets_without_gaps_are_one_range() {
        let (log, other) = (LogPartition::new("c", "t", 0), LogPartition::new("c", "t", 1));
        let range = |start, end| OffsetRange::new(start, end);
        let committed = [
            Ranges::from_iter([(log.clone(), range(9, 12))]),
            Ranges::from_iter([(log.clone(), range(5, 9)), (other.clone(), range(0, 1))]),
            Ranges::from_iter([(log.clone(), range(20, 30))]),
        ];
        let version = |digest: &str| PluginVersion { digest: digest.to_owned(), given: Some("g".to_owned()) };
        let rebuild = UnfinishedRebuild::new(&version("bad"), &version("good"), "it traps".to_owned(), &committed, 7);
        let merged = [(&log, range(5, 12)), (&log, range(20, 30)), (&other, range(0, 1))];
        let merged = merged.map(|(log, range)| Ranges::from_iter([(log.clone(), range)]));
        assert_eq!(rebuild.committed(), merged);
        let stored: UnfinishedRebuild = serde_json::from_str(&serde_json::to_string(&rebuild).unwrap()).unwrap();
        assert_eq!(stored, rebuild);
        assert_eq!((stored.failed(), stored.by()), (version("bad"), version("good")));
    }
}
