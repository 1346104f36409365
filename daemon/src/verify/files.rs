//! The data files that a log names: whether they are there, and whether they can be read.

use std::collections::HashMap;

use anyhow::Context;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use silverd_core::verify::{LogPosition, Problem, Verifier};

use super::verified::VerifiedTable;
use crate::delta::{DataFile, LOG_FOLDER, list_files_at, read_columns};

/// Reports the live files that are missing, or have another size than the log says.
pub(super) async fn check_presence<V: Verifier>(table: &mut VerifiedTable<V>) -> anyhow::Result<()> {
    let Some(log) = &table.log else { return Ok(()) };
    // A log that cannot be read has findings already.
    let Ok(files) = list_files_at(log, table.verifier.version()).await else { return Ok(()) };
    let sizes = list_data(log.object_store(None).as_ref()).await;
    let sizes = sizes.with_context(|| format!("list the files of {}", table.name))?;
    for file in files {
        let problem = match sizes.get(&file.path) {
            Some(size) if *size == file.size => continue,
            Some(size) => Problem::FileSize { file: file.path.to_string(), expected: file.size, found: *size },
            None => Problem::FileMissing { file: file.path.to_string() },
        };
        table.verifier.report(LogPosition::default(), problem);
    }
    Ok(())
}

/// The files of a table's folder with their sizes, without those of the log.
async fn list_data(store: &dyn ObjectStore) -> anyhow::Result<HashMap<Path, u64>> {
    let top = store.list_with_delimiter(None).await?;
    let mut found: HashMap<_, _> = top.objects.into_iter().map(|file| (file.location, file.size)).collect();
    for folder in top.common_prefixes.iter().filter(|folder| folder.as_ref() != LOG_FOLDER) {
        let mut files = store.list(Some(folder));
        while let Some(file) = files.try_next().await? {
            found.insert(file.location, file.size);
        }
    }
    Ok(found)
}

/// The live files of a version that cannot be read to their end. Reads all of them.
pub(super) async fn find_damaged(log: &LogStoreRef, version: u64) -> anyhow::Result<Vec<Problem>> {
    let mut damaged = Vec::new();
    for file in list_files_at(log, version).await? {
        if let Err(failure) = read(log, &file).await {
            damaged.push(Problem::FileDamaged { file: file.path.to_string(), why: format!("{failure:#}") });
        }
    }
    Ok(damaged)
}

async fn read(log: &LogStoreRef, file: &DataFile) -> anyhow::Result<()> {
    let mut columns = read_columns(log.object_store(None), file.path.clone(), file.size, None).await?;
    while columns.batches.try_next().await?.is_some() {}
    Ok(())
}
