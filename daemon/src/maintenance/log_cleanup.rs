//! Log cleanup: removes commits that are older than the log retention and covered by a checkpoint, and superfluous
//! checkpoints.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::error::MaintenanceError;
use super::throttle::Throttle;
use crate::delta::{LOG_FOLDER, sync_file, verify_checkpoint};
use crate::runtime::clock;

/// One checkpoint is kept in so many versions, from which the versions after it can be read.
const CHECKPOINT_SPACING: u64 = 10_000;
/// The minimum age of a removed checkpoint: a reader may just be opening the table by one that was the newest until
/// recently.
const CHECKPOINT_AGE_MIN: Duration = Duration::from_secs(60 * 60);
/// Files that are removed between two pauses.
const FILES_PER_STEP: usize = 256;

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanedUp {
    pub entries: u64,
    pub checkpoints: u64,
    pub bytes: u64,
}

/// Removes commits and checkpoints that are older than `retention`, and checkpoints that no reader needs.
pub(super) async fn clean_up_log(
    store: &dyn ObjectStore,
    folder: &FilePath,
    retention: Duration,
    dry_run: bool,
    throttle: &Throttle,
) -> Result<CleanedUp, MaintenanceError> {
    let now = clock::now_ms();
    let ago = |span: Duration| now - i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let log = list(store, ago(retention)).await?;
    let start = new_start(&log);
    let mut removed = superfluous_checkpoints(&log, start, ago(CHECKPOINT_AGE_MIN));
    if let Some(start) = start {
        // The table must be readable from this checkpoint on without what is removed.
        let checkpoint = log.files[&start].iter().find(|file| file.kind == Kind::Checkpoint);
        let checkpoint = checkpoint.context("find the checkpoint")?;
        verify_checkpoint(store, &checkpoint.path).await.with_context(|| format!("read {}", checkpoint.path))?;
        sync_file(folder.join(checkpoint.path.as_ref())).await?;
        removed.splice(0..0, log.files.range(..start).flat_map(|(_, files)| files.clone()));
    }
    let mut cleaned_up = CleanedUp::default();
    for files in removed.chunks(FILES_PER_STEP) {
        let started = Instant::now();
        for file in files {
            if !dry_run {
                match store.delete(&file.path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(failure) => Err(failure).with_context(|| format!("remove {}", file.path))?,
                }
            }
            cleaned_up.count(file);
        }
        throttle.pause_after(started.elapsed()).await?;
    }
    Ok(cleaned_up)
}

impl CleanedUp {
    fn count(&mut self, file: &LogFile) {
        self.bytes += file.bytes;
        match file.kind {
            Kind::Entry => self.entries += 1,
            Kind::Checkpoint | Kind::Other => self.checkpoints += 1,
        }
    }
}

/// A file of the log.
#[derive(Clone, Debug)]
struct LogFile {
    path: Path,
    kind: Kind,
    bytes: u64,
    modified_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Entry,
    /// In one file, as silverd writes them.
    Checkpoint,
    /// Other engines' checkpoints, checksums and the like.
    Other,
}

/// The files of a log that may be removed, and all checkpoints. Young commits are the majority; of them only the first
/// version is kept.
struct Log {
    files: BTreeMap<u64, Vec<LogFile>>,
    /// The oldest version that has any file.
    first: u64,
    /// The oldest version whose commit is within the retention.
    first_young: u64,
}

impl Log {
    fn new() -> Self {
        Self { files: BTreeMap::new(), first: u64::MAX, first_young: u64::MAX }
    }

    fn push(&mut self, version: u64, file: LogFile, since: i64) {
        self.first = self.first.min(version);
        if file.kind == Kind::Entry && file.modified_ms >= since {
            self.first_young = self.first_young.min(version);
        } else {
            self.files.entry(version).or_default().push(file);
        }
    }
}

async fn list(store: &dyn ObjectStore, since: i64) -> anyhow::Result<Log> {
    let mut files = store.list(Some(&Path::from(LOG_FOLDER)));
    let mut log = Log::new();
    while let Some(file) = files.try_next().await.context("list the log")? {
        if let Some((version, kind)) = file.location.filename().and_then(parse_name) {
            let modified_ms = file.last_modified.timestamp_millis();
            log.push(version, LogFile { path: file.location, kind, bytes: file.size, modified_ms }, since);
        }
    }
    Ok(log)
}

/// The checkpoint that becomes the start of the log: the newest one before which every commit is old.
fn new_start(log: &Log) -> Option<u64> {
    let mut old = log.files.range(..log.first_young).rev();
    let start = old.find(|(_, files)| has_checkpoint(files)).map(|(version, _)| *version);
    // There may be nothing to remove before it.
    start.filter(|start| log.files.range(..start).next().is_some())
}

fn has_checkpoint(files: &[LogFile]) -> bool {
    files.iter().any(|file| file.kind == Kind::Checkpoint)
}

/// Checkpoints after `start` that are neither younger than `since` nor the first of their [`CHECKPOINT_SPACING`]
/// versions.
fn superfluous_checkpoints(log: &Log, start: Option<u64>, since: i64) -> Vec<LogFile> {
    // A log that was cleaned up before starts with its first checkpoint.
    let first = || log.files.iter().find(|(_, files)| has_checkpoint(files)).map(|(version, _)| *version);
    let start = start.or_else(|| if log.first == 0 { None } else { first() });
    let mut last_kept = start.unwrap_or(0);
    let mut checkpoints: Vec<(u64, &LogFile)> = log
        .files
        .range(start.map_or(0, |start| start + 1)..)
        .flat_map(|(version, files)| files.iter().map(|file| (*version, file)))
        .filter(|(_, file)| file.kind == Kind::Checkpoint)
        .collect();
    // The newest one is always kept.
    checkpoints.pop();
    let mut superfluous = Vec::new();
    for (version, file) in checkpoints {
        if version / CHECKPOINT_SPACING > last_kept / CHECKPOINT_SPACING {
            last_kept = version;
        } else if file.modified_ms < since {
            superfluous.push(file.clone());
        }
    }
    superfluous
}

/// The version and kind of a file by its name: twenty digits, and an extension.
fn parse_name(name: &str) -> Option<(u64, Kind)> {
    let (digits, rest) = name.split_once('.')?;
    let version = (digits.len() == 20).then(|| digits.parse().ok())??;
    Some(match rest {
        "json" => (version, Kind::Entry),
        "checkpoint.parquet" => (version, Kind::Checkpoint),
        _ => (version, Kind::Other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with one commit a second and a checkpoint every `every` versions, whose commits before `first` were
    /// removed.
    fn log(first: u64, versions: u64, every: u64, since: i64) -> Log {
        let file = |kind, version: u64| LogFile {
            path: Path::from(format!("{version}-{kind:?}")),
            kind,
            bytes: 1,
            modified_ms: version as i64 * 1000,
        };
        let mut log = Log::new();
        for version in first..versions {
            log.push(version, file(Kind::Entry, version), since);
            if version > 0 && version.is_multiple_of(every) {
                log.push(version, file(Kind::Checkpoint, version), since);
            }
        }
        log
    }

    #[test]
    fn the_log_starts_at_the_newest_checkpoint_outside_the_retention() {
        assert_eq!(new_start(&log(0, 1000, 200, 650_000)), Some(600));
        // Version 600 itself is within the retention: the checkpoint before it is needed to read versions in between.
        assert_eq!(new_start(&log(0, 1000, 200, 600_000)), Some(400));
        assert_eq!(new_start(&log(0, 1000, 200, 150_000)), None);
        assert_eq!(new_start(&log(0, 150, 200, i64::MAX)), None);
        assert_eq!(new_start(&log(0, 1000, 200, i64::MAX)), Some(800));
        // The log starts there already.
        assert_eq!(new_start(&log(600, 1000, 200, 650_000)), None);
    }

    #[test]
    fn one_checkpoint_is_kept_per_spacing() {
        let kept = |log: &Log, start: Option<u64>, since: i64| {
            let removed = superfluous_checkpoints(log, start, since);
            let removed: Vec<_> = removed.iter().map(|file| file.path.clone()).collect();
            let all = log.files.iter().flat_map(|(version, files)| files.iter().map(move |file| (*version, file)));
            let kept = all.filter(|(_, file)| file.kind == Kind::Checkpoint && !removed.contains(&file.path));
            kept.map(|(version, _)| version).collect::<Vec<_>>()
        };
        // All commits are within the retention.
        let long = log(0, 25_000, 1_000, i64::MIN);
        assert_eq!(kept(&long, None, i64::MAX), [10_000, 20_000, 24_000]);
        assert_eq!(kept(&long, None, 22_500_000), [10_000, 20_000, 23_000, 24_000]);
        let cleaned_up = log(12_000, 25_000, 1_000, i64::MIN);
        assert_eq!(kept(&cleaned_up, Some(12_000), i64::MAX), [12_000, 20_000, 24_000]);
        assert_eq!(kept(&cleaned_up, None, i64::MAX), [12_000, 20_000, 24_000]);
    }
}
