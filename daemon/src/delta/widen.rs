//! Widens columns: rewrites the table's files with the wider type, in the same commit that changes the schema. Delta
//! can widen a column in place, but few readers support that.

use anyhow::{Context, bail};
use futures::TryStreamExt;
use serde_json::json;
use tracing::{debug, info};

use super::commit::{Change, CommitError};
use super::conform::conform;
use super::data_file::DataFile;
use super::file::{Encoder, NewFile};
use super::parquet_reader::read_columns;
use super::table::Table;
use super::table_lock::TableLock;

/// Attempts, each of which another writer's commit can end.
const TRIES_MAX: usize = 20;

impl Table {
    /// Widens the columns that the next rows need wider, if there are any. `encoder` is the one for those rows.
    ///
    /// Readers see the old types with the old files, or the new types with the new files. Values do not change.
    pub async fn widen(&mut self, encoder: &Encoder) -> anyhow::Result<()> {
        if !self.fit().widens() {
            return Ok(());
        }
        // The new files stay uncommitted for long, which vacuum must not see.
        let _lock = TableLock::shared(&self.path, &self.name).await?;
        for _ in 0..TRIES_MAX {
            if !self.fit().widens() {
                return Ok(());
            }
            let files = self.files().await?;
            // Another writer may have widened the columns.
            let Some(evolved) = self.evolved.as_ref().filter(|_| self.fit().widens()) else { return Ok(()) };
            let metadata = Some(evolved.metadata.clone());
            let (count, mut adds) = (files.len(), Vec::with_capacity(files.len()));
            for file in &files {
                let wide = self.rewrite(file, encoder).await;
                adds.push(wide.with_context(|| format!("rewrite {}", file.path))?);
            }
            let rows: u64 = adds.iter().map(NewFile::rows).sum();
            let info = json!({ "maintenance": { "widened": count, "rows": rows } });
            // Rows that were committed in between have the narrow type: then the commit conflicts, and the files are
            // listed again.
            let change = Change {
                adds,
                removes: files,
                info,
                metadata,
                rewrites: true,
                decided_by_rows: true,
                ..Change::default()
            };
            match self.commit(change).await {
                Ok(committed) => {
                    let version = committed.version;
                    info!(table = %self.name, version, files = count, "rewrote the table's files with wider columns");
                    return self.reload().await;
                }
                Err(
                    failure @ (CommitError::Conflict(_) | CommitError::MetadataChanged(_) | CommitError::Unknown(_)),
                ) => {
                    debug!(table = %self.name, "widen: {failure}");
                    self.reload().await?;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        bail!("other writers add to table {} faster than its files can be rewritten; silverd tries again", self.name)
    }

    async fn rewrite(&self, file: &DataFile, encoder: &Encoder) -> anyhow::Result<NewFile> {
        let day = file.event_date.as_deref().context("the file has no event_date")?;
        let mut writer = encoder.file_writer(self.store(), day)?;
        let mut read = read_columns(self.store(), file, None).await?;
        while let Some(batch) = read.batches.try_next().await? {
            writer.write_row_group(&conform(&batch, encoder.schema())?).await?;
        }
        writer.finish(file.modified_ms).await
    }
}
