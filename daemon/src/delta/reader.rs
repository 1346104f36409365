//! Reading a table while another process may write it: its newest version, its rows, and the days that changed since a
//! version.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use anyhow::Context;
use chrono::NaiveDate;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use sha2::{Digest as _, Sha256};

use super::data_file::list_days;
use super::day::{EVENT_DATE, parse_day};
use super::location::open_log;
use super::log::newest_version;
use super::snapshot::Snapshot;

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

    /// Every day of which the table has rows.
    pub(crate) async fn days(&self) -> anyhow::Result<BTreeSet<NaiveDate>> {
        list_days(&self.log).await
    }
}
