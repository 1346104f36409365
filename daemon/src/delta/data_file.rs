//! The data files that a version of a table consists of.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::Context;
use chrono::NaiveDate;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Add, LogicalFileView, Remove};
use deltalake_core::logstore::LogStoreRef;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::arrow_reader::RowSelection;
use serde::Deserialize;

use super::damaged::{read_past, readable_version};
use super::day::{EVENT_DATE, day_number, parse_day};
use super::deletion_vector::{DeletionVector, FileToRead};
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
    /// Delta's statistics, as JSON. They count the deleted rows, too.
    pub stats: Option<String>,
    /// The rows that are deleted.
    pub(crate) deleted: Option<Arc<DeletionVector>>,
}

/// A table's data files at its newest version.
pub(crate) async fn list_files(log: &LogStoreRef) -> anyhow::Result<Vec<DataFile>> {
    let files = |log| {
        let mut table = DeltaTable::new(log);
        async move {
            table.load().await?;
            files_of_loaded(&table).await
        }
        .boxed()
    };
    read_past(log, files).await
}

/// A table's data files at a version.
pub(crate) async fn list_files_at(log: &LogStoreRef, version: u64) -> anyhow::Result<Vec<DataFile>> {
    let files = |log: LogStoreRef| {
        let version = readable_version(&log, version);
        let mut table = DeltaTable::new(log);
        async move {
            table.load_version(version).await.with_context(|| format!("load version {version}"))?;
            files_of_loaded(&table).await
        }
        .boxed()
    };
    read_past(log, files).await
}

/// Every day of which a table has rows.
pub(crate) async fn list_days(log: &LogStoreRef) -> anyhow::Result<BTreeSet<NaiveDate>> {
    Ok(list_files(log).await?.iter().filter_map(DataFile::date).collect())
}

/// The data files of a table at the version that it was loaded at.
pub(super) async fn files_of_loaded(table: &DeltaTable) -> anyhow::Result<Vec<DataFile>> {
    let log = table.log_store();
    let views = table.snapshot()?.snapshot().file_views(log.as_ref(), None);
    views.map_err(anyhow::Error::from).and_then(async |file| DataFile::read(&log, &file).await).try_collect().await
}

impl DataFile {
    pub(crate) fn to_read(&self) -> FileToRead {
        FileToRead { path: self.path.clone(), size: self.size, deleted: self.deleted.clone() }
    }

    /// The day of the file's rows.
    pub(crate) fn date(&self) -> Option<NaiveDate> {
        parse_day(self.event_date.as_deref()?)
    }

    /// The number of rows, by the statistics.
    pub(crate) fn rows(&self) -> Option<u64> {
        Some(self.all_rows()?.saturating_sub(self.deleted.as_ref().map_or(0, |deleted| deleted.count())))
    }

    /// With the deleted ones.
    pub(crate) fn all_rows(&self) -> Option<u64> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_records: u64,
        }
        Some(serde_json::from_str::<Stats>(self.stats.as_deref()?).ok()?.num_records)
    }

    /// What is left of its rows; `None` for a file without deleted ones.
    pub(crate) fn without_deleted(&self) -> anyhow::Result<Option<RowSelection>> {
        let Some(deleted) = &self.deleted else { return Ok(None) };
        // The protocol requires them for a file with a deletion vector.
        let all =
            self.all_rows().with_context(|| format!("{} has a deletion vector and no `numRecords`", self.path))?;
        Ok(Some(deleted.selection(0..all)))
    }

    /// The day of the file's rows, in days since the epoch.
    pub(crate) fn day(&self) -> Option<i32> {
        day_number(self.event_date.as_deref()?)
    }
}

impl DataFile {
    async fn read(log: &LogStoreRef, file: &LogicalFileView) -> anyhow::Result<Self> {
        let path = file.object_store_path();
        let deleted = match file.deletion_vector_descriptor() {
            Some(descriptor) => {
                let read = DeletionVector::read(log, descriptor).await.with_context(|| format!("list {path}"))?;
                Some(Arc::new(read))
            }
            None => None,
        };
        Ok(Self {
            path,
            deleted,
            event_date: file.partition_values_map().remove(EVENT_DATE).flatten(),
            size: file.size() as u64,
            modified_ms: file.modification_time(),
            stats: file.stats(),
        })
    }
}

impl TryFrom<&Add> for DataFile {
    type Error = anyhow::Error;

    /// The file as it was added, without a deletion vector.
    fn try_from(add: &Add) -> anyhow::Result<Self> {
        Ok(Self {
            path: Path::from_url_path(&add.path)?,
            event_date: add.partition_values.get(EVENT_DATE).cloned().flatten(),
            size: add.size as u64,
            modified_ms: add.modification_time,
            stats: add.stats.clone(),
            deleted: None,
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
            deleted: None,
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
            deletion_vector: file.deleted.as_ref().map(|deleted| deleted.descriptor.clone()),
            base_row_id: None,
            default_row_commit_version: None,
        }
    }
}
