//! Commits: rows and progress in one log entry, or neither.
//!
//! ```text
//!   files written ──▶ write entry base + 1 ──▶ committed
//!                        │         ▲
//!        the version exists        │ base + 1
//!                        ▼         │
//!            read that commit ─────┴─ unrelated to ours: try the next version
//!                        │
//!                        ├─ it moved one of our application ids: FENCED, another writer commits these offsets
//!                        ├─ it removed a file that we replace, or added rows to a table whose rows decided ours:
//!                        │  CONFLICT, the caller computes the change again
//!                        └─ it changed the metadata or the protocol: METADATA CHANGED, open the table again
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
use futures::FutureExt;
use serde_json::{Value, json};
use silverd_core::zone::Zone;
use tokio::sync::Semaphore;
use tracing::{debug, warn};
use uuid::Uuid;

use super::constraints;
use super::damaged;
use super::data_file::DataFile;
use super::durable;
use super::file::NewFile;
use super::table::{TXN_RETENTION, Table};
use super::transactions::count_own;
use crate::runtime::machine::simulated;
use crate::runtime::{background, clock};

/// Commits between two checkpoints, which bounds what opening a table reads.
const CHECKPOINT_INTERVAL: u64 = 50;

/// Checkpoints that are written or wait for it, over all tables.
const CHECKPOINTS_MAX: u32 = 16;
/// Those that are written at the same time. They share one core, and while one of them has the allocator's lock and no CPU
/// time, the data path waits.
const CHECKPOINTS_AT_ONCE: usize = 2;

static CHECKPOINTS: Semaphore = Semaphore::const_new(CHECKPOINTS_MAX as usize);
static CHECKPOINT_TURNS: Semaphore = Semaphore::const_new(CHECKPOINTS_AT_ONCE);

/// Waits up to five seconds for the checkpoints in progress: one that is cut off has to be written again.
pub async fn checkpoints_done() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let _ = tokio::time::timeout(TIMEOUT, CHECKPOINTS.acquire_many(CHECKPOINTS_MAX)).await;
}

/// A commit that succeeded.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    pub version: u64,
}

/// What a commit does to a table.
#[derive(Default)]
pub struct Change {
    pub adds: Vec<NewFile>,
    /// Files whose rows the added ones replace, or that are deleted.
    pub removes: Vec<DataFile>,
    /// Application ids and their new versions: the progress that the rows stand for, and the fence.
    pub progress: Vec<(String, i64)>,
    /// Stored under `silverd` in the commit's info.
    pub info: Value,
    /// The rows depend on those that the table already had (duplicates): a conflict if another writer added rows.
    pub decided_by_rows: bool,
    /// The added files hold exactly the removed files' rows: the commit is no data change for readers of the log.
    pub rewrites: bool,
    /// Other properties of the table.
    pub metadata: Option<Metadata>,
    /// The zone whose days the table's rows have from now on: the commit replaces all of them.
    pub time_zone: Option<Zone>,
    /// The name of the operation for readers of the log, where it is none of Delta's.
    pub operation: Option<&'static str>,
}

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("another writer has committed `{app_id}` in version {version}")]
    Fenced { version: u64, app_id: String },
    #[error("version {0} of another writer changed the rows that this commit builds on")]
    Conflict(u64),
    #[error("the table's metadata or protocol changed in version {0}")]
    MetadataChanged(u64),
    #[error("the outcome is unknown: {0:#}")]
    Unknown(anyhow::Error),
}

/// What another writer's commit must not touch, if ours is to follow it.
struct Fence<'c> {
    progress: &'c [(String, i64)],
    removed: &'c HashSet<String>,
    decided_by_rows: bool,
    /// Our commit brings metadata, which was derived from the known one.
    brings_metadata: bool,
}

impl Table {
    /// Appends files, sets the application ids in `progress`, and stores `info` under `silverd` in the commit's info.
    ///
    /// # Errors
    ///
    /// After every error the table must be [reloaded](Table::reload) before the next commit: the files may or may not
    /// be committed.
    pub async fn append(
        &mut self,
        adds: Vec<NewFile>,
        progress: &[(String, i64)],
        info: Value,
    ) -> Result<Committed, CommitError> {
        self.commit(Change { adds, progress: progress.to_vec(), info, ..Change::default() }).await
    }

    /// Makes a change in one entry of the log.
    ///
    /// # Errors
    ///
    /// As [`append`](Table::append).
    pub async fn commit(&mut self, change: Change) -> Result<Committed, CommitError> {
        if !change.rewrites && !change.adds.is_empty() && self.fit().widens() {
            return Err(CommitError::Unknown(anyhow!("columns must be widened before rows of their type are added")));
        }
        self.check_rows(&change).await.map_err(CommitError::Unknown)?;
        durable::sync_files(&self.path, &change.adds).await.map_err(CommitError::Unknown)?;
        let removed: HashSet<String> = change.removes.iter().map(|file| file.path.to_string()).collect();
        // The first commit that adds rows of the new columns also brings the new schema.
        let evolved = self.evolved.as_ref().filter(|_| !change.adds.is_empty() && !change.rewrites);
        let evolves = evolved.is_some();
        let in_zone = |zone| match evolved {
            Some(definition) => definition.in_zone(zone),
            None => self.definition()?.in_zone(zone),
        };
        let moved = change.time_zone.map(in_zone).transpose().map_err(CommitError::Unknown)?;
        let evolved = evolved.map(|definition| definition.metadata.clone());
        let of_moved = moved.as_ref().map(|definition| definition.metadata.clone());
        let metadata = of_moved.or(change.metadata).or(evolved);
        let fence = Fence {
            progress: &change.progress,
            removed: &removed,
            decided_by_rows: change.decided_by_rows,
            brings_metadata: metadata.is_some(),
        };
        let data_change = !change.rewrites;
        let removes = change.removes.into_iter().map(Remove::from);
        let removes = removes.map(|remove| Action::Remove(Remove { data_change, ..remove }));
        let adds = change.adds.into_iter().map(Add::from);
        let adds = adds.map(|add| Action::Add(Add { data_change, ..add }));
        let operation = operation(change.rewrites, !removed.is_empty());
        let mut commit_info = operation.get_commit_info();
        if let Some(name) = change.operation {
            commit_info.operation = Some(name.to_owned());
        }
        // Spark lets its own changes follow an append that depends on no row of the table.
        commit_info.is_blind_append = Some(data_change && removed.is_empty() && !change.decided_by_rows);
        commit_info.info = HashMap::from([("silverd".to_owned(), self.with_txn_count(change.info, fence.progress))]);
        // It is the first action, as readers of in-commit timestamps expect.
        let actions = [Action::CommitInfo(commit_info)].into_iter().chain(metadata.clone().map(Action::Metadata));
        let actions = actions.chain(removes).chain(adds).collect();
        // Checkpoints of other engines keep no `txn` without a time, if the table has a retention for them.
        let now = Some(clock::now_ms());
        let transaction = |(id, version): &(String, i64)| Transaction::new_with_last_update(id, *version, now);
        let transactions = fence.progress.iter().map(transaction).collect();
        let mut data = CommitData::new(actions, operation, HashMap::new(), transactions);
        loop {
            let version = self.version + 1;
            let in_commit_timestamp = self.next_in_commit_timestamp().await.map_err(CommitError::Unknown)?;
            if let Some(Action::CommitInfo(info)) = data.actions.first_mut() {
                info.in_commit_timestamp = in_commit_timestamp;
                info.timestamp = Some(in_commit_timestamp.unwrap_or_else(clock::now_ms));
            }
            let body = data.get_bytes().context("serialize the commit").map_err(CommitError::Unknown)?;
            let entry = CommitOrBytes::LogBytes(body);
            match self.log.write_commit_entry(version, entry, Uuid::new_v4()).await {
                Ok(()) => {
                    durable::sync_entry(&self.path, version).await.map_err(CommitError::Unknown)?;
                    break;
                }
                Err(TransactionError::VersionAlreadyExists(_)) => self.step_over(version, &fence).await?,
                Err(error) => return Err(CommitError::Unknown(error.into())),
            }
        }
        self.version += 1;
        debug!(table = %self.name, version = self.version, "committed");
        if evolves {
            self.definition = self.evolved.take();
        }
        if let (Some(metadata), Some(definition)) = (metadata, &mut self.definition) {
            definition.metadata = metadata;
        }
        if let (Some(zone), Some(moved)) = (change.time_zone, moved) {
            self.definition = Some(moved);
            // Columns that a later commit brings must not bring the old zone again.
            let evolved = self.evolved.as_ref().map(|definition| definition.in_zone(zone)).transpose();
            self.evolved = evolved.map_err(CommitError::Unknown)?;
        }
        for (id, version) in fence.progress {
            self.transactions.insert(id.clone(), *version);
        }
        if self.version.is_multiple_of(CHECKPOINT_INTERVAL) {
            self.write_checkpoint();
        }
        Ok(Committed { version: self.version })
    }

    /// Fails if the table's features do not allow the change.
    async fn check_rows(&self, change: &Change) -> anyhow::Result<()> {
        if change.rewrites {
            return Ok(());
        }
        let features = self.definition()?.features();
        if !change.removes.is_empty() {
            features.check_removal()?;
        }
        match features.constraints.is_empty() {
            true => Ok(()),
            false => constraints::check(&features.constraints, &self.store(), &change.adds).await,
        }
    }

    /// The time of the next commit in a table whose commits say it themselves: later than that of the one before.
    async fn next_in_commit_timestamp(&self) -> anyhow::Result<Option<i64>> {
        if !self.definition()?.features().in_commit_timestamps {
            return Ok(None);
        }
        let before = match self.log.read_commit_entry(self.version).await? {
            Some(bytes) => get_actions(self.version, &bytes)?.into_iter().find_map(|action| match action {
                Action::CommitInfo(info) => info.in_commit_timestamp,
                _ => None,
            }),
            None => None,
        };
        Ok(Some(before.map_or(i64::MIN, |before| before + 1).max(clock::now_ms())))
    }

    /// Reads another writer's commit of `version`, and takes it into account if it does not affect ours.
    async fn step_over(&mut self, version: u64, fence: &Fence<'_>) -> Result<(), CommitError> {
        let actions = async {
            let bytes = self.log.read_commit_entry(version).await?;
            let bytes = bytes.with_context(|| format!("commit {version} exists and cannot be read"))?;
            anyhow::Ok(get_actions(version, &bytes)?)
        };
        for action in actions.await.map_err(CommitError::Unknown)? {
            match action {
                Action::Txn(txn) if fence.progress.iter().any(|(id, _)| *id == txn.app_id) => {
                    return Err(CommitError::Fenced { version, app_id: txn.app_id });
                }
                Action::Txn(txn) => {
                    self.transactions.insert(txn.app_id, txn.version);
                }
                Action::Remove(remove) if fence.removed.contains(&remove.path) => {
                    return Err(CommitError::Conflict(version));
                }
                Action::Add(add) if fence.decided_by_rows && add.data_change => {
                    return Err(CommitError::Conflict(version));
                }
                // New table properties do not affect rows, except for the zone of their days.
                Action::Metadata(theirs)
                    if self.changes_properties_only(&theirs)
                        && !self.changes_zone(&theirs)
                        && !fence.brings_metadata
                        && !theirs.configuration().contains_key(TXN_RETENTION) =>
                {
                    self.set_metadata(theirs).map_err(CommitError::Unknown)?;
                }
                Action::Metadata(_) | Action::Protocol(_) => return Err(CommitError::MetadataChanged(version)),
                _ => {}
            }
        }
        self.version = version;
        Ok(())
    }

    /// A commit's info with the number of silverd's application ids after it.
    fn with_txn_count(&self, mut info: Value, progress: &[(String, i64)]) -> Value {
        let new = progress.iter().map(|(id, _)| id).filter(|id| !self.transactions.contains_key(*id));
        let ids = self.transactions.keys().chain(new);
        if info.is_null() {
            info = json!({});
        }
        if let Some(info) = info.as_object_mut() {
            info.insert("txns".to_owned(), json!(count_own(ids) + self.lost_transactions()));
        }
        info
    }

    fn changes_properties_only(&self, metadata: &Metadata) -> bool {
        self.definition.as_ref().is_some_and(|definition| definition.differs_in_properties_only(metadata))
    }

    /// Writes a checkpoint in the background, from a snapshot of its own. A failure only makes the next opening slower.
    pub(super) fn write_checkpoint(&self) {
        // Above the limit a checkpoint is skipped; the table's next one makes up for it.
        let Ok(permit) = CHECKPOINTS.try_acquire() else { return };
        let (name, log, is_simulated) = (self.name.clone(), self.log(), simulated().is_some());
        let runtime = match background::handle() {
            Ok(runtime) => runtime,
            Err(failure) => return warn!(table = %name, "write checkpoint: {failure:#}"),
        };
        runtime.spawn(async move {
            let written = |log| {
                let mut table = deltalake_core::DeltaTable::new(log);
                async move {
                    table.load().await?;
                    damaged::remove_hint(&table.log_store()).await?;
                    Ok(deltalake_core::checkpoints::create_checkpoint(&table, None).await?)
                }
                .boxed()
            };
            // Simulations, of which several run at once, wait for nothing but their clocks.
            let turn = if is_simulated { None } else { CHECKPOINT_TURNS.acquire().await.ok() };
            if let Err(error) = damaged::read_past(&log, written).await {
                warn!(table = %name, "write checkpoint: {error:#}");
            }
            drop((turn, permit));
        });
    }
}

fn operation(rewrites: bool, removes: bool) -> DeltaOperation {
    match (rewrites, removes) {
        (true, _) => DeltaOperation::Optimize { predicate: None, target_size: 0 },
        (false, false) => DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
        (false, true) => DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None },
    }
}
