//! Reading a table while another process may write it: its newest version, its rows, and the days that changed since a
//! version.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use anyhow::Context;
use chrono::NaiveDate;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use object_store::path::Path;
use sha2::{Digest as _, Sha256};

use super::data_file::{DataFile, list_days, list_files_at};
use super::day::{EVENT_DATE, day_number, parse_day};
use super::location::open_log;
use super::log::newest_version;
use super::snapshot::Snapshot;
use super::table::silverd_info;

/// What a commit did to a table's files.
pub(crate) struct CommitFiles {
    pub(crate) added: Vec<CommittedFile>,
    /// The paths of the removed files, with their days.
    pub(crate) removed: Vec<RemovedFile>,
    /// What silverd wrote into the commit's info.
    pub(crate) info: Option<serde_json::Value>,
}

impl CommitFiles {
    /// The days whose rows it changed, each once or more often.
    pub(crate) fn changed_days(&self) -> impl Iterator<Item = i32> {
        let added = self.added.iter().filter(|added| added.data_change).filter_map(|added| added.file.day());
        let removed = self.removed.iter().filter(|removed| removed.data_change).filter_map(|removed| removed.day);
        added.chain(removed)
    }
}

pub(crate) struct CommittedFile {
    pub(crate) file: DataFile,
    /// Its rows are new or changed; otherwise they were in other files before.
    pub(crate) data_change: bool,
    /// The file has rows that are deleted, which `file` does not say.
    pub(crate) has_deleted: bool,
}

pub(crate) struct RemovedFile {
    pub(crate) path: Path,
    /// In days since the epoch; `None` if the log does not say.
    pub(crate) day: Option<i32>,
    pub(crate) data_change: bool,
}

/// A table that is only read.
pub struct TableReader {
    log: LogStoreRef,
}

impl TableReader {
    /// `None` if there is no table.
    pub fn open(path: &FilePath) -> anyhow::Result<Option<Self>> {
        Ok(open_log(path)?.map(|log| Self { log }))
    }

    pub fn log(&self) -> &LogStoreRef {
        &self.log
    }

    /// The newest version; `None` while the table is being created.
    pub async fn version(&self) -> anyhow::Result<Option<u64>> {
        newest_version(self.log.object_store(None).as_ref()).await
    }

    /// The table's columns and files at a version.
    pub(crate) async fn snapshot_at(&self, version: u64) -> anyhow::Result<Snapshot> {
        Snapshot::load(&self.log, version).await
    }

    /// A digest of a version's commit, which differs if the table was deleted and created again. `None` if the commit
    /// has been cleaned up.
    pub(crate) async fn entry_digest(&self, version: u64) -> anyhow::Result<Option<String>> {
        let bytes = self.log.read_commit_entry(version).await?;
        Ok(bytes.map(|bytes| Sha256::digest(&bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The days whose rows changed after version `since`, up to `version`; `None` if the log no longer has these
    /// commits.
    pub(crate) async fn days_changed(&self, since: u64, version: u64) -> anyhow::Result<Option<BTreeSet<NaiveDate>>> {
        let mut days = BTreeSet::new();
        for version in since + 1..=version {
            let Some(bytes) = self.log.read_commit_entry(version).await? else { return Ok(None) };
            for action in get_actions(version, &bytes).with_context(|| format!("read commit {version}"))? {
                let day = match &action {
                    Action::Add(add) if add.data_change => add.partition_values.get(EVENT_DATE),
                    Action::Remove(remove) if remove.data_change => match &remove.partition_values {
                        Some(values) => values.get(EVENT_DATE),
                        None => return Ok(None),
                    },
                    _ => continue,
                };
                days.extend(day.and_then(|day| day.as_deref()).and_then(parse_day));
            }
        }
        Ok(Some(days))
    }

    /// The files of a version's commit; `None` if there is no such version (yet, or any more).
    pub(crate) async fn files_of_commit(&self, version: u64) -> anyhow::Result<Option<CommitFiles>> {
        let Some(bytes) = self.log.read_commit_entry(version).await? else { return Ok(None) };
        let actions = get_actions(version, &bytes).with_context(|| format!("read commit {version}"))?;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for action in &actions {
            match action {
                Action::Add(add) => added.push(CommittedFile {
                    file: DataFile::try_from(add)?,
                    data_change: add.data_change,
                    has_deleted: add.deletion_vector.is_some(),
                }),
                Action::Remove(remove) => {
                    let values = remove.partition_values.as_ref();
                    let day = values.and_then(|values| day_number(values.get(EVENT_DATE)?.as_deref()?));
                    let path = Path::from_url_path(&remove.path)?;
                    removed.push(RemovedFile { path, day, data_change: remove.data_change });
                }
                _ => {}
            }
        }
        Ok(Some(CommitFiles { added, removed, info: silverd_info(actions) }))
    }

    /// The table's files at a version.
    pub(crate) async fn files_at(&self, version: u64) -> anyhow::Result<Vec<DataFile>> {
        list_files_at(&self.log, version).await
    }

    /// Every day of which the table has rows.
    pub(crate) async fn days(&self) -> anyhow::Result<BTreeSet<NaiveDate>> {
        list_days(&self.log).await
    }
}
