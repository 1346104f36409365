//! One table under maintenance: what is to be done for it, and doing it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use object_store::ObjectStoreExt;
use serde_json::json;
use silverd_core::compaction;
use silverd_core::config::{Compression, DAY_STATUS, Maintenance, Pipeline};
use silverd_core::zone::Zone;
use tracing::debug;

use super::compact::{Compacted, write_compacted};
use super::error::MaintenanceError;
use super::log_cleanup::{CleanedUp, clean_up_log};
use super::retention::{Retention, own_properties};
use super::throttle::{Throttle, free_bytes};
use super::vacuum::{Vacuumed, vacuum};
use crate::bronze;
use crate::delta::{Change, CommitError, DataFile, Encoder, Table, writer_properties};
use crate::runtime::clock;
use crate::tables::silver::properties_with;

/// A past day is complete if its newest file is older than this.
const COMPLETE_AFTER: Duration = Duration::from_secs(60 * 60);
/// Consecutive conflicts after which compaction waits for the next run.
const CONFLICTS_MAX: usize = 5;

/// A table, and how its files are written.
#[derive(Clone, Debug)]
pub struct MaintainedTable {
    /// The name in `silverd query`.
    pub name: String,
    pub path: PathBuf,
    kind: TableKind,
    compression: Compression,
    /// That of its days.
    time_zone: Zone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    Bronze,
    Silver,
    /// The quarantine and the late events, whose files Silver announces before they are committed.
    SideOutput,
    Gold,
}

/// Which days count as complete, so that their last small files are compacted, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompleteDays {
    /// Days before today that got no file for an hour.
    Past,
    /// All days, since a person asks for maintenance now.
    All,
}

impl MaintainedTable {
    pub fn new(name: impl Into<String>, path: PathBuf, kind: TableKind, compression: Compression) -> Self {
        Self { name: name.into(), path, kind, compression, time_zone: Zone::UTC }
    }

    /// The table with days in a zone.
    fn in_zone(self, time_zone: Zone) -> Self {
        Self { time_zone, ..self }
    }

    /// Every table of a pipeline: Silver before the tables that its logs refer to.
    pub fn all(pipeline: &Pipeline, base_dir: &Path) -> Vec<Self> {
        let default = Compression::default();
        let path = |path: &str| base_dir.join(path);
        let silver = pipeline.silver.iter().map(|table| {
            Self::new(&*table.name, path(&table.path), TableKind::Silver, table.compression).in_zone(table.time_zone)
        });
        let bronze = Self::new("bronze", path(&pipeline.bronze.path), TableKind::Bronze, pipeline.bronze.compression);
        let side_outputs = [("quarantine", &pipeline.quarantine.path), ("late", &pipeline.late.path)]
            .map(|(name, folder)| Self::new(name, path(folder), TableKind::SideOutput, default));
        let gold = pipeline.gold.iter().map(|gold| {
            Self::new(format!("gold.{}", gold.name), path(&gold.path), TableKind::Gold, default).in_zone(gold.time_zone)
        });
        let days = Self::new(format!("gold.{DAY_STATUS}"), path(&pipeline.days.path), TableKind::Gold, default);
        silver.chain([bronze]).chain(side_outputs).chain(gold).chain([days]).collect()
    }

    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// The table and its files; `None` if it does not exist yet.
    pub async fn open(&self) -> anyhow::Result<Option<(Table, Vec<DataFile>)>> {
        Table::open_existing(&self.name, self.path.clone()).await
    }

    /// Compacts small files until none of the current ones is worth it. Files that are added meanwhile wait for the
    /// next run, since other tables and corrections need their turn. `files` are those of the version that `table` is
    /// at.
    pub async fn compact(
        &self,
        table: &mut Table,
        mut files: Vec<DataFile>,
        config: &Maintenance,
        complete: CompleteDays,
        throttle: &Throttle,
    ) -> Result<Compacted, MaintenanceError> {
        let (mut compacted, mut conflicts) = (Compacted::default(), 0);
        let mut eligible: HashSet<_> = files.iter().map(|file| file.path.clone()).collect();
        while conflicts < CONFLICTS_MAX {
            let Some((day, inputs)) = next_compaction(&files, config.file_bytes_max, complete, self.time_zone) else {
                break;
            };
            let bytes: u64 = inputs.iter().map(|file| file.size).sum();
            self.check_disk_space(config.free_bytes_min, bytes)?;
            let (encoder, version) = (self.encoder(table)?, table.version());
            let file = write_compacted(table, &encoder, &day, &inputs, throttle).await;
            let file = file.map_err(|failure| failure.context(format!("compact files of {day}")))?;
            let (output, count) = (DataFile::from(&file), inputs.len() as u64);
            // `merged` is part of the on-disk format.
            let info = json!({ "maintenance": { "event_date": day, "merged": count, "rows": file.rows() } });
            let change =
                Change { adds: vec![file], removes: inputs.clone(), info, rewrites: true, ..Change::default() };
            let mut discarded = None;
            match table.commit(change).await {
                Ok(committed) => {
                    conflicts = 0;
                    compacted.compactions += 1;
                    compacted.files += count;
                    compacted.bytes += bytes;
                    compacted.bytes_written += output.size;
                    eligible.insert(output.path.clone());
                    if committed.version == version + 1 {
                        // No other commit came in between: the new list of files is known without reading the log.
                        let removed: HashSet<_> = inputs.iter().map(|file| &file.path).collect();
                        files.retain(|file| !removed.contains(&file.path));
                        files.push(output);
                        continue;
                    }
                }
                Err(CommitError::Unknown(failure)) => return Err(failure.context("commit the compacted file").into()),
                Err(failure) => {
                    debug!(table = %self.name, "commit the compacted file: {failure}");
                    conflicts += 1;
                    discarded = Some(output.path);
                }
            }
            // Other writers may have removed files in the versions in between.
            files = table.files().await?;
            // On a network file system, a commit that was reported as too late may have succeeded.
            if let Some(path) = discarded.filter(|path| files.iter().all(|file| file.path != *path)) {
                let _ = table.store().delete(&path).await;
            }
            files.retain(|file| eligible.contains(&file.path));
        }
        Ok(compacted)
    }

    /// What compaction would do now. Its output may be compacted again.
    pub(crate) fn plan_compaction(
        &self,
        mut files: Vec<DataFile>,
        config: &Maintenance,
        complete: CompleteDays,
    ) -> Compacted {
        let mut compacted = Compacted::default();
        while let Some((_, inputs)) = next_compaction(&files, config.file_bytes_max, complete, self.time_zone) {
            let bytes: u64 = inputs.iter().map(|file| file.size).sum();
            compacted.compactions += 1;
            compacted.files += inputs.len() as u64;
            compacted.bytes += bytes;
            // The first input stands for the output.
            let (first, rest) = (inputs[0].clone(), &inputs[1..]);
            files.retain(|file| !rest.iter().any(|other| other.path == file.path));
            for file in files.iter_mut().filter(|file| file.path == first.path) {
                file.size = bytes;
            }
        }
        compacted
    }

    fn check_disk_space(&self, required_bytes: u64, output_bytes: u64) -> Result<(), MaintenanceError> {
        let free_bytes = free_bytes(&self.path)?;
        if free_bytes.saturating_sub(output_bytes) < required_bytes {
            let folder = self.path.display().to_string();
            return Err(MaintenanceError::DiskSpaceLow { folder, free_bytes, required_bytes });
        }
        Ok(())
    }

    /// Sets the table properties that say how long the log keeps entries, and how long its checkpoints name removed
    /// files, unless somebody else has set them.
    pub async fn set_retention(&self, table: &mut Table, config: &Maintenance) -> anyhow::Result<()> {
        let Some(metadata) = table.with_properties(&own_properties(table, config))? else { return Ok(()) };
        let info = json!({ "maintenance": { "retention_ms": config.retention_ms } });
        let change = Change { metadata: Some(metadata), info, rewrites: true, ..Change::default() };
        table.commit(change).await.context("commit the retention")?;
        Ok(())
    }

    pub async fn vacuum(
        &self,
        table: &Table,
        config: &Maintenance,
        dry_run: bool,
        throttle: &Throttle,
    ) -> Result<Vacuumed, MaintenanceError> {
        vacuum(table, &self.path, Retention::of(table, config).files, dry_run, throttle).await
    }

    pub async fn clean_up_log(
        &self,
        table: &Table,
        config: &Maintenance,
        dry_run: bool,
        throttle: &Throttle,
    ) -> Result<CleanedUp, MaintenanceError> {
        clean_up_log(table.store().as_ref(), &self.path, Retention::of(table, config).log, dry_run, throttle).await
    }

    /// Encodes files as the table's own writer does.
    fn encoder(&self, table: &Table) -> anyhow::Result<Encoder> {
        let enums = table.fit().columns.iter().filter(|column| column.cases.is_some());
        let properties = match self.kind {
            TableKind::Bronze => bronze::properties(&self.compression)?,
            TableKind::Silver => properties_with(&self.compression, enums.map(|column| column.name.as_str()))?,
            TableKind::SideOutput | TableKind::Gold => writer_properties(&self.compression)?.build(),
        };
        Ok(Encoder::new(table.layout()?, properties, &self.compression))
    }
}

/// The files to compact next, in the order of their rows: of the day that has the most of them.
fn next_compaction(
    files: &[DataFile],
    target: u64,
    complete: CompleteDays,
    zone: Zone,
) -> Option<(String, Vec<DataFile>)> {
    let mut days = BTreeMap::<&str, Vec<&DataFile>>::new();
    for file in files {
        // Files of other writers whose names the log encodes differently from the folder are not compacted.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-=/".contains(&byte);
        if let Some(day) = file.event_date.as_deref().filter(|_| file.path.as_ref().bytes().all(is_plain)) {
            days.entry(day).or_default().push(file);
        }
    }
    let now = clock::now_ms();
    let today = zone.day_of(now.saturating_mul(1_000));
    let mut best: Option<(String, Vec<DataFile>)> = None;
    for (day, mut files) in days {
        files.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
        let newest = files.last().map_or(0, |file| file.modified_ms);
        let is_past = files.first().and_then(|file| file.day()).is_some_and(|day| day < today);
        let is_quiet = now - newest > COMPLETE_AFTER.as_millis() as i64;
        let is_complete = complete == CompleteDays::All || (is_past && is_quiet);
        let sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
        let chosen = compaction::next_compaction(&sizes, target, is_complete);
        if chosen.len() > best.as_ref().map_or(0, |(_, files)| files.len()) {
            best = Some((day.to_owned(), chosen.into_iter().map(|at| files[at].clone()).collect()));
        }
    }
    best
}
