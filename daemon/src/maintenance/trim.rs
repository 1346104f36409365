//! The log's old entries: gone once a checkpoint holds what they said, and they are older than the log is kept for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::room::Pace;
use crate::clock;
use crate::delta::{LOG_FOLDER, read_whole_checkpoint};

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub entries: u64,
    pub checkpoints: u64,
    pub bytes: u64,
}

/// Of checkpoints that are behind others, one is left in so many versions: from it, the versions after it can be read.
const CHECKPOINT_EACH: u64 = 10_000;
/// For whoever reads the table right now, by a checkpoint that was the newest one.
const CHECKPOINT_LINGER: Duration = Duration::from_secs(60 * 60);

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

/// What is old enough to go, and all checkpoints: of the young entries, which are most, only where they begin.
struct Log {
    files: BTreeMap<u64, Vec<LogFile>>,
    /// The first version of which there is anything.
    first: u64,
    /// The first version whose entry is young.
    young: u64,
}

impl Log {
    fn new() -> Self {
        Self { files: BTreeMap::new(), first: u64::MAX, young: u64::MAX }
    }

    fn push(&mut self, version: u64, file: LogFile, since: i64) {
        self.first = self.first.min(version);
        if file.kind == Kind::Entry && file.modified_ms >= since {
            self.young = self.young.min(version);
        } else {
            self.files.entry(version).or_default().push(file);
        }
    }
}

/// Removes what is older than `retention`, and checkpoints that nobody needs.
pub async fn trim(
    store: &dyn ObjectStore,
    retention: Duration,
    rehearsal: bool,
    pace: &Pace,
) -> anyhow::Result<Trimmed> {
    let now = clock::now_ms();
    let kept_for = |span: Duration| now - i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let mut files = store.list(Some(&Path::from(LOG_FOLDER)));
    let mut log = Log::new();
    while let Some(file) = files.try_next().await.context("list the log")? {
        if let Some((version, kind)) = file.location.filename().and_then(parse) {
            let modified_ms = file.last_modified.timestamp_millis();
            let file = LogFile { path: file.location, kind, bytes: file.size, modified_ms };
            log.push(version, file, kept_for(retention));
        }
    }
    let base = base(&log);
    let mut gone = superfluous(&log, base, kept_for(CHECKPOINT_LINGER));
    if let Some(base) = base {
        // From here on the table must be readable without what goes.
        let whole = log.files[&base].iter().find(|file| file.kind == Kind::Checkpoint);
        let whole = whole.context("find the checkpoint")?;
        read_whole_checkpoint(store, &whole.path).await.with_context(|| format!("read {}", whole.path))?;
        gone.splice(0..0, log.files.range(..base).flat_map(|(_, files)| files.clone()));
    }
    let mut trimmed = Trimmed::default();
    for files in gone.chunks(256) {
        let begun = Instant::now();
        for file in files {
            if !rehearsal {
                match store.delete(&file.path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(failure) => return Err(failure).with_context(|| format!("remove {}", file.path)),
                }
            }
            trimmed.bytes += file.bytes;
            match file.kind {
                Kind::Entry => trimmed.entries += 1,
                Kind::Checkpoint | Kind::Other => trimmed.checkpoints += 1,
            }
        }
        pace.rest(begun.elapsed()).await?;
    }
    Ok(trimmed)
}

/// The checkpoint with which the log shall begin: the newest one before which all is old.
fn base(log: &Log) -> Option<u64> {
    let mut old = log.files.range(..log.young).rev();
    let base = old.find(|(_, files)| has_checkpoint(files)).map(|(version, _)| *version);
    // Nothing to remove before the first version that is there.
    base.filter(|base| log.files.range(..base).next().is_some())
}

fn has_checkpoint(files: &[LogFile]) -> bool {
    files.iter().any(|file| file.kind == Kind::Checkpoint)
}

/// Checkpoints behind `base` that are neither new nor the first of their stretch of versions.
fn superfluous(log: &Log, base: Option<u64>, since: i64) -> Vec<LogFile> {
    // A log that was trimmed before begins with its first checkpoint.
    let first = || log.files.iter().find(|(_, files)| has_checkpoint(files)).map(|(version, _)| *version);
    let begins = base.or_else(|| if log.first == 0 { None } else { first() });
    let mut last = begins.unwrap_or(0);
    let mut checkpoints: Vec<(u64, &LogFile)> = log
        .files
        .range(begins.map_or(0, |begins| begins + 1)..)
        .flat_map(|(version, files)| files.iter().map(|file| (*version, file)))
        .filter(|(_, file)| file.kind == Kind::Checkpoint)
        .collect();
    // The newest stays, whatever its age.
    checkpoints.pop();
    let mut gone = Vec::new();
    for (version, file) in checkpoints {
        if version / CHECKPOINT_EACH > last / CHECKPOINT_EACH {
            last = version;
        } else if file.modified_ms < since {
            gone.push(file.clone());
        }
    }
    gone
}

/// The version and kind of a file by its name: twenty digits, and what follows.
fn parse(name: &str) -> Option<(u64, Kind)> {
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

    /// A log of `versions` entries, one a second, with a checkpoint each `every`, of which the first ones were removed.
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
    fn the_log_begins_with_a_checkpoint_that_is_old_enough() {
        assert_eq!(base(&log(0, 1000, 200, 650_000)), Some(600));
        // Version 600 itself is too young: its predecessor is needed to read what was between.
        assert_eq!(base(&log(0, 1000, 200, 600_000)), Some(400));
        assert_eq!(base(&log(0, 1000, 200, 150_000)), None);
        assert_eq!(base(&log(0, 150, 200, i64::MAX)), None);
        assert_eq!(base(&log(0, 1000, 200, i64::MAX)), Some(800));
        // It begins there already.
        assert_eq!(base(&log(600, 1000, 200, 650_000)), None);
    }

    #[test]
    fn checkpoints_are_thinned_out() {
        let left = |log: &Log, base: Option<u64>, since: i64| {
            let gone = superfluous(log, base, since);
            let gone: Vec<_> = gone.iter().map(|file| file.path.clone()).collect();
            let all = log.files.iter().flat_map(|(version, files)| files.iter().map(move |file| (*version, file)));
            let checkpoints = all.filter(|(_, file)| file.kind == Kind::Checkpoint && !gone.contains(&file.path));
            checkpoints.map(|(version, _)| version).collect::<Vec<_>>()
        };
        // All entries are young.
        let long = log(0, 25_000, 1_000, i64::MIN);
        assert_eq!(left(&long, None, i64::MAX), [10_000, 20_000, 24_000]);
        assert_eq!(left(&long, None, 22_500_000), [10_000, 20_000, 23_000, 24_000]);
        let trimmed = log(12_000, 25_000, 1_000, i64::MIN);
        assert_eq!(left(&trimmed, Some(12_000), i64::MAX), [12_000, 20_000, 24_000]);
        assert_eq!(left(&trimmed, None, i64::MAX), [12_000, 20_000, 24_000]);
    }
}
