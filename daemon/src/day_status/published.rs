//! What the newest version of `gold.day_status` says, and its next version.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use serde_json::json;
use silverd_core::config::Compression;
use silverd_core::days::DayState;
use silverd_core::zone::Zone;

use super::row::{DayRow, from_batch, schema, to_batch};
use crate::delta::{
    Change, DataFile, Encoder, NewFile, Table, TableSpec, entry_path, is_table, read_columns, writer_properties,
};

/// The table, by its name in queries.
pub(super) const TABLE: &str = "gold.day_status";

/// The application id under which the table counts its commits: of two processes that publish, one is first.
const COMMITS: &str = "silverd-day-status";

/// Rows by day and table.
pub(super) type Rows = BTreeMap<(i32, String), DayRow>;

/// The table at the newest version that was read.
#[derive(Default)]
pub(super) struct Published {
    /// The folder that was read.
    path: PathBuf,
    open: Option<Open>,
    rows: Arc<Rows>,
}

struct Open {
    table: Table,
    files: Vec<DataFile>,
    /// The rows of each file: only those of new files are read.
    rows_of: HashMap<ObjectPath, Vec<DayRow>>,
}

impl Published {
    pub(super) fn rows(&self) -> &Arc<Rows> {
        &self.rows
    }

    pub(super) fn row(&self, table: &str, day: i32) -> Option<&DayRow> {
        self.rows.get(&(day, table.to_owned()))
    }

    /// Reads the log again at the next refresh.
    pub(super) fn forget(&mut self) {
        self.open = None;
    }

    /// Takes in what others have published. Costs two look-ups in the folder if that is nothing.
    pub(super) async fn refresh(&mut self, path: &Path) -> anyhow::Result<()> {
        if self.path != path || !is_table(path) {
            *self = Self { path: path.to_path_buf(), ..Self::default() };
        }
        if !is_table(path) {
            return Ok(());
        }
        if let Some(open) = &self.open {
            let exists = |version| path.join(entry_path(version).to_string()).exists();
            // If its own entry is gone, the log was cleaned up, or the table was created again.
            if exists(open.table.version()) && !exists(open.table.version() + 1) {
                return Ok(());
            }
        }
        let Some((table, files)) = Table::open_existing(TABLE, path.to_path_buf()).await? else {
            *self = Self { path: path.to_path_buf(), ..Self::default() };
            return Ok(());
        };
        let mut known = self.open.take().map(|open| open.rows_of).unwrap_or_default();
        let mut rows_of = HashMap::with_capacity(files.len());
        for file in &files {
            let rows = match known.remove(&file.path) {
                Some(rows) => rows,
                None => read_file(&table, file).await.with_context(|| format!("read {} of {TABLE}", file.path))?,
            };
            rows_of.insert(file.path.clone(), rows);
        }
        let rows: Rows = rows_of.values().flatten().map(|row| ((row.day, row.table.clone()), row.clone())).collect();
        (self.open, self.rows) = (Some(Open { table, files, rows_of }), Arc::new(rows));
        Ok(())
    }

    /// Commits these rows: each of their days gets a new file with all tables' rows.
    pub(super) async fn commit(&mut self, path: &Path, changed: Vec<DayRow>) -> anyhow::Result<()> {
        if self.open.is_none() {
            let doc = Some("Which days of which tables are final, and why the others may change.".to_owned());
            let (name, folder, time_zone) = (TABLE.to_owned(), path.to_path_buf(), Zone::default());
            Table::open(&TableSpec { name, path: folder, schema: schema(), doc, time_zone }).await?;
            self.refresh(path).await?;
        }
        let days: BTreeSet<i32> = changed.iter().map(|row| row.day).collect();
        let is_final = |row: &&DayRow| row.state == DayState::Final;
        let info = json!({ "day_status": {
            "days": days.len(), "rows": changed.len(), "final": changed.iter().filter(is_final).count(),
        } });
        let mut rows = Rows::clone(&self.rows);
        rows.extend(changed.into_iter().map(|row| ((row.day, row.table.clone()), row)));
        let open = self.open.as_mut().context("the table was not opened")?;
        let compression = Compression::default();
        let encoder = Encoder::new(schema(), writer_properties(&compression)?.build(), &compression);
        let (mut adds, mut added) = (Vec::<NewFile>::new(), Vec::new());
        for day in &days {
            let of_day: Vec<DayRow> = of_days(&rows, *day..=*day).cloned().collect();
            let (file, bytes) = encoder.encode(*day, &[to_batch(&of_day)?])?;
            file.put(&open.table.store(), bytes).await?;
            added.push((DataFile::from(&file), of_day));
            adds.push(file);
        }
        let is_replaced = |file: &DataFile| file.day().is_some_and(|day| days.contains(&day));
        let (removes, kept): (Vec<_>, Vec<_>) = open.files.iter().cloned().partition(is_replaced);
        let number = open.table.transaction(COMMITS).unwrap_or(0) + 1;
        let progress = vec![(COMMITS.to_owned(), number)];
        let change = Change { adds, removes: removes.clone(), progress, info, ..Change::default() };
        let before = open.table.version();
        let committed = open.table.commit(change).await?;
        removes.iter().for_each(|file| drop(open.rows_of.remove(&file.path)));
        open.files = kept;
        for (file, of_day) in added {
            open.rows_of.insert(file.path.clone(), of_day);
            open.files.push(file);
        }
        self.rows = Arc::new(rows);
        if committed.version != before + 1 {
            // Others, which published nothing, may have replaced files that are listed here.
            self.forget();
        }
        Ok(())
    }
}

/// The rows of some days, by day and table.
pub(super) fn of_days(rows: &Rows, days: RangeInclusive<i32>) -> impl Iterator<Item = &DayRow> {
    let first = (*days.start(), String::new());
    rows.range(first..).map(|(_, row)| row).take_while(move |row| row.day <= *days.end())
}

async fn read_file(table: &Table, file: &DataFile) -> anyhow::Result<Vec<DayRow>> {
    let day = file.day().context("it is in no partition of a day")?;
    let mut read = read_columns(table.store(), file, None).await?;
    let mut rows = Vec::new();
    while let Some(batch) = read.batches.try_next().await? {
        rows.extend(from_batch(&batch, day)?);
    }
    Ok(rows)
}

/// The published rows of some days of a table that another process may write; `None` before the first publication.
pub(crate) async fn days_of(
    path: &Path,
    table: &str,
    days: RangeInclusive<i32>,
) -> anyhow::Result<Option<Vec<DayRow>>> {
    let Some((opened, files)) = Table::open_existing(TABLE, path.to_path_buf()).await? else { return Ok(None) };
    let mut rows = Vec::new();
    for file in files.iter().filter(|file| file.day().is_some_and(|day| days.contains(&day))) {
        rows.extend(read_file(&opened, file).await?.into_iter().filter(|row| row.table == table));
    }
    rows.sort_by_key(|row| row.day);
    Ok(Some(rows))
}
