//! Commits: rows and progress in one log entry, or not at all.
//!
//! ```text
//!   files written ──▶ write entry base + 1 ──▶ landed
//!                        │         ▲
//!              entry taken         │ base + 1
//!                        ▼         │
//!                 read the winner ─┴─ a stranger's commit: try behind it
//!                        │
//!                        ├─ one of our application ids: FENCED, somebody else writes these offsets
//!                        ├─ it removed a file that we replace, or brought rows to a table whose rows we were
//!                        │  decided by: OVERTAKEN, decide anew
//!                        └─ other metadata or protocol: CHANGED, open the table anew
//!   any other error: the outcome is UNKNOWN until the log has been read again
//! ```
//!
//! No snapshot is kept: a commit costs the same at version 10 and at version 10,000.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, anyhow};
use deltalake_core::kernel::transaction::{CommitData, TransactionError};
use deltalake_core::kernel::{Action, Add, Metadata, Remove, Transaction};
use deltalake_core::logstore::{CommitOrBytes, get_actions};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::warn;
use uuid::Uuid;

use super::file::NewFile;
use super::table::{DataFile, Table};
use crate::low;

/// The log is folded into a checkpoint after so many commits, which bounds what an opening reads.
const CHECKPOINT_INTERVAL: u64 = 50;

/// Checkpoints that are written at once, of all tables.
const CHECKPOINTS_MAX: u32 = 16;

static CHECKPOINTS: Semaphore = Semaphore::const_new(CHECKPOINTS_MAX as usize);

/// Waits for the checkpoints that are being written, some seconds at most: one that is cut off has to be made again.
pub async fn checkpoints_done() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let _ = tokio::time::timeout(PATIENCE, CHECKPOINTS.acquire_many(CHECKPOINTS_MAX)).await;
}

/// A commit that landed.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    pub version: u64,
}

/// What a commit does to a table.
#[derive(Default)]
pub struct Change {
    pub adds: Vec<NewFile>,
    /// Files whose rows the added ones replace, or that go.
    pub removes: Vec<DataFile>,
    /// Application ids and their new versions: the fence, and where the table has come to.
    pub progress: Vec<(String, i64)>,
    /// Left under `silverd` in the commit's info.
    pub info: Value,
    /// The rows were decided by those that the table has (duplicates): void once somebody else brings rows.
    pub decided_by_rows: bool,
    /// The added files hold the removed ones' rows, and none else: no news to whoever follows the table.
    pub rewrites: bool,
    /// Other properties of the table.
    pub metadata: Option<Metadata>,
}

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("another writer has committed `{app_id}` in version {version}")]
    Fenced { version: u64, app_id: String },
    #[error("version {0} of another writer changed the rows that this commit builds on")]
    Overtaken(u64),
    #[error("the table's metadata or protocol changed in version {0}")]
    Changed(u64),
    #[error("the outcome is unknown: {0:#}")]
    Unknown(anyhow::Error),
}

/// What another writer's commit must not touch, if ours is to go behind it.
struct Fence<'c> {
    progress: &'c [(String, i64)],
    gone: &'c HashSet<String>,
    decided_by_rows: bool,
    /// It brings metadata of its own, which was made of those that are known.
    brings_metadata: bool,
}

/// A table's metadata but for its properties. Its schema is a text in it, whose fields may stand in another order.
fn shape(metadata: &Metadata) -> Value {
    let mut shape = serde_json::to_value(metadata).unwrap_or_default();
    if let Some(fields) = shape.as_object_mut() {
        fields.remove("configuration");
        if let Some(schema) = fields.get_mut("schemaString") {
            let parsed = schema.as_str().and_then(|text| serde_json::from_str(text).ok());
            *schema = parsed.unwrap_or_default();
        }
    }
    shape
}

impl Table {
    /// Appends files, moves the `progress` of application ids, and leaves `info` under `silverd` in the commit's info.
    ///
    /// # Errors
    ///
    /// After every error the table must be [reloaded](Table::reload) before the next commit: the files may or may not be in.
    pub async fn append(
        &mut self,
        adds: Vec<NewFile>,
        progress: &[(String, i64)],
        info: Value,
    ) -> Result<Committed, CommitError> {
        self.commit(Change { adds, progress: progress.to_vec(), info, ..Change::default() }).await
    }

    /// Makes a change, all of it in one entry of the log.
    ///
    /// # Errors
    ///
    /// As [`append`](Table::append).
    pub async fn commit(&mut self, change: Change) -> Result<Committed, CommitError> {
        if !change.rewrites && !change.adds.is_empty() && self.fit().widens() {
            return Err(CommitError::Unknown(anyhow!("columns must be widened before rows of their type are added")));
        }
        let gone: HashSet<String> = change.removes.iter().map(|file| file.path.to_string()).collect();
        // The table grows in the same entry that brings the first rows which need it.
        let grown = self.grown.as_ref().filter(|_| !change.adds.is_empty() && !change.rewrites);
        let grown = grown.map(|form| form.metadata.clone());
        let grows = grown.is_some();
        let metadata = change.metadata.or(grown);
        let fence = Fence {
            progress: &change.progress,
            gone: &gone,
            decided_by_rows: change.decided_by_rows,
            brings_metadata: metadata.is_some(),
        };
        let data_change = !change.rewrites;
        let removes = change.removes.into_iter().map(Remove::from);
        let removes = removes.map(|remove| Action::Remove(Remove { data_change, ..remove }));
        let adds = change.adds.into_iter().map(Add::from);
        let adds = adds.map(|add| Action::Add(Add { data_change, ..add }));
        let actions = metadata.clone().map(Action::Metadata).into_iter().chain(removes).chain(adds).collect();
        let transactions: Vec<_> = fence.progress.iter().map(|(id, version)| Transaction::new(id, *version)).collect();
        let operation = match (change.rewrites, gone.is_empty()) {
            (true, _) => DeltaOperation::Optimize { predicate: None, target_size: 0 },
            (false, true) => DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
            (false, false) => DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None },
        };
        let info = HashMap::from([("silverd".to_owned(), change.info)]);
        let body = CommitData::new(actions, operation, info, transactions).get_bytes();
        let body = body.context("serialize the commit").map_err(CommitError::Unknown)?;
        loop {
            let version = self.version + 1;
            let entry = CommitOrBytes::LogBytes(body.clone());
            match self.log.write_commit_entry(version, entry, Uuid::new_v4()).await {
                Ok(()) => break,
                Err(TransactionError::VersionAlreadyExists(_)) => self.pass(version, &fence).await?,
                Err(error) => return Err(CommitError::Unknown(error.into())),
            }
        }
        self.version += 1;
        if grows {
            self.form = self.grown.take();
        }
        if let (Some(metadata), Some(form)) = (metadata, &mut self.form) {
            form.metadata = metadata;
        }
        for (id, version) in fence.progress {
            self.transactions.insert(id.clone(), *version);
        }
        if self.version.is_multiple_of(CHECKPOINT_INTERVAL) {
            self.checkpoint();
        }
        Ok(Committed { version: self.version })
    }

    /// Whether a table's metadata are those that are known, but for its properties.
    fn is_as_before(&self, metadata: &Metadata) -> bool {
        self.form.as_ref().is_some_and(|form| shape(&form.metadata) == shape(metadata))
    }

    /// Reads the commit that took a version, and steps behind it if it is none of our business.
    async fn pass(&mut self, version: u64, fence: &Fence<'_>) -> Result<(), CommitError> {
        let winner = async {
            let bytes = self.log.read_commit_entry(version).await?;
            let bytes = bytes.with_context(|| format!("commit {version} exists and cannot be read"))?;
            anyhow::Ok(get_actions(version, &bytes)?)
        };
        for action in winner.await.map_err(CommitError::Unknown)? {
            match action {
                Action::Txn(txn) if fence.progress.iter().any(|(id, _)| *id == txn.app_id) => {
                    return Err(CommitError::Fenced { version, app_id: txn.app_id });
                }
                Action::Txn(txn) => {
                    self.transactions.insert(txn.app_id, txn.version);
                }
                Action::Remove(remove) if fence.gone.contains(&remove.path) => {
                    return Err(CommitError::Overtaken(version));
                }
                Action::Add(add) if fence.decided_by_rows && add.data_change => {
                    return Err(CommitError::Overtaken(version));
                }
                // Other properties of the same table change nothing for rows.
                Action::Metadata(theirs) if self.is_as_before(&theirs) && !fence.brings_metadata => {
                    self.learn(theirs).map_err(CommitError::Unknown)?;
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
        // Of too many at once, those left out are made good by the next ones.
        let Ok(permit) = CHECKPOINTS.try_acquire() else { return };
        let (name, log) = (self.name.clone(), self.log());
        let low = match low::handle() {
            Ok(low) => low,
            Err(failure) => return warn!(table = %name, "write checkpoint: {failure:#}"),
        };
        low.spawn(async move {
            let mut table = deltalake_core::DeltaTable::new(log);
            let written = async {
                table.load().await?;
                deltalake_core::checkpoints::create_checkpoint(&table, None).await
            };
            if let Err(error) = written.await {
                warn!(table = %name, "write checkpoint: {error}");
            }
            drop(permit);
        });
    }
}
