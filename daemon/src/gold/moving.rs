//! A Gold table whose days become those of another zone: all days are computed, some with each request, and replace the
//! whole table in one commit. Until then readers have the old days.

use std::collections::BTreeSet;

use anyhow::anyhow;
use chrono::NaiveDate;
use serde_json::json;
use silverd_core::zone::Zone;
use tracing::debug;

use super::model::{COMMITS, Model, OpenTable, Progress, Refreshed, Scope, Source};
use crate::delta::{Change, CommitError, DataFile, NewFile, list_files};
use crate::sql::QueryError;
use crate::sql::process::Notes;

/// How often the commit is tried if maintenance changes the table's files first.
const COMMIT_TRIES_MAX: usize = 5;

/// What is computed so far. It is lost after an error, and with the process: the files are not committed.
pub(super) struct Moving {
    /// The sources' versions when it began: days that change later are computed again afterwards.
    progress: Progress,
    /// The days that are left.
    days: BTreeSet<NaiveDate>,
    done: BTreeSet<NaiveDate>,
    files: Vec<NewFile>,
}

impl Model {
    /// Computes the next days, and commits when none is left.
    pub(super) async fn move_to(
        &mut self,
        zone: Zone,
        open: &mut OpenTable,
        sources: &[Source],
        scope: &Scope,
        notes: &Notes<BTreeSet<NaiveDate>>,
    ) -> Result<Refreshed, QueryError> {
        if let Some(day) = scope.skip.first() {
            return Err(anyhow!(
                "{day} cannot be computed, so the table keeps the days that it has: all of them are replaced by those in {zone} \
                 at once"
            )
            .into());
        }
        let mut moving = match open.moving.take() {
            Some(moving) => moving,
            None => self.start_moving(open, sources).await?,
        };
        for source in sources {
            // Fails if a source has moved to yet another zone meanwhile.
            self.version_of(source, moving.progress.sources.get(&source.name)).await?;
        }
        let days: BTreeSet<_> = moving.days.iter().rev().take(scope.days_max).copied().collect();
        let mut refreshed = Refreshed { days: days.len(), ..Refreshed::default() };
        if !days.is_empty() {
            notes.send(days.clone()).map_err(anyhow::Error::from)?;
            let (files, failed) = self.compute(open, sources, &days).await?;
            if let Some((day, failure)) = failed.into_iter().next() {
                return Err(anyhow!(
                    "{day}: {failure}; until all days are computed, the table keeps those that it has"
                )
                .into());
            }
            refreshed.rows = files.iter().map(NewFile::rows).sum();
            moving.files.extend(files);
            moving.days.retain(|day| !days.contains(day));
            moving.done.extend(days);
        }
        refreshed.pending = moving.days.len();
        if refreshed.pending > 0 {
            open.moving = Some(moving);
            refreshed.moving = true;
            return Ok(refreshed);
        }
        refreshed.committed = Some(self.commit_moved(zone, open, moving).await?);
        Ok(refreshed)
    }

    async fn start_moving(&self, open: &OpenTable, sources: &[Source]) -> Result<Moving, QueryError> {
        let mut progress = Progress { sql: open.progress.sql.clone(), ..Progress::default() };
        let mut days = BTreeSet::new();
        for source in sources {
            let version = self.version_of(source, None).await?;
            days.extend(self.dependent_days(source.reader.days().await?));
            progress.sources.insert(source.name.clone(), version);
        }
        Ok(Moving { progress, days, done: BTreeSet::new(), files: Vec::new() })
    }

    /// Replaces all files of the table.
    async fn commit_moved(&mut self, zone: Zone, open: &mut OpenTable, moving: Moving) -> Result<u64, QueryError> {
        let Moving { progress, done, files, .. } = moving;
        let mut info = json!(progress);
        info["days"] = json!(done);
        info["rows"] = json!(files.iter().map(NewFile::rows).sum::<u64>());
        info["time_zone"] = json!(zone);
        let mut tries = 1;
        loop {
            let removes = list_files(&open.table.log()).await?;
            let replaced: Vec<_> = removes.iter().map(|file| file.path.clone()).collect();
            let changed =
                files.iter().filter_map(NewFile::day).chain(removes.iter().filter_map(DataFile::day)).collect();
            let number = open.table.transaction(COMMITS).unwrap_or(0) + 1;
            let change = Change {
                adds: files.clone(),
                removes,
                progress: vec![(COMMITS.to_owned(), number)],
                info: info.clone(),
                time_zone: Some(zone),
                ..Change::default()
            };
            let mut hold = self.days.hold(&self.definition().name, &changed).await?;
            match hold.commit(open.table.commit(change)).await {
                Ok(committed) => {
                    self.replaced_now(replaced);
                    open.progress = progress;
                    return Ok(committed.version);
                }
                Err(CommitError::Conflict(version)) if tries < COMMIT_TRIES_MAX => {
                    debug!(table = %self.definition().name, version, "another writer changed the files; trying again");
                    tries += 1;
                    open.table.reload().await?;
                }
                Err(failure) => return Err(anyhow::Error::new(failure).context("commit the Gold table").into()),
            }
        }
    }
}
