//! The commit of a correction, tried again after the commits of a running daemon.

use std::collections::HashSet;

use anyhow::{Context, anyhow, bail};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use object_store::ObjectStoreExt;
use serde_json::Value;
use tracing::debug;

use super::Correction;
use super::error::{Conflict, CorrectionError};
use crate::delta::{Change, CommitError, DataFile, NewFile, Table};
use crate::tables::side_output;

/// The application id that makes two corrections of a table conflict.
const CORRECTIONS: &str = "silverd-corrections";
/// How often a commit is tried again if a running daemon commits first.
const COMMIT_TRIES_MAX: usize = 50;

impl Correction {
    /// Commits the correction, and publishes its side outputs. Returns the version.
    pub(super) async fn commit(
        &mut self,
        adds: Vec<NewFile>,
        removes: Vec<DataFile>,
        mut info: Value,
        rejects: &[RecordBatch],
        late: &[RecordBatch],
    ) -> Result<u64, CorrectionError> {
        let number = self.table.transaction(CORRECTIONS).unwrap_or(0) + 1;
        let mut outputs = Vec::new();
        for (output, rows) in [(Some(&self.quarantine), rejects), (self.late.as_ref(), late)] {
            if let (Some(output), Some(first)) = (output, rows.first()) {
                let rows = concat_batches(&first.schema(), rows).context("combine the rows of a side output")?;
                outputs.push(output.put(rows).await?);
            }
        }
        self.check_files_exist(&adds).await?;
        let changed = adds.iter().filter_map(NewFile::day).chain(removes.iter().filter_map(DataFile::day)).collect();
        let mut hold = self.days.hold(&self.config.name, &changed).await?;
        for _ in 0..COMMIT_TRIES_MAX {
            let mut progress = vec![(CORRECTIONS.to_owned(), number)];
            let announced = side_output::announce(outputs.clone(), &self.table, &mut progress, &mut info)?;
            let is_set = |id: &String| progress.iter().any(|(set, _)| set == id);
            let restored: Vec<_> = self.restored.iter().flatten().filter(|(id, _)| !is_set(id)).cloned().collect();
            progress.extend(restored);
            let time_zone = self.table.moves_to();
            let change = Change {
                adds: adds.clone(),
                removes: removes.clone(),
                progress,
                info: info.clone(),
                // Rows that another writer adds meanwhile have days in the old zone.
                decided_by_rows: self.dedup.is_some() || time_zone.is_some(),
                time_zone,
                ..Change::default()
            };
            let failure = match hold.commit(self.table.commit(change)).await {
                Ok(committed) => {
                    side_output::publish(announced, &self.table).await?;
                    return Ok(committed.version);
                }
                Err(failure) => failure,
            };
            debug!(table = %self.config.name, "commit the correction: {failure}");
            if self.is_committed(number, &info).await? {
                side_output::publish(announced, &self.table).await?;
                return Ok(self.table.version());
            }
            // Also if someone else has moved the table meanwhile: these rows do not replace all of it.
            if time_zone.is_some() || self.table.moves_to().is_some() {
                return Err(self.conflict().into());
            }
            if self.restored.is_some() {
                // Whoever was first may have made progress of which the table's log says nothing.
                return Err(self.conflict().into());
            }
            self.check_conflict(number, &removes, &failure).await?;
        }
        Err(self.conflict().into())
    }

    /// A correction may take hours, during which its files are not committed: another engine may have removed them.
    async fn check_files_exist(&self, adds: &[NewFile]) -> anyhow::Result<()> {
        let store = self.table.store();
        for file in adds {
            let found = store.head(&file.path().into()).await;
            found.with_context(|| {
                format!(
                    "find {}, which this correction wrote (a VACUUM by another engine may have removed it); nothing was \
                     replaced. Run the command again",
                    file.path()
                )
            })?;
        }
        Ok(())
    }

    /// Whether a commit that reported an error succeeded. Reads the log again.
    async fn is_committed(&mut self, number: i64, info: &Value) -> anyhow::Result<bool> {
        self.table.reload().await?;
        if self.table.transaction(CORRECTIONS) < Some(number) {
            return Ok(false);
        }
        let found = self.table.info_of(CORRECTIONS, number).await?.unwrap_or_default();
        Ok(found["correction"]["id"] == info["correction"]["id"])
    }

    /// Fails if the correction is wrong after the commits of other writers.
    async fn check_conflict(
        &mut self,
        number: i64,
        removes: &[DataFile],
        failure: &CommitError,
    ) -> Result<(), CorrectionError> {
        let table = &self.config.name;
        if matches!(failure, CommitError::MetadataChanged(_)) {
            return Err(CorrectionError::Failed(anyhow!(
                "another writer changed the columns of table {table} in the meantime; nothing was replaced. Run the command \
                 again"
            )));
        }
        let known: HashSet<_> = self.files.iter().map(|file| file.path.clone()).collect();
        let files = self.table.files().await?;
        let live: HashSet<_> = files.iter().map(|file| &file.path).collect();
        let other_correction = self.table.transaction(CORRECTIONS).unwrap_or(0) >= number;
        if other_correction || removes.iter().any(|file| !live.contains(&file.path)) {
            return Err(self.conflict().into());
        }
        if let Some(dedup) = &mut self.dedup {
            let new: Vec<DataFile> = files.iter().filter(|file| !known.contains(&file.path)).cloned().collect();
            if dedup.has_duplicates_in(&new).await? {
                return Err(self.conflict().into());
            }
        }
        // The next try has to check only newer files.
        self.files = files;
        Ok(())
    }

    fn conflict(&self) -> Conflict {
        Conflict { table: self.config.name.to_string() }
    }
}

/// Commits a change of the files of a side output. `compute` returns it with its result; it runs again if another
/// writer's commit came first. A change that removes no file is not committed.
pub(super) async fn commit_change<T>(
    side_output: &mut Table,
    compute: impl AsyncFn(&mut Table) -> anyhow::Result<(Change, T)>,
) -> anyhow::Result<T> {
    for _ in 0..COMMIT_TRIES_MAX {
        let (change, result) = compute(side_output).await?;
        if change.removes.is_empty() {
            return Ok(result);
        }
        match side_output.commit(change).await {
            Ok(_) => return Ok(result),
            Err(failure) => debug!("change rows of {}: {failure}", side_output.name),
        }
    }
    bail!(
        "other writers committed to the table {} first {COMMIT_TRIES_MAX} times in a row; run the command again",
        side_output.name
    )
}
