//! Reads a table's log into its proof: a checkpoint where the first entries are gone, then every entry, in order.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use silverd_core::verify::{Entry, Place, Problem, Proof, State};

use crate::delta::{LogFiles, entry_path, list, texts};

/// Entries that are read at a time.
const READS_MAX: usize = 16;
/// How often a log that is cleaned while it is read is begun anew.
const TRIES_MAX: usize = 3;

/// Reads a log, as it is now, into a proof that `make` begins.
pub async fn read<P: Proof>(store: &dyn ObjectStore, make: impl Fn() -> P) -> anyhow::Result<P> {
    let mut tries = 0;
    loop {
        let mut proof = make();
        let files = list(store).await.context("list the log")?;
        read_files(store, &files, &mut proof).await?;
        tries += 1;
        // Entries that were listed and are gone were cleaned away meanwhile, behind a newer checkpoint.
        let first = list(store).await.context("list the log")?.commits.into_keys().next();
        if first == files.commits.keys().next().copied() || tries == TRIES_MAX {
            return Ok(proof);
        }
    }
}

async fn read_files(store: &dyn ObjectStore, files: &LogFiles, proof: &mut impl Proof) -> anyhow::Result<()> {
    let mut start = 0;
    let (first, last) = (files.commits.keys().next().copied(), files.commits.keys().next_back().copied());
    if first != Some(0) {
        // The oldest checkpoint from which on no entry is missing gives the longest proof.
        let at = first.map_or_else(
            || files.checkpoints.keys().next_back(),
            |first| files.checkpoints.range(first.saturating_sub(1)..).next().map(|(version, _)| version),
        );
        if let Some(at) = at {
            let state = checkpoint(store, *at, &files.checkpoints).await?;
            proof.begin(state);
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
                Err(failure) => Err(failure.into()),
            }
        })
        .buffered(READS_MAX);
    while let Some((version, bytes)) = entries.try_next().await.context("read the log")? {
        let Some(bytes) = bytes else { continue };
        match Entry::parse(version, &bytes) {
            Ok(entry) => proof.take(&entry),
            Err(why) => {
                proof.report(Place { version: Some(version), ..Place::default() }, Problem::Unreadable { why });
                proof.take(&Entry { version, ..Entry::default() });
            }
        }
        if newest == Some(version) {
            match checkpoint(store, version, &files.checkpoints).await {
                Ok(state) => proof.compare(&state),
                Err(failure) => {
                    let problem = Problem::Unreadable { why: format!("{failure:#}") };
                    proof.report(Place { version: Some(version), ..Place::default() }, problem);
                }
            }
        }
    }
    Ok(())
}

/// What a checkpoint says of the table at its version.
async fn checkpoint(
    store: &dyn ObjectStore,
    version: u64,
    checkpoints: &BTreeMap<u64, Vec<Path>>,
) -> anyhow::Result<State> {
    let mut state = State::at(version);
    for part in checkpoints.get(&version).into_iter().flatten() {
        let read = async { anyhow::Ok(store.get(part).await?.bytes().await?) };
        let read = read.await.and_then(|bytes| read_part(bytes, &mut state));
        read.with_context(|| format!("read checkpoint {part}"))?;
    }
    Ok(state)
}

fn read_part(bytes: Bytes, state: &mut State) -> anyhow::Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let columns = ["add.path", "add.stats", "txn.appId", "txn.version", "metaData.id"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let (paths, stats) = (texts(&batch, "add", "path")?, texts(&batch, "add", "stats")?);
        for (row, path) in paths.iter().enumerate() {
            if let Some(path) = path {
                state.file(path, stats.get(row).and_then(|stats| stats.as_deref()));
            }
        }
        let numbers =
            batch.column_by_name("txn").and_then(|txn| txn.as_struct_opt()?.column_by_name("version").cloned());
        let numbers = numbers.as_ref().and_then(|numbers| numbers.as_primitive_opt::<Int64Type>());
        for (row, id) in texts(&batch, "txn", "appId")?.iter().enumerate() {
            if let (Some(id), Some(numbers)) = (id, numbers) {
                state.txn(id, numbers.value(row));
            }
        }
        for id in texts(&batch, "metaData", "id")?.into_iter().flatten() {
            state.table_id = Some(id);
        }
    }
    Ok(())
}
