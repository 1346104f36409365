//! Which plugin wrote which offsets of a table, and which served at a time, from the commit info in the table's log.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use silverd_core::counts::Counts;
pub(crate) use silverd_core::verify::PluginVersion;

use super::location::open_log;
use super::log::{LOG_FOLDER, LogFiles, list_log, newest_version, version_of_commit};

/// Commits that are searched for the last plugin.
const COMMITS_MAX: u64 = 1_000;

/// Consecutive commits of the same plugin version with the same settings and reference files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PluginSpan {
    /// SHA-256 of the plugin's file.
    pub digest: String,
    /// SHA-256 of its settings and reference files; `None` in commits of older versions of silverd.
    pub given: Option<String>,
    pub interface: String,
    pub first_version: u64,
    pub last_version: u64,
    pub commits: u64,
    /// Milliseconds since the epoch.
    pub first_at_ms: i64,
    pub last_at_ms: i64,
    /// The first and the last offset of each log partition `cluster:topic:partition`, end exclusive.
    pub ranges: BTreeMap<String, [i64; 2]>,
    /// Of new events. Those that corrections transformed again are in `corrections`.
    pub counts: Counts,
    /// What corrections did, by their kind: `rebuild`, `undo`, `replay`.
    pub corrections: BTreeMap<String, Corrected>,
}

impl PluginSpan {
    pub(crate) fn version(&self) -> PluginVersion {
        PluginVersion { digest: self.digest.clone(), given: self.given.clone() }
    }
}

/// What corrections of one kind did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Corrected {
    pub commits: u64,
    pub counts: Counts,
}

/// The version of a plugin that served a table at a time, as the log shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedVersion {
    pub(crate) plugin: PluginVersion,
    /// The version of the decoder, if the commit names one.
    pub(crate) decoder: Option<u32>,
    /// The version of the table whose commit names it, and the time of that commit.
    pub(crate) commit: u64,
    pub(crate) committed_at_ms: i64,
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

/// The plugin version that made the newest progress of the table in a folder; `None` if there is no table, or if its log
/// does not say, or no longer does.
pub(crate) async fn last_plugin(table: &FilePath) -> anyhow::Result<Option<PluginVersion>> {
    let Some(log) = open_log(table)? else { return Ok(None) };
    let newest = newest_version(log.object_store(None).as_ref()).await?.unwrap_or(0);
    for version in (newest.saturating_sub(COMMITS_MAX)..=newest).rev() {
        let Some(bytes) = log.read_commit_entry(version).await? else { return Ok(None) };
        let mut spans = Vec::new();
        add_commit(&mut spans, version, &bytes).with_context(|| format!("read commit {version}"))?;
        // A correction makes no progress, and its plugin need not be the active one.
        if let Some(span) = spans.pop().filter(|span| !span.ranges.is_empty()) {
            return Ok(Some(span.version()));
        }
    }
    Ok(None)
}

/// The version of its plugin that served the table in a folder at a time: the one that the last commit with progress until
/// then names. If the clock was set back, the order of the commits counts.
///
/// # Errors
///
/// If there is no table, or if its log names no version that early. The error says from when on it does.
pub(crate) async fn serving_at(table: &FilePath, at_ms: i64) -> anyhow::Result<ServedVersion> {
    let Some(log) = open_log(table)? else { bail!("there is no table in {} yet", table.display()) };
    served_at(log.object_store(None).as_ref(), at_ms).await
}

async fn served_at(store: &dyn ObjectStore, at_ms: i64) -> anyhow::Result<ServedVersion> {
    let LogFiles { commits, checkpoints } = list_log(store).await?;
    let newest = commits.keys().chain(checkpoints.keys()).max().copied().unwrap_or(0);
    let commits: Vec<(u64, Path)> = commits.into_iter().collect();
    // The log of a week may have several hundred thousand commits. Those before `later` were made until then.
    let (mut low, mut later) = (0, commits.len());
    while low < later {
        let middle = low + (later - low) / 2;
        match committed_at(store, &commits[..=middle]).await? {
            time if time <= at_ms => low = middle + 1,
            _ => later = middle,
        }
    }
    let (until_then, after) = commits.split_at(later);
    if let Some(served) = first_served(store, until_then.iter().rev()).await? {
        return Ok(served);
    }
    let since = match first_served(store, after.iter()).await? {
        Some(first) => format!("the first version that it names served from {} on", time_text(first.committed_at_ms)),
        None => "it names none later, either".to_owned(),
    };
    let is_cleaned_up = (commits.len() as u64) < newest + 1;
    let reach = match (is_cleaned_up, commits.first()) {
        (false, _) => "no entry was cleaned up".to_owned(),
        (true, None) => "all entries were cleaned up".to_owned(),
        (true, Some((oldest, path))) => {
            let time = read_info(store, path).await?.and_then(|info| info.timestamp);
            let at = time.map(|time| format!(", of {}", time_text(time))).unwrap_or_default();
            format!("earlier entries were cleaned up: the oldest one is {oldest}{at}")
        }
    };
    bail!("the log names no version that served at {}: {since} ({reach})", time_text(at_ms))
}

/// When the last of these commits was made. One of another writer may lack the time: then that of the one before it counts.
async fn committed_at(store: &dyn ObjectStore, commits: &[(u64, Path)]) -> anyhow::Result<i64> {
    for (_, path) in commits.iter().rev() {
        if let Some(time) = read_info(store, path).await?.and_then(|info| info.timestamp) {
            return Ok(time);
        }
    }
    Ok(i64::MIN)
}

/// The version that the first of these commits with progress names.
async fn first_served<'c>(
    store: &dyn ObjectStore,
    commits: impl Iterator<Item = &'c (u64, Path)>,
) -> anyhow::Result<Option<ServedVersion>> {
    for (version, path) in commits {
        // A correction makes no progress, and its plugin need not be the active one.
        if let Some(CommitInfo { timestamp, silverd: Some(SilverdInfo { ranges, plugin: Some(plugin), .. }) }) =
            read_info(store, path).await?
            && !ranges.is_empty()
        {
            return Ok(Some(ServedVersion {
                plugin: PluginVersion { digest: plugin.digest, given: plugin.given },
                decoder: plugin.decoder,
                commit: *version,
                committed_at_ms: timestamp.unwrap_or_default(),
            }));
        }
    }
    Ok(None)
}

async fn read_info(store: &dyn ObjectStore, commit: &Path) -> anyhow::Result<Option<CommitInfo>> {
    let read = async { commit_info(&store.get(commit).await?.bytes().await?) };
    read.await.with_context(|| format!("read commit {commit}"))
}

/// A time as `--as-of` takes it.
fn time_text(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize)]
struct CommitInfo {
    timestamp: Option<i64>,
    silverd: Option<SilverdInfo>,
}

/// What a worker writes into a commit's info; see "Commit info" in docs/commit-protocol.md.
#[derive(Deserialize)]
struct SilverdInfo {
    #[serde(default)]
    ranges: BTreeMap<String, [i64; 2]>,
    #[serde(default)]
    counts: Counts,
    correction: Option<CorrectionInfo>,
    plugin: Option<PluginInfo>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CorrectionInfo {
    kind: String,
    counts: Counts,
}

#[derive(Deserialize)]
struct PluginInfo {
    digest: String,
    #[serde(default)]
    given: Option<String>,
    #[serde(default)]
    decoder: Option<u32>,
    #[serde(default)]
    interface: String,
}

/// The commit info of an entry; `None` if it has none.
fn commit_info(commit: &[u8]) -> anyhow::Result<Option<CommitInfo>> {
    let needle = memchr::memmem::Finder::new(b"\"commitInfo\"");
    for line in commit.split(|byte| *byte == b'\n').filter(|line| needle.find(line).is_some()) {
        if let Some(info) = serde_json::from_slice::<Line>(line)?.commit_info {
            return Ok(Some(info));
        }
    }
    Ok(None)
}

fn add_commit(spans: &mut Vec<PluginSpan>, version: u64, commit: &[u8]) -> anyhow::Result<()> {
    let Some(CommitInfo { timestamp, silverd: Some(info) }) = commit_info(commit)? else { return Ok(()) };
    let SilverdInfo { ranges, counts, correction, plugin: Some(plugin) } = info else { return Ok(()) };
    let timestamp = timestamp.unwrap_or_default();
    let is_same = |span: &&mut PluginSpan| {
        (&span.digest, &span.given, &span.interface) == (&plugin.digest, &plugin.given, &plugin.interface)
    };
    let same = spans.last_mut().filter(is_same);
    let span = match same {
        Some(span) => span,
        None => {
            spans.push(PluginSpan {
                digest: plugin.digest,
                given: plugin.given,
                interface: plugin.interface,
                first_version: version,
                last_version: version,
                commits: 0,
                first_at_ms: timestamp,
                last_at_ms: timestamp,
                ranges: BTreeMap::new(),
                counts: Counts::default(),
                corrections: BTreeMap::new(),
            });
            let last = spans.len() - 1;
            &mut spans[last]
        }
    };
    span.commits += 1;
    span.last_version = version;
    span.last_at_ms = timestamp;
    span.counts += counts;
    if let Some(CorrectionInfo { kind, counts }) = correction {
        let corrected = span.corrections.entry(kind).or_default();
        corrected.commits += 1;
        corrected.counts += counts;
    }
    for (log, [start, end]) in ranges {
        let range = span.ranges.entry(log).or_insert([start, end]);
        *range = [range[0].min(start), range[1].max(end)];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    fn commit(digest: &str, start: i64, end: i64, rows: u64) -> String {
        commit_given(digest, None, start, end, rows)
    }

    /// A commit whose time is its first offset.
    fn commit_given(digest: &str, given: Option<&str>, start: i64, end: i64, rows: u64) -> String {
        let counts = serde_json::to_value(Counts { events: rows, with_rows: rows, rows, ..Counts::default() }).unwrap();
        let info = serde_json::json!({ "commitInfo": { "timestamp": start, "silverd": {
            "ranges": { "c:t:0": [start, end] }, "counts": counts, "rejects": null,
            "plugin": { "interface": "shop:silver/a@0.1.0", "digest": digest, "given": given } } } });
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

    #[test]
    fn corrections_count_by_themselves() {
        let counts = serde_json::to_value(Counts { events: 30, with_rows: 30, rows: 40, ..Counts::default() }).unwrap();
        let correction = |kind: &str| {
            let info =
                serde_json::json!({ "correction": { "kind": kind, "counts": counts }, "plugin": { "digest": "b" } });
            serde_json::json!({ "commitInfo": { "timestamp": 1, "silverd": info } }).to_string()
        };
        let commits = [commit("a", 0, 10, 9), correction("rebuild"), correction("undo"), correction("rebuild")];
        let mut spans = Vec::new();
        for (version, text) in commits.iter().enumerate() {
            add_commit(&mut spans, version as u64, text.as_bytes()).unwrap();
        }
        let [_, span] = &spans[..] else { panic!("{spans:?}") };
        let corrected = |kind: &str| (span.corrections[kind].commits, span.corrections[kind].counts.rows);
        assert_eq!((span.commits, span.counts), (3, Counts::default()));
        assert_eq!((corrected("rebuild"), corrected("undo")), ((2, 80), (1, 40)));
    }

    #[test]
    fn other_settings_begin_a_span() {
        let mut spans = Vec::new();
        for (version, given) in ["one", "one", "two", "one"].into_iter().enumerate() {
            let (start, end) = (version as i64 * 10, version as i64 * 10 + 10);
            let text = commit_given("a", Some(given), start, end, 1);
            add_commit(&mut spans, version as u64, text.as_bytes()).unwrap();
        }
        let shown: Vec<_> = spans.iter().map(|span| (span.given.as_deref(), span.first_version)).collect();
        assert_eq!(shown, [(Some("one"), 0), (Some("two"), 2), (Some("one"), 3)]);
    }

    /// A log that begins with this version.
    async fn log(first: u64, commits: &[String]) -> object_store::memory::InMemory {
        let store = object_store::memory::InMemory::new();
        for (version, text) in (first..).zip(commits) {
            store.put(&crate::delta::entry_path(version), text.clone().into_bytes().into()).await.unwrap();
        }
        store
    }

    /// The digest, the settings and the commit of the version that served, or the error.
    async fn served(store: &dyn ObjectStore, at_ms: i64) -> String {
        match served_at(store, at_ms).await {
            Ok(ServedVersion { plugin: PluginVersion { digest, given }, commit, .. }) => {
                format!("{digest} {} {commit}", given.unwrap_or_default())
            }
            Err(error) => format!("{error:#}"),
        }
    }

    #[tokio::test]
    async fn the_version_that_served_is_found_by_time() {
        let create = "{\"commitInfo\":{\"timestamp\":5,\"operation\":\"CREATE TABLE\"}}\n".to_owned();
        let of_others = |time: &str| format!("{{\"commitInfo\":{{{time}\"operation\":\"OPTIMIZE\"}}}}\n");
        let correction =
            "{\"commitInfo\":{\"timestamp\":45,\"silverd\":{\"correction\":{},\"plugin\":{\"digest\":\"z\"}}}}\n";
        let commits = [
            create,
            commit_given("a", Some("one"), 10, 20, 1),
            of_others("\"timestamp\":15,"),
            commit_given("a", Some("two"), 20, 30, 1),
            of_others(""),
            commit("b", 30, 40, 1),
            correction.to_owned(),
        ];
        let store = log(0, &commits).await;
        for (at_ms, expected) in
            [(10, "a one 1"), (19, "a one 1"), (20, "a two 3"), (29, "a two 3"), (30, "b  5"), (1_000, "b  5")]
        {
            assert_eq!(served(&store, at_ms).await, expected, "{at_ms}");
        }
        assert_eq!(
            served(&store, 9).await,
            "the log names no version that served at 1970-01-01T00:00:00.009Z: the first version that it names served from \
             1970-01-01T00:00:00.010Z on (no entry was cleaned up)"
        );
        let cleaned_up = log(4, &commits[4..]).await;
        assert_eq!(
            served(&cleaned_up, 29).await,
            "the log names no version that served at 1970-01-01T00:00:00.029Z: the first version that it names served from \
             1970-01-01T00:00:00.030Z on (earlier entries were cleaned up: the oldest one is 4)"
        );
        let dated = log(5, &commits[5..]).await;
        assert!(served(&dated, 29).await.ends_with("the oldest one is 5, of 1970-01-01T00:00:00.030Z)"));
        dated.delete(&crate::delta::entry_path(5)).await.unwrap();
        dated.delete(&crate::delta::entry_path(6)).await.unwrap();
        let checkpoint = Path::from("_delta_log/00000000000000000006.checkpoint.parquet");
        dated.put(&checkpoint, Vec::new().into()).await.unwrap();
        assert!(served(&dated, 29).await.ends_with("it names none later, either (all entries were cleaned up)"));
        // The clock was set back after the second commit: one of the times at which it showed 22 counts.
        let set_back = [commit("a", 10, 20, 1), commit("b", 40, 50, 1), commit("c", 20, 30, 1), commit("d", 30, 40, 1)];
        assert!(["a  0", "c  2"].contains(&&*served(&log(0, &set_back).await, 22).await));
        assert_eq!(served(&log(0, &set_back).await, 50).await, "d  3");
    }
}
