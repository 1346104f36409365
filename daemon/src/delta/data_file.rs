//! The data files that a version of a table consists of.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, bail};
use chrono::NaiveDate;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{LogicalFileView, Remove};
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::path::Path;
use serde::Deserialize;

use super::day::{EVENT_DATE, parse_day};
use super::file::NewFile;
use crate::runtime::clock;

/// A data file of a table.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub path: Path,
    /// The day of its events, as the partition folder spells it.
    pub event_date: Option<String>,
    pub size: u64,
    pub modified_ms: i64,
    /// Delta's statistics, as JSON.
    pub stats: Option<String>,
}

/// A table's data files at its newest version.
pub(crate) async fn list_files(log: &LogStoreRef) -> anyhow::Result<Vec<DataFile>> {
    let mut table = DeltaTable::new(log.clone());
    table.load().await?;
    files_of_loaded(&table).await
}

/// A table's data files at a version.
pub(crate) async fn list_files_at(log: &LogStoreRef, version: u64) -> anyhow::Result<Vec<DataFile>> {
    let mut table = DeltaTable::new(log.clone());
    table.load_version(version).await.with_context(|| format!("load version {version}"))?;
    files_of_loaded(&table).await
}

/// Every day of which a table has rows.
pub(crate) async fn list_days(log: &LogStoreRef) -> anyhow::Result<BTreeSet<NaiveDate>> {
    Ok(list_files(log).await?.iter().filter_map(DataFile::date).collect())
}

/// The data files of a table at the version that it was loaded at.
pub(super) async fn files_of_loaded(table: &DeltaTable) -> anyhow::Result<Vec<DataFile>> {
    let log = table.log_store();
    let views = table.snapshot()?.snapshot().file_views(log.as_ref(), None);
    views.map_err(anyhow::Error::from).and_then(async |file| DataFile::try_from(&file)).try_collect().await
}

impl DataFile {
    /// The day of the file's rows.
    pub(crate) fn date(&self) -> Option<NaiveDate> {
        parse_day(self.event_date.as_deref()?)
    }

    /// The number of rows, by the statistics.
    pub(crate) fn rows(&self) -> Option<u64> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_records: u64,
        }
        Some(serde_json::from_str::<Stats>(self.stats.as_deref()?).ok()?.num_records)
    }

    /// The day of the file's rows, in days since the epoch.
    pub(crate) fn day(&self) -> Option<i32> {
        i32::try_from(self.date()?.signed_duration_since(NaiveDate::default()).num_days()).ok()
    }
}

impl TryFrom<&LogicalFileView> for DataFile {
    type Error = anyhow::Error;

    fn try_from(file: &LogicalFileView) -> anyhow::Result<Self> {
        let path = file.object_store_path();
        if file.deletion_vector_descriptor().is_some() {
            bail!(
                "{path} has a deletion vector, by which another engine deleted some of its rows, and which silverd cannot \
                 read. Let that engine write the files again without the rows; in Spark: REORG TABLE … APPLY (PURGE)"
            );
        }
        Ok(Self {
            path,
            event_date: file.partition_values_map().remove(EVENT_DATE).flatten(),
            size: file.size() as u64,
            modified_ms: file.modification_time(),
            stats: file.stats(),
        })
    }
}

impl From<&NewFile> for DataFile {
    fn from(file: &NewFile) -> Self {
        Self {
            path: Path::from(file.path.as_str()),
            event_date: file.event_date.clone(),
            size: file.size,
            modified_ms: file.modified_ms,
            stats: Some(file.stats.clone()),
        }
    }
}

impl From<DataFile> for Remove {
    fn from(file: DataFile) -> Self {
        Remove {
            path: file.path.to_string(),
            data_change: true,
            deletion_timestamp: Some(clock::now_ms()),
            extended_file_metadata: Some(true),
            partition_values: Some(HashMap::from([(EVENT_DATE.to_owned(), file.event_date)])),
            size: Some(file.size as i64),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
        }
    }
}
