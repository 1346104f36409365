//! Opening a table's log in a local folder.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::{DeltaTable, DeltaTableBuilder};
use object_store::ObjectStore;
use url::Url;

use super::local_store::LocalStore;
use super::log::{is_table, newest_version};
use crate::runtime::machine::simulated;

/// The log of the table in a folder; `None` if there is no table. Creates no folder.
pub(crate) fn open_log(path: &FilePath) -> anyhow::Result<Option<LogStoreRef>> {
    if !is_table(path) {
        return Ok(None);
    }
    Ok(Some(unloaded_table(table_url(path)?)?.log_store()))
}

/// The URL of a table's folder. Creates the folder if it does not exist.
pub(crate) fn table_url(path: &FilePath) -> anyhow::Result<Url> {
    std::fs::create_dir_all(path).with_context(|| {
        format!("create folder {} (is it writable for the user that runs silverd?)", path.display())
    })?;
    let path = path.canonicalize().with_context(|| format!("resolve {}", path.display()))?;
    Url::from_directory_path(&path).map_err(|()| anyhow!("{} is not the path of a folder", path.display()))
}

/// The table at a URL, without its state.
pub(super) fn unloaded_table(url: Url) -> anyhow::Result<DeltaTable> {
    let disk: Arc<dyn ObjectStore> = Arc::new(LocalStore::default());
    let store = match simulated() {
        None => disk,
        Some(machine) => machine.store(disk),
    };
    Ok(DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(store, url).build()?)
}

/// Whether the log has any version. Delta's own check lists a thousand entries first.
pub(super) async fn has_versions(log: &LogStoreRef) -> anyhow::Result<bool> {
    Ok(newest_version(log.object_store(None).as_ref()).await?.is_some())
}
