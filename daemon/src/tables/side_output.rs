//! Side outputs: tables that all Silver tables write in addition to their rows (the quarantine, the late events). They
//! are written through an outbox, so that they have each row exactly once:
//!
//! ```text
//!   put       the file is written; no commit has it yet
//!    │
//!   announce  Silver commits { its rows, a description of the file, txn announced = n }
//!    │
//!    ├─▶ publish   the side output commits { the file, txn published, for this Silver table = n }
//!    │
//!    └─▶ a crash ─▶ recover   when the Silver table is opened or maintained, and announced > published:
//!                             publishes the files published + 1 to announced, from the info of Silver's commits
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use serde_json::json;
use silverd_core::chunk::day_of;
use silverd_core::config::Compression;
use silverd_core::schema::COMMENT;
use silverd_core::zone::Zone;
use tokio::sync::{Mutex, MutexGuard};
use tracing::error;

use crate::delta::{CommitError, Encoder, NewFile, Table, TableSpec, writer_properties};
use crate::runtime::clock;
use crate::telemetry::TableStats;

/// What distinguishes the side outputs.
#[derive(Debug)]
pub(crate) struct SideOutputKind {
    /// The table's name, in messages and in SQL.
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    /// The application id under which a Silver table counts its announcements.
    pub(crate) announced: &'static str,
    /// The prefix of the application id under which the side output counts the announcements of a Silver table that it
    /// has published. The Silver table's Delta id follows, so that a table that is created again counts from the start.
    pub(crate) published: &'static str,
    /// The key of the file in the info of Silver's commit.
    pub(crate) key: &'static str,
    /// The key of the number of rows in the info of the side output's commit.
    pub(crate) count_key: &'static str,
    pub(crate) schema: fn() -> SchemaRef,
}

/// A side output, shared by all Silver tables.
pub struct SideOutput {
    pub(crate) kind: &'static SideOutputKind,
    path: PathBuf,
    table: Mutex<Table>,
    encoder: Encoder,
    stats: Arc<TableStats>,
}

/// A file for a side output that a Silver commit is to announce.
#[derive(Clone)]
pub(crate) struct Announced {
    side_output: Arc<SideOutput>,
    file: NewFile,
}

/// An application id that a commit sets.
pub(crate) struct Moved {
    pub(crate) id: String,
    /// The version that it has until then.
    pub(crate) before: Option<i64>,
    pub(crate) after: i64,
}

/// How often a commit is tried again if other writers commit first.
const PUBLISH_TRIES_MAX: usize = 10;

/// Adds the announcements to a Silver commit: their numbers to `progress`, the files to `info`.
pub(crate) fn announce(
    announced: Vec<Announced>,
    silver: &Table,
    progress: &mut Vec<(String, i64)>,
    info: &mut serde_json::Value,
) -> anyhow::Result<Vec<(Announced, i64)>> {
    let mut numbered = Vec::with_capacity(announced.len());
    for announced in announced {
        let kind = announced.side_output.kind;
        let number = silver.transaction(kind.announced).unwrap_or(0) + 1;
        progress.push((kind.announced.to_owned(), number));
        info[kind.key] = serde_json::to_value(&announced.file)?;
        numbered.push((announced, number));
    }
    Ok(numbered)
}

/// Publishes the files that a Silver commit has announced.
pub(crate) async fn publish(announced: Vec<(Announced, i64)>, silver: &Table) -> anyhow::Result<()> {
    for (Announced { side_output, file }, number) in announced {
        side_output.publish(silver, number, file).await?;
    }
    Ok(())
}

impl SideOutputKind {
    fn table_spec(&self, path: PathBuf) -> TableSpec {
        // Their day is that of their commit, in UTC: they hold events of all tables.
        let (name, doc) = (self.name.to_owned(), Some(self.doc.to_owned()));
        TableSpec { name, path, schema: (self.schema)(), doc, time_zone: Zone::UTC }
    }

    fn published_id(&self, silver: &Table) -> String {
        format!("{}:{}", self.published, silver.id)
    }
}

impl SideOutput {
    /// Opens the table. One whose log has lost its progress opens, too, but nothing is committed to it: Bronze does not
    /// depend on it.
    pub(crate) async fn open(kind: &'static SideOutputKind, path: PathBuf) -> anyhow::Result<Self> {
        let table = Table::open(&kind.table_spec(path.clone())).await?;
        let compression = Compression::default();
        let encoder = Encoder::new((kind.schema)(), writer_properties(&compression)?.build(), &compression);
        let opened = Self { kind, path, table: Mutex::new(table), encoder, stats: Arc::default() };
        if let Err(failure) = opened.check_progress().await {
            error!(table = kind.name, "{failure}");
        }
        Ok(opened)
    }

    /// Fails if the log has lost which announcements are published.
    pub(crate) async fn check_progress(&self) -> anyhow::Result<()> {
        self.check_progress_of(&*self.table.lock().await)
    }

    fn check_progress_of(&self, table: &Table) -> anyhow::Result<()> {
        if table.lost_transactions() == 0 {
            return Ok(());
        }
        bail!(
            "the log of the table {} has lost at least {} of the `txn` actions that say which of its rows it has: another \
             engine has deleted them, and the commits that set them are gone. silverd does not write the table, nor the \
             tables that send rows to it, since it would write rows again; bronze is written. Stop silverd, move {} away, \
             and start silverd, which creates it again. What it has until now stays in the folder that you move; `silverd \
             rebuild` of a Silver table finds the table's rejects again",
            self.kind.name,
            table.lost_transactions(),
            self.path.display()
        )
    }

    pub(crate) fn stats(&self) -> Arc<TableStats> {
        self.stats.clone()
    }

    /// Writes rows to a file that is not committed yet.
    pub(crate) async fn put(self: &Arc<Self>, rows: RecordBatch) -> anyhow::Result<Announced> {
        Ok(Announced { side_output: self.clone(), file: self.write(rows).await? })
    }

    async fn write(&self, rows: RecordBatch) -> anyhow::Result<NewFile> {
        let (file, bytes) = self.encoder.encode(day_of(clock::now_micros()), &[rows])?;
        let store = self.table.lock().await.store();
        file.put(&store, bytes).await?;
        Ok(file)
    }

    /// Commits rows that no Silver table announces, with the progress that they stand for. False if another writer has
    /// made progress: nothing was written then.
    pub(crate) async fn append(
        &self,
        rows: Option<RecordBatch>,
        progress: &[Moved],
        info: serde_json::Value,
    ) -> anyhow::Result<bool> {
        self.check_progress().await?;
        let began = Instant::now();
        let mut files = Vec::new();
        if let Some(rows) = rows {
            files.push(self.write(rows).await?);
        }
        let (rows, size) = files.iter().fold((0, 0), |(rows, size), file| (rows + file.rows(), size + file.size()));
        let mut table = self.table.lock().await;
        self.check_progress_of(&table)?;
        // Others commit through the same table, which has taken note of what other processes committed before that.
        if progress.iter().any(|moved| table.transaction(&moved.id) != moved.before) {
            return Ok(false);
        }
        let count = files.len();
        let txns: Vec<_> = progress.iter().map(|moved| (moved.id.clone(), moved.after)).collect();
        match table.append(files, &txns, info).await {
            Ok(committed) => {
                self.stats.committed(committed.version, rows as usize, count, size, began.elapsed());
                Ok(true)
            }
            Err(failure) => {
                table.reload().await?;
                match failure {
                    CommitError::Fenced { .. } => Ok(false),
                    failure => Err(failure).context("commit to the quarantine"),
                }
            }
        }
    }

    /// Publishes what a Silver table has announced and a crash kept from being published.
    pub(crate) async fn recover(&self, silver: &Table) -> anyhow::Result<()> {
        let announced = silver.transaction(self.kind.announced).unwrap_or(0);
        if announced == 0 {
            return Ok(());
        }
        let published = self.published(silver).await?;
        let mut pending: Vec<(i64, NewFile)> = Vec::new();
        for number in (published + 1..=announced).rev() {
            let info = silver.info_of(self.kind.announced, number).await?;
            let file = info.and_then(|mut info| info.get_mut(self.kind.key).map(serde_json::Value::take));
            let file: Option<NewFile> = file.and_then(|file| serde_json::from_value(file).ok());
            let store = self.table.lock().await.store();
            match file {
                Some(file) if file.exists(&store).await? => pending.push((number, file)),
                // The side output was removed and created again: its earlier files do not exist any more.
                _ => break,
            }
        }
        while let Some((number, file)) = pending.pop() {
            self.commit(silver, number, file).await?;
        }
        Ok(())
    }

    /// The number of a Silver table's last announcement that is published.
    pub(crate) async fn published(&self, silver: &Table) -> anyhow::Result<i64> {
        let mut table = self.table.lock().await;
        table.reload().await?;
        self.check_progress_of(&table)?;
        Ok(table.transaction(&self.kind.published_id(silver)).unwrap_or(0))
    }

    /// The table, for those who update its rows.
    pub(crate) async fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().await
    }

    /// Publishes the file of a Silver table's announcement `number`, and all before it.
    async fn publish(&self, silver: &Table, number: i64, file: NewFile) -> anyhow::Result<()> {
        let published = self.table.lock().await.transaction(&self.kind.published_id(silver)).unwrap_or(0);
        if published == number - 1 { self.commit(silver, number, file).await } else { self.recover(silver).await }
    }

    /// Commits the file of an announcement, unless it is published already.
    async fn commit(&self, silver: &Table, number: i64, file: NewFile) -> anyhow::Result<()> {
        let (began, id) = (Instant::now(), self.kind.published_id(silver));
        let mut table = self.table.lock().await;
        for _ in 0..PUBLISH_TRIES_MAX {
            self.check_progress_of(&table)?;
            if table.transaction(&id).unwrap_or(0) >= number {
                return Ok(());
            }
            let (rows, size) = (file.rows(), file.size());
            let info = json!({ "table": silver.name, self.kind.count_key: rows });
            match table.append(vec![file.clone()], &[(id.clone(), number)], info).await {
                Ok(committed) => {
                    self.stats.committed(committed.version, rows as usize, 1, size, began.elapsed());
                    return Ok(());
                }
                Err(failure) => {
                    tracing::debug!(table = self.kind.name, "commit: {failure}");
                    table.reload().await?;
                }
            }
        }
        bail!("commit to {}: other writers were first {PUBLISH_TRIES_MAX} times in a row", self.kind.name)
    }
}

/// A column of a side output.
pub(super) fn field(name: &str, ty: DataType, nullable: bool, doc: &str) -> Field {
    Field::new(name, ty, nullable).with_metadata([(COMMENT.to_owned(), doc.to_owned())].into())
}

/// The type of a side output's times.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}
