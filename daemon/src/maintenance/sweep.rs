//! Files that no version since a while ago has: replaced ones, and those that never came into a commit.

use std::path::Path as FilePath;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::room::Pace;
use crate::clock;
use crate::delta::{Files, LOG_FOLDER, Table};

/// How the folders of a table's days begin.
const DAYS: &str = "event_date=";

/// Files of a day that are looked at in one go: a day may have a million.
const LISTED: usize = 1_000;

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub files: u64,
    pub bytes: u64,
}

/// Removes data files that lie there for longer than `retention`, and that no version of this span has.
///
/// A file that a commit may be about to name is younger: writers put their files, then commit them; whoever may take long
/// between the two holds the table's [lease](crate::delta::Lease): a correction, and the widening of a column.
pub async fn sweep(
    table: &Table,
    folder: &FilePath,
    retention: Duration,
    rehearsal: bool,
    pace: &Pace,
) -> anyhow::Result<Swept> {
    let store = table.store();
    let since = clock::now_ms() - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    // The log first: what comes into it later was put there later, too.
    let mut files = Files::read(store.as_ref()).await.context("read the log")?;
    let mut begun = Instant::now();
    while files.look_back(store.as_ref(), since).await.context("read the log")? {
        pace.rest(begun.elapsed()).await?;
        begun = Instant::now();
    }
    let mut swept = Swept::default();
    let days = store.list_with_delimiter(None).await.context("list the table's folder")?;
    let at_top = days.objects.into_iter().map(anyhow::Ok);
    swept.take(store.as_ref(), &files, since, at_top.collect::<anyhow::Result<_>>()?, rehearsal).await?;
    for day in days.common_prefixes {
        // Another table may lie in this one's folder.
        if !day.filename().is_some_and(|name| name.starts_with(DAYS)) {
            continue;
        }
        let mut found = store.list(Some(&day)).try_chunks(LISTED);
        let mut begun = Instant::now();
        while let Some(some) = found.try_next().await.with_context(|| format!("list {day}"))? {
            swept.take(store.as_ref(), &files, since, some, rehearsal).await?;
            pace.rest(begun.elapsed()).await?;
            begun = Instant::now();
        }
        swept.cut_off(&folder.join(day.as_ref()), retention, rehearsal)?;
    }
    swept.cut_off(&folder.join(LOG_FOLDER), retention, rehearsal)?;
    Ok(swept)
}

impl Swept {
    async fn take(
        &mut self,
        store: &dyn ObjectStore,
        files: &Files,
        since: i64,
        found: Vec<ObjectMeta>,
        rehearsal: bool,
    ) -> anyhow::Result<()> {
        for file in found {
            let old = file.last_modified.timestamp_millis() < since;
            if !old || !is_data(&file.location) || files.keeps(&file.location, since) {
                continue;
            }
            if !rehearsal {
                match store.delete(&file.location).await {
                    // Another silverd was here.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(failure) => return Err(failure).with_context(|| format!("remove {}", file.location)),
                }
            }
            self.files += 1;
            self.bytes += file.size;
        }
        Ok(())
    }

    /// What a killed process left of a file that it was writing: the store hides it behind a `#` and a number.
    fn cut_off(&mut self, folder: &FilePath, retention: Duration, rehearsal: bool) -> anyhow::Result<()> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((whole, number)) = name.to_str().and_then(|name| name.rsplit_once('#')) else { continue };
            let ours = whole.ends_with(".parquet") || whole.ends_with(".json");
            if !ours || number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_none_or(|age| age < retention) {
                continue;
            }
            if !rehearsal {
                std::fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
            }
            self.files += 1;
            self.bytes += metadata.len();
        }
        Ok(())
    }
}

fn is_data(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.ends_with(".parquet") && !name.starts_with(['_', '.']))
}
