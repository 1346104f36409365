//! Commits: rows and progress in one log entry, or not at all.
//!
//! ```text
//!   files written ──▶ write entry base + 1 ──▶ landed
//!                        │         ▲
//!              entry taken         │ base + 1
//!                        ▼         │
//!                 read the winner ─┴─ a stranger's append: try behind it
//!                        │
//!                        ├─ one of our application ids: FENCED, somebody else writes these offsets
//!                        └─ other metadata or protocol: CHANGED, open the table anew
//!   any other error: the outcome is UNKNOWN until the log has been read again
//! ```
//!
//! No snapshot is kept: a commit costs the same at version 10 and at version 10,000.

use std::collections::HashMap;

use anyhow::Context;
use deltalake_core::kernel::transaction::{CommitData, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::{CommitOrBytes, get_actions};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

use super::file::NewFile;
use super::table::Table;

/// The log is folded into a checkpoint after so many commits, which bounds what an opening reads.
const CHECKPOINT_INTERVAL: u64 = 200;

/// A commit that landed.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    pub version: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("another writer has committed `{app_id}` in version {version}")]
    Fenced { version: u64, app_id: String },
    #[error("the table's metadata or protocol changed in version {0}")]
    Changed(u64),
    #[error("the outcome is unknown: {0:#}")]
    Unknown(anyhow::Error),
}

impl Table {
    /// Appends files, moves the `progress` of application ids, and leaves `info` under `silverd` in the commit's info.
    ///
    /// # Errors
    ///
    /// After every error the table must be [reloaded](Table::reload) before the next commit: the files may or may not be in.
    pub async fn append(
        &mut self,
        files: Vec<NewFile>,
        progress: &[(String, i64)],
        info: Value,
    ) -> Result<Committed, CommitError> {
        let transactions: Vec<_> = progress.iter().map(|(id, version)| Transaction::new(id, *version)).collect();
        let adds = files.into_iter().map(|file| Action::Add(Add::from(file))).collect();
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let info = HashMap::from([("silverd".to_owned(), info)]);
        let body = CommitData::new(adds, operation, info, transactions).get_bytes();
        let body = body.context("serialize the commit").map_err(CommitError::Unknown)?;
        loop {
            let version = self.version + 1;
            let entry = CommitOrBytes::LogBytes(body.clone());
            match self.log.write_commit_entry(version, entry, Uuid::new_v4()).await {
                Ok(()) => break,
                Err(TransactionError::VersionAlreadyExists(_)) => self.pass(version, progress).await?,
                Err(error) => return Err(CommitError::Unknown(error.into())),
            }
        }
        self.version += 1;
        for (id, version) in progress {
            self.transactions.insert(id.clone(), *version);
        }
        if self.version.is_multiple_of(CHECKPOINT_INTERVAL) {
            self.checkpoint();
        }
        Ok(Committed { version: self.version })
    }

    /// Reads the commit that took a version, and steps behind it if it is none of our business.
    async fn pass(&mut self, version: u64, progress: &[(String, i64)]) -> Result<(), CommitError> {
        let winner = async {
            let bytes = self.log.read_commit_entry(version).await?;
            let bytes = bytes.with_context(|| format!("commit {version} exists and cannot be read"))?;
            anyhow::Ok(get_actions(version, &bytes)?)
        };
        for action in winner.await.map_err(CommitError::Unknown)? {
            match action {
                Action::Txn(txn) if progress.iter().any(|(id, _)| *id == txn.app_id) => {
                    return Err(CommitError::Fenced { version, app_id: txn.app_id });
                }
                Action::Txn(txn) => {
                    self.transactions.insert(txn.app_id, txn.version);
                }
                Action::Metadata(_) | Action::Protocol(_) => return Err(CommitError::Changed(version)),
                _ => {}
            }
        }
        self.version = version;
        Ok(())
    }

    /// Writes a checkpoint beside the commits, on a state of its own. A checkpoint that fails costs nothing but time at
    /// the next opening.
    fn checkpoint(&self) {
        let (name, log) = (self.name.clone(), self.log());
        tokio::spawn(async move {
            let mut table = deltalake_core::DeltaTable::new(log);
            let written = async {
                table.load().await?;
                deltalake_core::checkpoints::create_checkpoint(&table, None).await
            };
            if let Err(error) = written.await {
                warn!(table = %name, "write checkpoint: {error}");
            }
        });
    }
}
