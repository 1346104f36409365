//! Columns that become wider: the files that stand there are written anew, with the wider type, in the one commit that
//! changes the table's schema. Delta can widen a column in place, but few readers know of it.

use anyhow::{Context, bail};
use futures::TryStreamExt;
use serde_json::json;
use tracing::{debug, info};

use super::commit::{Change, CommitError};
use super::conform::conform;
use super::file::{Encoder, NewFile};
use super::lease::Lease;
use super::read::columns;
use super::table::{DataFile, Table};

/// How often it is started over behind other writers.
const TRIES_MAX: usize = 20;

impl Table {
    /// Widens the columns that the rows to come need wider, if there are such. `encoder` writes those rows.
    ///
    /// Readers see the old types with the old files, or the new ones with the new. No row changes but in its type.
    pub async fn widen(&mut self, encoder: &Encoder) -> anyhow::Result<()> {
        if !self.fit().widens() {
            return Ok(());
        }
        // The files that are written stay without a commit for long.
        let _lease = Lease::with_others(&self.path, &self.name).await?;
        for _ in 0..TRIES_MAX {
            if !self.fit().widens() {
                return Ok(());
            }
            let files = self.files().await?;
            // Somebody else may have done it meanwhile.
            let Some(grown) = self.grown.as_ref().filter(|_| self.fit().widens()) else { return Ok(()) };
            let metadata = Some(grown.metadata.clone());
            let (count, mut adds) = (files.len(), Vec::with_capacity(files.len()));
            for file in &files {
                let wide = self.widened(file, encoder).await;
                adds.push(wide.with_context(|| format!("write {} anew", file.path))?);
            }
            let rows: u64 = adds.iter().map(NewFile::rows).sum();
            let info = json!({ "maintenance": { "widened": count, "rows": rows } });
            // Rows that come in between are of the narrow type: then the files are listed again.
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
                    info!(table = %self.name, version = committed.version, files = count, "wrote the table's files anew, with wider columns");
                    return self.reload().await;
                }
                Err(failure @ (CommitError::Overtaken(_) | CommitError::Changed(_) | CommitError::Unknown(_))) => {
                    debug!(table = %self.name, "widen: {failure}");
                    self.reload().await?;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        bail!("other writers add to table {} faster than its files can be written anew; it is tried again", self.name)
    }

    async fn widened(&self, file: &DataFile, encoder: &Encoder) -> anyhow::Result<NewFile> {
        let day = file.event_date.as_deref().context("it is of no day")?;
        let mut writer = encoder.stream(self.store(), day)?;
        let mut read = columns(self.store(), file.path.clone(), file.size, None).await?;
        while let Some(batch) = read.batches.try_next().await? {
            writer.group(&conform(&batch, encoder.schema())?).await?;
        }
        writer.finish(file.modified_ms).await
    }
}
