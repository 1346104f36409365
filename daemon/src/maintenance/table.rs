//! One table under care: what is to be done for it, and doing it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use object_store::ObjectStoreExt;
use serde_json::json;
use silverd_core::compaction::next_merge;
use silverd_core::config::{Compression, Maintenance, Pipeline};
use tracing::debug;

use super::merge::merge;
use super::room::{Pace, free_bytes};
use super::sweep::{Swept, sweep};
use super::trim::{Trimmed, trim};
use crate::bronze;
use crate::clock;
use crate::delta::{Change, CommitError, DataFile, Encoder, Table, writer_properties};
use crate::silver::properties_with;

/// A day whose newest file is older than this has all its events, most likely.
const QUIET: Duration = Duration::from_secs(60 * 60);
/// Checkpoints name removed files for this part of the span that the files are kept for, and for no longer than ten minutes.
/// silverd itself reads in the entries when a file was removed.
const MARKS: u64 = 144;
const MARKS_MAX: Duration = Duration::from_secs(10 * 60);
/// Merges that others were faster than, in a row; then it is looked again later.
const OVERTAKEN_MAX: usize = 5;

/// A table, and how its files are written.
#[derive(Clone, Debug)]
pub struct Kept {
    /// As `silverd query` names it.
    pub name: String,
    pub path: PathBuf,
    kind: Kind,
    compression: Compression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bronze,
    Silver,
    /// The quarantine, and the late events: Silver announces their files before they are committed.
    Side,
    Gold,
}

/// Which days are taken for over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tails {
    /// Those before today that nothing came to for a while.
    OfPastDays,
    /// All: somebody asks for it now.
    OfAllDays,
}

/// What was merged, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub merges: u64,
    pub files: u64,
    pub bytes: u64,
    /// Of the files that took their place.
    pub bytes_written: u64,
}

/// There is not enough room on the disk to merge files.
#[derive(Debug, thiserror::Error)]
#[error("{} are free on the disk of {folder}, and [maintenance] free_bytes_min asks for {}", mib(*free), mib(*wanted))]
pub struct NoRoom {
    folder: String,
    free: u64,
    wanted: u64,
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

impl Kept {
    pub fn new(name: impl Into<String>, path: PathBuf, kind: Kind, compression: Compression) -> Self {
        Self { name: name.into(), path, kind, compression }
    }

    /// Every table of a pipeline, Silver before those that it refers to.
    pub fn all(pipeline: &Pipeline, base: &Path) -> Vec<Self> {
        let plain = Compression::default();
        let silver = pipeline
            .silver
            .iter()
            .map(|table| Self::new(&*table.name, base.join(&*table.path), Kind::Silver, table.compression));
        let bronze = Self::new("bronze", base.join(&*pipeline.bronze.path), Kind::Bronze, pipeline.bronze.compression);
        let sides = [("quarantine", &pipeline.quarantine.path), ("late", &pipeline.late.path)];
        let sides = sides.map(|(name, path)| Self::new(name, base.join(&**path), Kind::Side, plain));
        let gold = pipeline
            .gold
            .iter()
            .map(|gold| Self::new(format!("gold.{}", gold.name), base.join(&*gold.path), Kind::Gold, plain));
        silver.chain([bronze]).chain(sides).chain(gold).collect()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The table and its files; `None` where there is none yet.
    pub async fn open(&self) -> anyhow::Result<Option<(Table, Vec<DataFile>)>> {
        Table::adopt(&self.name, self.path.clone()).await
    }

    /// Merges small files until none of those that are there now are left that are worth it. What comes meanwhile waits for
    /// the next time: other tables, and corrections, want their turn. `files` are those of the version that the table is
    /// known at.
    pub async fn merge(
        &self,
        table: &mut Table,
        mut files: Vec<DataFile>,
        config: &Maintenance,
        tails: Tails,
        pace: &Pace,
    ) -> anyhow::Result<Merged> {
        let (mut merged, mut overtaken) = (Merged::default(), 0);
        let mut ours: HashSet<_> = files.iter().map(|file| file.path.clone()).collect();
        while overtaken < OVERTAKEN_MAX {
            let mut void = None;
            let Some((day, inputs)) = chosen(&files, config.file_bytes_max, tails) else { break };
            let bytes: u64 = inputs.iter().map(|file| file.size).sum();
            self.has_room(config.free_bytes_min, bytes)?;
            let (encoder, known) = (self.encoder(table)?, table.version());
            let file =
                merge(table, &encoder, &day, &inputs, pace).await.with_context(|| format!("merge files of {day}"))?;
            let (made, count) = (DataFile::from(&file), inputs.len() as u64);
            let info = json!({ "maintenance": { "event_date": day, "merged": count, "rows": file.rows() } });
            let change =
                Change { adds: vec![file], removes: inputs.clone(), info, rewrites: true, ..Change::default() };
            match table.commit(change).await {
                Ok(committed) => {
                    overtaken = 0;
                    merged.merges += 1;
                    merged.files += count;
                    merged.bytes += bytes;
                    merged.bytes_written += made.size;
                    ours.insert(made.path.clone());
                    if committed.version == known + 1 {
                        // Nobody was in between: the files are those that this commit left.
                        let gone: HashSet<_> = inputs.iter().map(|file| &file.path).collect();
                        files.retain(|file| !gone.contains(&file.path));
                        files.push(made);
                        continue;
                    }
                }
                Err(CommitError::Unknown(failure)) => return Err(failure.context("commit the merged file")),
                Err(failure) => {
                    debug!(table = %self.name, "commit the merged file: {failure}");
                    overtaken += 1;
                    void = Some(made.path);
                }
            }
            // Others may have removed files in between, and the commit went behind it.
            files = table.files().await?;
            // On a network's disk a commit may land that was said to come too late.
            if let Some(path) = void.filter(|path| files.iter().all(|file| file.path != *path)) {
                let _ = table.store().delete(&path).await;
            }
            files.retain(|file| ours.contains(&file.path));
        }
        Ok(merged)
    }

    /// What would be merged now; further merges may follow from it.
    pub fn would_merge(&self, mut files: Vec<DataFile>, config: &Maintenance, tails: Tails) -> Merged {
        let mut merged = Merged::default();
        while let Some((_, inputs)) = chosen(&files, config.file_bytes_max, tails) {
            let bytes: u64 = inputs.iter().map(|file| file.size).sum();
            merged.merges += 1;
            merged.files += inputs.len() as u64;
            merged.bytes += bytes;
            let (one, rest) = (inputs[0].clone(), &inputs[1..]);
            files.retain(|file| !rest.iter().any(|other| other.path == file.path));
            for file in files.iter_mut().filter(|file| file.path == one.path) {
                file.size = bytes;
            }
        }
        merged
    }

    fn has_room(&self, wanted: u64, bytes: u64) -> anyhow::Result<()> {
        let free = free_bytes(&self.path)?;
        if free.saturating_sub(bytes) < wanted {
            let folder = self.path.display().to_string();
            return Err(NoRoom { folder, free, wanted }.into());
        }
        Ok(())
    }

    /// Tells the log for how long entries are kept, and for how long its checkpoints name removed files. Each checkpoint is
    /// made of the one before: with a commit a second, marks of a whole day would be most of either.
    pub async fn tell_retention(&self, table: &mut Table, config: &Maintenance) -> anyhow::Result<()> {
        let seconds = |ms: u64| format!("interval {} seconds", ms / 1000);
        let marks = (config.retention_ms / MARKS).min(MARKS_MAX.as_millis() as u64);
        let properties = [
            ("delta.deletedFileRetentionDuration", seconds(marks)),
            ("delta.logRetentionDuration", seconds(config.log_retention_ms)),
        ];
        let Some(metadata) = table.with_properties(&properties)? else { return Ok(()) };
        let info = json!({ "maintenance": { "retention_ms": config.retention_ms } });
        let change = Change { metadata: Some(metadata), info, rewrites: true, ..Change::default() };
        table.commit(change).await.context("commit the retention")?;
        Ok(())
    }

    pub async fn sweep(
        &self,
        table: &Table,
        config: &Maintenance,
        rehearsal: bool,
        pace: &Pace,
    ) -> anyhow::Result<Swept> {
        sweep(table, &self.path, Duration::from_millis(config.retention_ms), rehearsal, pace).await
    }

    pub async fn trim(
        &self,
        table: &Table,
        config: &Maintenance,
        rehearsal: bool,
        pace: &Pace,
    ) -> anyhow::Result<Trimmed> {
        trim(table.store().as_ref(), Duration::from_millis(config.log_retention_ms), rehearsal, pace).await
    }

    /// Writes files as the table's own writer does.
    fn encoder(&self, table: &Table) -> anyhow::Result<Encoder> {
        let enums = table.fit().columns.iter().filter(|column| column.cases.is_some());
        let properties = match self.kind {
            Kind::Bronze => bronze::properties(&self.compression)?,
            Kind::Silver => properties_with(&self.compression, enums.map(|column| column.name.as_str()))?,
            Kind::Side | Kind::Gold => writer_properties(&self.compression)?.build(),
        };
        Ok(Encoder::new(table.layout()?, properties, &self.compression))
    }
}

/// The files to merge next, of the day that has the most of them, in the order in which their rows came.
fn chosen(files: &[DataFile], target: u64, tails: Tails) -> Option<(String, Vec<DataFile>)> {
    let mut days = BTreeMap::<&str, Vec<&DataFile>>::new();
    for file in files {
        // What others wrote under names that the log writes otherwise than the folder is left alone.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-=/".contains(&byte);
        if let Some(day) = file.event_date.as_deref().filter(|_| file.path.as_ref().bytes().all(plain)) {
            days.entry(day).or_default().push(file);
        }
    }
    let now = clock::now_ms();
    let today = chrono::DateTime::from_timestamp_millis(now)?.date_naive();
    let mut best: Option<(String, Vec<DataFile>)> = None;
    for (day, mut files) in days {
        files.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
        let newest = files.last().map_or(0, |file| file.modified_ms);
        let past = files.first().and_then(|file| file.date()).is_some_and(|date| date < today);
        let over = tails == Tails::OfAllDays || (past && now - newest > QUIET.as_millis() as i64);
        let sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
        let merged = next_merge(&sizes, target, over);
        if merged.len() > best.as_ref().map_or(0, |(_, files)| files.len()) {
            best = Some((day.to_owned(), merged.into_iter().map(|at| files[at].clone()).collect()));
        }
    }
    best
}
