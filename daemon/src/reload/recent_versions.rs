//! Which plugin versions served a table last, from the newest commits of its log, back to the first one that is trusted.
//! So a restart needs no other state to know which version serves, and whether its canary period is over.
//!
//! | commits, oldest first        | the versions, newest first |
//! |------------------------------|----------------------------|
//! | v1 … v1                      | v1 |
//! | v1, v2 … v2 (trusted)        | v2 |
//! | v1, v2                       | v2, v1: the canary period of v2 is not over |
//! | v1, v2 (failed)              | v1 |
//! | v1, v2, v3 (failed), v2      | v2 of both spans, v1: v2 made the rows of v3 again |

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::get_actions;

use silverd_core::canary::is_trusted;
use silverd_core::counts::Counts;
use silverd_core::offsets::{OffsetRange, Ranges};

use crate::bronze::read_ranges;
use crate::delta::{PluginVersion, TableReader};
use crate::plugin::{Held, is_same_version};

/// Commits that are read at most: more than the canary period has, unless they have less than one event.
const COMMITS_MAX: u64 = 20_000;
/// Versions that are found at most: those that one worker compares with each other.
const VERSIONS_MAX: usize = 5;

/// A version that served a table.
#[derive(Clone, Debug)]
pub(crate) struct RecentVersion {
    pub(crate) version: PluginVersion,
    pub(crate) counts: Counts,
    /// The offsets that it has committed, and those of failed versions whose rows it made again.
    pub(crate) ranges: Ranges,
    first_at_ms: i64,
    last_at_ms: i64,
}

/// The versions that served a table last.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentVersions {
    /// The version of the last commit with progress, also if it failed; `None` if the log names none.
    pub(crate) last: Option<PluginVersion>,
    /// Those that did not fail, newest first. Each but the last one was in its canary period.
    pub(crate) good: Vec<RecentVersion>,
    /// What failed versions committed after the oldest of `good` did.
    of_failed: Vec<Ranges>,
}

/// A commit with progress.
struct Progress {
    version: PluginVersion,
    counts: Counts,
    ranges: Ranges,
    at_ms: i64,
}

impl RecentVersion {
    /// How long it served: from its first commit to its last one.
    pub(crate) fn served(&self) -> Duration {
        Duration::from_millis(self.last_at_ms.saturating_sub(self.first_at_ms).max(0).unsigned_abs())
    }

    /// Whether its canary period is over.
    pub(crate) fn is_trusted(&self) -> bool {
        is_trusted(self.counts.events, self.served())
    }
}

impl RecentVersions {
    /// Reads them from the log of the table in a folder.
    pub(crate) async fn read(table: &Path, held: &Held) -> anyhow::Result<Self> {
        let mut recent = Self::default();
        let Some(reader) = TableReader::open(table)? else { return Ok(recent) };
        let newest = reader.version().await?.unwrap_or(0);
        for version in (newest.saturating_sub(COMMITS_MAX)..=newest).rev() {
            let Some(bytes) = reader.log().read_commit_entry(version).await? else { break };
            let actions = get_actions(version, &bytes).with_context(|| format!("read commit {version}"))?;
            if let Some(progress) = Progress::of(actions)
                && !recent.add_earlier(progress, held)
            {
                break;
            }
        }
        Ok(recent)
    }

    /// Adds the commit before those that were added. False if no earlier one matters.
    fn add_earlier(&mut self, progress: Progress, held: &Held) -> bool {
        if self.last.is_none() {
            self.last = Some(progress.version.clone());
        }
        if held.failed(&progress.version).is_some() {
            self.of_failed.push(progress.ranges);
            return true;
        }
        let is_same = |found: &&mut RecentVersion| is_same_version(&found.version, &progress.version);
        match self.good.last_mut().filter(is_same) {
            Some(found) => {
                found.counts += progress.counts;
                found.first_at_ms = progress.at_ms;
                extend(&mut found.ranges, &progress.ranges);
            }
            None => {
                let Progress { version, counts, ranges, at_ms } = progress;
                self.good.push(RecentVersion { version, counts, ranges, first_at_ms: at_ms, last_at_ms: at_ms });
            }
        }
        let Some(found) = self.good.last_mut() else { return true };
        // It served when these failed, and made their rows again.
        self.of_failed.drain(..).for_each(|ranges| extend(&mut found.ranges, &ranges));
        self.good.len() < VERSIONS_MAX && !self.good.last().is_some_and(RecentVersion::is_trusted)
    }
}

impl Progress {
    /// `None` if the commit made no progress, or does not name a plugin.
    fn of(actions: Vec<Action>) -> Option<Self> {
        let (at_ms, silverd) = actions.into_iter().find_map(|action| match action {
            Action::CommitInfo(mut info) => Some((info.timestamp.unwrap_or(0), info.info.remove("silverd")?)),
            _ => None,
        })?;
        let digest = silverd["plugin"]["digest"].as_str()?.to_owned();
        let given = silverd["plugin"]["given"].as_str().map(str::to_owned);
        let ranges = read_ranges(&silverd["ranges"]);
        let counts = serde_json::from_value(silverd["counts"].clone()).unwrap_or_default();
        let progress = Self { version: PluginVersion { digest, given }, counts, ranges, at_ms };
        (!progress.ranges.is_empty()).then_some(progress)
    }
}

/// Adds ranges that touch those that are there.
fn extend(ranges: &mut Ranges, others: &Ranges) {
    for (log, other) in others.iter() {
        let range = match ranges.get(log) {
            Some(range) => OffsetRange::new(range.start.min(other.start), range.end.max(other.end)),
            None => other,
        };
        ranges.insert(log.clone(), range);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use serde_json::json;

    use super::*;

    const LOG: &str = "c:t:0";

    /// A commit of `events` events by a version, at this time.
    fn commit(version: &str, at_ms: i64, start: i64, events: i64) -> Vec<Action> {
        let counts =
            Counts { events: events as u64, with_rows: events as u64, rows: events as u64, ..Counts::default() };
        let silverd = json!({
            "ranges": { LOG: [start, start + events] },
            "counts": counts,
            "plugin": { "digest": version, "given": "g" },
        });
        let line = json!({ "commitInfo": { "timestamp": at_ms, "silverd": silverd } });
        vec![serde_json::from_value(line).unwrap()]
    }

    /// The versions of commits, oldest first, each of `(version, at_ms, events)`.
    fn recent(commits: &[(&str, i64, i64)], failed: &[&str]) -> RecentVersions {
        let failed: Vec<_> =
            failed.iter().map(|version| json!({ "digest": version, "given": "g", "why": "", "at_ms": 0 })).collect();
        let held: Held = serde_json::from_value(json!({ "failed": failed })).unwrap();
        let mut start = 0;
        let mut progress = Vec::new();
        for (version, at_ms, events) in commits {
            progress.push(Progress::of(commit(version, *at_ms, start, *events)).unwrap());
            start += events;
        }
        let mut recent = RecentVersions::default();
        while let Some(progress) = progress.pop() {
            if !recent.add_earlier(progress, &held) {
                break;
            }
        }
        recent
    }

    #[track_caller]
    fn check(commits: &[(&str, i64, i64)], failed: &[&str], expected: &[(&str, u64, [i64; 2])]) {
        let recent = recent(commits, failed);
        let log: silverd_core::offsets::LogPartition = LOG.parse().unwrap();
        let found = recent.good.iter().map(|found| {
            let range = found.ranges.get(&log).unwrap();
            (&*found.version.digest, found.counts.events, [range.start, range.end])
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!(recent.last.map(|last| last.digest).as_deref(), commits.last().map(|commit| commit.0));
    }

    #[test]
    fn versions_are_found_back_to_the_first_trusted_one() {
        const MINUTE: i64 = 60_000;
        check(&[], &[], &[]);
        check(&[("a", 0, 5)], &[], &[("a", 5, [0, 5])]);
        check(
            &[("a", 0, 9_000), ("b", 1, 20), ("b", 2, 30)],
            &[],
            &[("b", 50, [9_000, 9_050]), ("a", 9_000, [0, 9_000])],
        );
        // By its events, and by its time.
        check(&[("a", 0, 5), ("b", 1, 1), ("b", 2, 10_000)], &[], &[("b", 10_000, [6, 10_006])]);
        let slow = [("a", 0, 5), ("b", 0, 1), ("b", 9 * MINUTE, 60), ("b", 11 * MINUTE, 60)];
        check(&slow, &[], &[("b", 121, [5, 126])]);
        // A version that returns is another span.
        let back = [("a", 0, 10), ("b", 1, 20), ("a", 2, 30)];
        check(&back, &[], &[("a", 30, [30, 60]), ("b", 20, [10, 30]), ("a", 10, [0, 10])]);
    }

    #[test]
    fn versions_that_failed_do_not_count_and_the_one_before_answers_for_their_offsets() {
        check(&[("a", 0, 10), ("b", 1, 20)], &["b"], &[("a", 10, [0, 30])]);
        let back = [("a", 0, 10), ("b", 1, 20), ("a", 2, 30)];
        check(&back, &["b"], &[("a", 40, [0, 60])]);
        let canary = [("a", 0, 10_000), ("b", 1, 5), ("c", 2, 7), ("b", 3, 9)];
        check(&canary, &["c"], &[("b", 14, [10_000, 10_021]), ("a", 10_000, [0, 10_000])]);
        // Rolled back before it, so the oldest one made the rows again.
        check(&[("a", 0, 10), ("b", 1, 20), ("c", 2, 30)], &["b"], &[("c", 30, [30, 60]), ("a", 10, [0, 30])]);
        check(&[("a", 0, 10)], &["a"], &[]);
    }

    #[test]
    fn corrections_and_commits_of_others_are_no_progress() {
        let plugin = json!({ "digest": "a" });
        for info in [
            json!({ "timestamp": 1, "silverd": { "correction": { "kind": "undo" }, "plugin": plugin } }),
            json!({ "timestamp": 1, "silverd": { "ranges": {}, "plugin": plugin } }),
            json!({ "timestamp": 1, "operation": "OPTIMIZE" }),
        ] {
            let action = serde_json::from_value(json!({ "commitInfo": info })).unwrap();
            assert!(Progress::of(vec![action]).is_none());
        }
    }
}
