//! Reading a table that somebody else may write at this moment: its newest version, a view of it, and the days that
//! changed since.

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::Context;
use chrono::NaiveDate;
use datafusion::catalog::TableProvider;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use sha2::{Digest as _, Sha256};

use super::log::newest_version;
use super::table::{days_of, log_at};

/// A table that is only read.
pub struct Reader {
    log: LogStoreRef,
}

impl Reader {
    /// `None` where there is no table.
    pub fn open(path: &FilePath) -> anyhow::Result<Option<Self>> {
        Ok(log_at(path)?.map(|log| Self { log }))
    }

    pub fn log(&self) -> &LogStoreRef {
        &self.log
    }

    /// `None` while the table is being made.
    pub async fn version(&self) -> anyhow::Result<Option<u64>> {
        newest_version(self.log.object_store(None).as_ref()).await
    }

    /// The table as of a version, for DataFusion. Its files are looked up anew at every query, and held by nobody.
    pub async fn at(&self, version: u64) -> anyhow::Result<Arc<dyn TableProvider>> {
        let table = DeltaTable::new(self.log.clone());
        Ok(table.table_provider().with_table_version(version).await?)
    }

    /// What a log's entry looks like: the log of a table that was made anew has another one at the same version. `None` if
    /// the entry has been cleaned away.
    pub async fn mark(&self, version: u64) -> anyhow::Result<Option<String>> {
        let bytes = self.log.read_commit_entry(version).await?;
        Ok(bytes.map(|bytes| Sha256::digest(&bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The days whose rows changed behind `since`, up to `version`; `None` if the log does not tell any more.
    pub async fn days_changed(&self, since: u64, version: u64) -> anyhow::Result<Option<BTreeSet<NaiveDate>>> {
        let mut days = BTreeSet::new();
        for version in since + 1..=version {
            let Some(bytes) = self.log.read_commit_entry(version).await? else { return Ok(None) };
            for action in get_actions(version, &bytes).with_context(|| format!("read commit {version}"))? {
                let day = match &action {
                    Action::Add(add) if add.data_change => add.partition_values.get("event_date"),
                    Action::Remove(gone) if gone.data_change => match &gone.partition_values {
                        Some(values) => values.get("event_date"),
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
    pub async fn days(&self) -> anyhow::Result<BTreeSet<NaiveDate>> {
        days_of(&self.log).await
    }
}

/// A day as Delta writes it.
pub fn parse_day(text: &str) -> Option<NaiveDate> {
    text.parse().ok()
}
