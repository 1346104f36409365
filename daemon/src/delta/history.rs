//! Which plugin wrote which offsets of a table, from the commit info in the table's log.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use anyhow::Context;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use silverd_core::counts::Counts;

use super::location::open_log;
use super::log::{LOG_FOLDER, newest_version, version_of_commit};

/// Commits that are searched for the last plugin.
const COMMITS_MAX: u64 = 1_000;

/// Consecutive commits of the same plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PluginSpan {
    /// SHA-256 of the plugin's file.
    pub digest: String,
    pub interface: String,
    pub first_version: u64,
    pub last_version: u64,
    pub commits: u64,
    /// Milliseconds since the epoch.
    pub first_at_ms: i64,
    pub last_at_ms: i64,
    /// The first and the last offset of each log partition `cluster:topic:partition`, end exclusive.
    pub ranges: BTreeMap<String, [i64; 2]>,
    pub counts: Counts,
}

/// The spans of a table, oldest first, as far back as its log reaches.
pub(crate) async fn plugin_history(store: &dyn ObjectStore) -> anyhow::Result<Vec<PluginSpan>> {
    let files: Vec<_> = store.list(Some(&Path::from(LOG_FOLDER))).map_ok(|meta| meta.location).try_collect().await?;
    let mut commits: Vec<_> = files.into_iter().filter_map(|path| Some((version_of_commit(&path)?, path))).collect();
    commits.sort();
    let mut spans = Vec::new();
    for (version, path) in commits {
        let bytes = store.get(&path).await?.bytes().await?;
        add_commit(&mut spans, version, &bytes).with_context(|| format!("read commit {path}"))?;
    }
    Ok(spans)
}

/// The digest of the plugin that made the newest progress of the table in a folder; `None` if there is no table, or if its
/// log does not say, or no longer does.
pub(crate) async fn last_plugin(table: &FilePath) -> anyhow::Result<Option<String>> {
    let Some(log) = open_log(table)? else { return Ok(None) };
    let newest = newest_version(log.object_store(None).as_ref()).await?.unwrap_or(0);
    for version in (newest.saturating_sub(COMMITS_MAX)..=newest).rev() {
        let Some(bytes) = log.read_commit_entry(version).await? else { return Ok(None) };
        let mut spans = Vec::new();
        add_commit(&mut spans, version, &bytes).with_context(|| format!("read commit {version}"))?;
        // A correction makes no progress, and its plugin need not be the active one.
        if let Some(span) = spans.pop().filter(|span| !span.ranges.is_empty()) {
            return Ok(Some(span.digest));
        }
    }
    Ok(None)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize)]
struct CommitInfo {
    #[serde(default)]
    timestamp: i64,
    silverd: Option<SilverdInfo>,
}

/// What a worker writes into a commit's info; see "Commit info" in docs/ARCHITECTURE.md.
#[derive(Deserialize)]
struct SilverdInfo {
    #[serde(default)]
    ranges: BTreeMap<String, [i64; 2]>,
    #[serde(default)]
    counts: Counts,
    plugin: Option<PluginInfo>,
}

#[derive(Deserialize)]
struct PluginInfo {
    digest: String,
    #[serde(default)]
    interface: String,
}

fn add_commit(spans: &mut Vec<PluginSpan>, version: u64, commit: &[u8]) -> anyhow::Result<()> {
    let needle = memchr::memmem::Finder::new(b"\"commitInfo\"");
    for line in commit.split(|byte| *byte == b'\n').filter(|line| needle.find(line).is_some()) {
        let Some(CommitInfo { timestamp, silverd: Some(SilverdInfo { ranges, counts, plugin: Some(plugin) }) }) =
            serde_json::from_slice::<Line>(line)?.commit_info
        else {
            continue;
        };
        let same = spans.last_mut().filter(|span| span.digest == plugin.digest && span.interface == plugin.interface);
        let span = match same {
            Some(span) => span,
            None => {
                spans.push(PluginSpan {
                    digest: plugin.digest,
                    interface: plugin.interface,
                    first_version: version,
                    last_version: version,
                    commits: 0,
                    first_at_ms: timestamp,
                    last_at_ms: timestamp,
                    ranges: BTreeMap::new(),
                    counts: Counts::default(),
                });
                let last = spans.len() - 1;
                &mut spans[last]
            }
        };
        span.commits += 1;
        span.last_version = version;
        span.last_at_ms = timestamp;
        span.counts += counts;
        for (log, [start, end]) in ranges {
            let range = span.ranges.entry(log).or_insert([start, end]);
            *range = [range[0].min(start), range[1].max(end)];
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    fn commit(digest: &str, start: i64, end: i64, rows: u64) -> String {
        let counts = serde_json::to_value(Counts { events: rows, with_rows: rows, rows, ..Counts::default() }).unwrap();
        let info = serde_json::json!({ "commitInfo": { "timestamp": start, "silverd": {
            "ranges": { "c:t:0": [start, end] }, "counts": counts, "rejects": null,
            "plugin": { "interface": "shop:silver/a@0.1.0", "digest": digest } } } });
        format!("{info}\n{{\"txn\":{{\"appId\":\"x\",\"version\":1}}}}\n")
    }

    #[test]
    fn consecutive_commits_of_a_plugin_are_one_span() {
        let mut spans = Vec::new();
        let optimize = "{\"commitInfo\":{\"timestamp\":9,\"operation\":\"OPTIMIZE\"}}\n".to_owned();
        let commits =
            [commit("a", 0, 10, 9), commit("a", 10, 20, 1), optimize, commit("b", 20, 25, 5), commit("a", 25, 30, 5)];
        for (version, text) in commits.iter().enumerate() {
            add_commit(&mut spans, version as u64, text.as_bytes()).unwrap();
        }
        let shown: Vec<_> = spans
            .iter()
            .map(|span| (&*span.digest, span.first_version, span.last_version, span.ranges["c:t:0"], span.counts.rows))
            .collect();
        assert_eq!(shown, [("a", 0, 1, [0, 20], 10), ("b", 3, 3, [20, 25], 5), ("a", 4, 4, [25, 30], 5)]);
        assert_eq!((spans[0].commits, spans[0].first_at_ms, spans[0].last_at_ms), (2, 0, 10));
    }
}
