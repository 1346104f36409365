//! How many unresolved rejects each day of each table has.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::Context;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use futures::TryStreamExt;
use object_store::path::Path;
use silverd_core::zone::Zone;

use crate::delta::{DataFile, TableReader, entry_path, read_columns};

const COLUMNS: [&str; 3] = ["table", "timestamp", "resolved_at"];

type Counts = BTreeMap<(String, i32), u64>;

/// The unresolved rejects of all Silver tables, by the day of the record's timestamp in the table's zone.
pub(super) struct QuarantineCounts {
    path: PathBuf,
    zones: BTreeMap<String, Zone>,
    open: Option<Open>,
    counts: Counts,
}

struct Open {
    reader: TableReader,
    version: u64,
    of_files: HashMap<Path, Counts>,
}

impl QuarantineCounts {
    /// The tables that are counted, with their zones.
    pub(super) fn new(path: PathBuf, zones: BTreeMap<String, Zone>) -> Self {
        Self { path, zones, open: None, counts: Counts::new() }
    }

    pub(super) fn of(&self, table: &str, day: i32) -> u64 {
        if self.counts.is_empty() {
            return 0;
        }
        self.counts.get(&(table.to_owned(), day)).copied().unwrap_or(0)
    }

    /// Takes in what was rejected and resolved since the last call.
    pub(super) async fn follow(&mut self) -> anyhow::Result<()> {
        if self.zones.is_empty() {
            return Ok(());
        }
        let is_gone = |open: &Open| !self.path.join(entry_path(open.version).to_string()).exists();
        if self.open.as_ref().is_some_and(is_gone) {
            self.open = None;
        }
        let mut changed = false;
        if self.open.is_none() {
            self.open = self.open().await.context("count the rejects in the quarantine")?;
            changed = true;
        }
        changed |= self.read_new().await.context("count the rejects in the quarantine")?;
        if changed {
            self.counts = Counts::new();
            for (of, count) in self.open.iter().flat_map(|open| open.of_files.values()).flatten() {
                *self.counts.entry(of.clone()).or_default() += count;
            }
        }
        Ok(())
    }

    async fn open(&self) -> anyhow::Result<Option<Open>> {
        let Some(reader) = TableReader::open(&self.path)? else { return Ok(None) };
        let Some(version) = reader.version().await? else { return Ok(None) };
        let mut of_files = HashMap::new();
        for file in reader.files_at(version).await? {
            of_files.insert(file.path.clone(), count(&reader, &file, &self.zones).await?);
        }
        Ok(Some(Open { reader, version, of_files }))
    }

    async fn read_new(&mut self) -> anyhow::Result<bool> {
        let mut changed = false;
        while let Some(open) = &mut self.open {
            let version = open.version + 1;
            let Some(commit) = open.reader.files_of_commit(version).await? else { break };
            if commit.added.iter().any(|added| added.has_deleted) {
                // Another engine has marked rows as deleted: the list of files says which.
                self.open = self.open().await?;
                return Ok(true);
            }
            let mut added = Vec::with_capacity(commit.added.len());
            for file in commit.added.iter().map(|added| &added.file) {
                // A file may be gone by now, if it was replaced right away.
                let counted = count(&open.reader, file, &self.zones).await;
                match counted {
                    Ok(counts) => added.push((file.path.clone(), counts)),
                    Err(_) => {
                        self.open = self.open().await?;
                        return Ok(true);
                    }
                }
            }
            commit.removed.iter().for_each(|removed| drop(open.of_files.remove(&removed.path)));
            open.of_files.extend(added);
            open.version = version;
            changed = true;
        }
        Ok(changed)
    }
}

async fn count(reader: &TableReader, file: &DataFile, zones: &BTreeMap<String, Zone>) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let mut read = read_columns(reader.log().object_store(None), file, Some(&COLUMNS)).await?;
    while let Some(batch) = read.batches.try_next().await? {
        count_batch(&batch, zones, &mut counts)?;
    }
    Ok(counts)
}

fn count_batch(batch: &RecordBatch, zones: &BTreeMap<String, Zone>, counts: &mut Counts) -> anyhow::Result<()> {
    let column = |name: &str, ty: &DataType| {
        let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
        anyhow::Ok(cast(column, ty)?)
    };
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let (tables, times) = (column("table", &DataType::Utf8)?, column("timestamp", &time)?);
    // Files of early versions of silverd have no such column.
    let resolved = batch.column_by_name("resolved_at");
    let (tables, times) = (tables.as_string::<i32>(), times.as_primitive::<TimestampMicrosecondType>());
    for row in (0..batch.num_rows()).filter(|row| resolved.is_none_or(|resolved| resolved.is_null(*row))) {
        if let Some(zone) = zones.get(tables.value(row)) {
            *counts.entry((tables.value(row).to_owned(), zone.day_of(times.value(row)))).or_default() += 1;
        }
    }
    Ok(())
}
