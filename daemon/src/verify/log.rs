//! Reads a table's log into its verifier: a checkpoint if the first entries are gone, then every entry in order.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use silverd_core::verify::{Entry, FileOwner, LogPosition, Problem, TableState, Verifier};

use crate::delta::{LogFiles, action_texts, entry_path, list_log, lost_transactions, read_checkpoint};

/// Entries that are read concurrently.
const READS_MAX: usize = 16;
/// How often a log is read if it is cleaned up meanwhile.
const TRIES_MAX: usize = 3;

/// Reads the current log of a table into a new verifier.
pub(super) async fn read<V: Verifier>(
    store: &dyn ObjectStore,
    owner: &FileOwner,
    new: impl Fn() -> V,
) -> anyhow::Result<V> {
    let mut tries = 0;
    loop {
        let mut verifier = new();
        let files = list_log(store).await.context("list the log")?;
        let unreadable = check_progress(store, &files, owner, &mut verifier).await.err();
        read_files(store, &files, &mut verifier).await?;
        if let Some(failure) = unreadable
            && verifier.findings().errors == 0
        {
            // silverd does not open such a table either.
            verifier.report(LogPosition::default(), Problem::Unreadable { why: format!("{failure:#}") });
        }
        tries += 1;
        // If the first entry is another one now, the log was cleaned up meanwhile, up to a newer checkpoint.
        let first = list_log(store).await.context("list the log")?.commits.into_keys().next();
        if first == files.commits.keys().next().copied() || tries == TRIES_MAX {
            return Ok(verifier);
        }
    }
}

/// Reports a log that has lost application ids, as the start of silverd finds it.
async fn check_progress(
    store: &dyn ObjectStore,
    files: &LogFiles,
    owner: &FileOwner,
    verifier: &mut impl Verifier,
) -> anyhow::Result<()> {
    let newest = files.commits.keys().next_back().max(files.checkpoints.keys().next_back());
    let Some(version) = newest.copied() else { return Ok(()) };
    let lost = lost_transactions(store, version).await?;
    if lost > 0 {
        verifier.report_lost_progress(version, lost, owner.clone());
    }
    Ok(())
}

async fn read_files(store: &dyn ObjectStore, files: &LogFiles, verifier: &mut impl Verifier) -> anyhow::Result<()> {
    let mut start = 0;
    let (first, last) = (files.commits.keys().next().copied(), files.commits.keys().next_back().copied());
    if first != Some(0) {
        // The oldest checkpoint without a missing entry after it lets the most entries be checked.
        let at = first.map_or_else(
            || files.checkpoints.keys().next_back(),
            |first| files.checkpoints.range(first.saturating_sub(1)..).next().map(|(version, _)| version),
        );
        if let Some(at) = at {
            let state = checkpoint(store, *at, &files.checkpoints).await?;
            verifier.start_at(state);
            start = at + 1;
        }
    }
    let newest = files.checkpoints.keys().next_back().copied().filter(|version| *version >= start);
    let Some(last) = last.filter(|last| *last >= start) else { return Ok(()) };
    let mut entries = stream::iter(start..=last)
        .map(|version| async move {
            match store.get(&entry_path(version)).await {
                Ok(found) => anyhow::Ok((version, Some(found.bytes().await?))),
                Err(object_store::Error::NotFound { .. }) => Ok((version, None)),
                Err(error) => Err(error.into()),
            }
        })
        .buffered(READS_MAX);
    while let Some((version, bytes)) = entries.try_next().await.context("read the log")? {
        let Some(bytes) = bytes else { continue };
        match Entry::parse(version, &bytes) {
            Ok(entry) => verifier.apply(&entry),
            Err(why) => {
                verifier.report(position(version), Problem::Unreadable { why });
                verifier.apply(&Entry { version, ..Entry::default() });
            }
        }
        if newest == Some(version) {
            match checkpoint(store, version, &files.checkpoints).await {
                Ok(state) => verifier.check_checkpoint(&state),
                Err(error) => {
                    let problem = Problem::Unreadable { why: format!("{error:#}") };
                    verifier.report(position(version), problem);
                }
            }
        }
    }
    Ok(())
}

fn position(version: u64) -> LogPosition {
    LogPosition { version: Some(version), ..LogPosition::default() }
}

/// The state of the table in the checkpoint of a version.
async fn checkpoint(
    store: &dyn ObjectStore,
    version: u64,
    checkpoints: &BTreeMap<u64, Vec<Path>>,
) -> anyhow::Result<TableState> {
    let mut state = TableState::at(version);
    let parts = checkpoints.get(&version).map(Vec::as_slice).unwrap_or_default();
    let columns = ["add.path", "add.stats", "txn.appId", "txn.version", "metaData.id"];
    read_checkpoint(store, parts, &columns, |batch| add_batch(&mut state, batch)).await?;
    Ok(state)
}

/// Takes in a part of a checkpoint.
fn add_batch(state: &mut TableState, batch: &RecordBatch) -> anyhow::Result<()> {
    let (paths, stats) = (action_texts(batch, "add", "path")?, action_texts(batch, "add", "stats")?);
    for (row, path) in paths.iter().enumerate() {
        if let Some(path) = path {
            state.add_file(path, stats.get(row).and_then(|stats| stats.as_deref()));
        }
    }
    let numbers = batch.column_by_name("txn").and_then(|txn| txn.as_struct_opt()?.column_by_name("version").cloned());
    let numbers = numbers.as_ref().and_then(|numbers| numbers.as_primitive_opt::<Int64Type>());
    for (row, id) in action_texts(batch, "txn", "appId")?.iter().enumerate() {
        if let (Some(id), Some(numbers)) = (id, numbers) {
            state.set_txn(id, numbers.value(row));
        }
    }
    for id in action_texts(batch, "metaData", "id")?.into_iter().flatten() {
        state.table_id = Some(id);
    }
    Ok(())
}
