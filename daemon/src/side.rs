//! The tables beside Silver: the quarantine, and the late events. A Silver commit decides what goes there, and announces
//! the file; the side table's own commit follows, exactly once.
//!
//! ```text
//!   put the file ──▶ Silver commits { rows, announced file, txn announced = n } ──▶ settle { file, txn settled = n }
//!                                                     └─ crash ─▶ at the next opening: announced > settled: settle
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::json;
use silverd_core::chunk::day_of;
use silverd_core::config::Compression;
use tokio::sync::{Mutex, MutexGuard};

use crate::delta::{Encoder, NewFile, Spec, Table, writer_properties};
use crate::telemetry::TableStats;

/// What tells one side table from the other.
#[derive(Debug)]
pub struct Kind {
    /// The table, as messages and `query` name it.
    pub name: &'static str,
    pub doc: &'static str,
    /// The application id under which a Silver table counts its commits that announce a file.
    pub announced: &'static str,
    /// The application id, before a Silver table's Delta id, under which the side table has come to that count. A Silver
    /// table that is made anew begins anew.
    pub settled: &'static str,
    /// Where the file stands in the info of Silver's commit.
    pub key: &'static str,
    /// How the side table's own commits count its rows.
    pub counted: &'static str,
    pub schema: fn() -> SchemaRef,
}

/// A side table, shared by all Silver tables.
pub struct SideTable {
    pub kind: &'static Kind,
    table: Mutex<Table>,
    encoder: Encoder,
    stats: Arc<TableStats>,
}

/// A file that a Silver commit is to announce.
#[derive(Clone)]
pub struct Announced {
    pub side: Arc<SideTable>,
    pub file: NewFile,
}

/// How often a commit that others were faster than is tried again before the table starts over.
const SETTLE_TRIES_MAX: usize = 10;

impl Kind {
    pub fn spec(&self, path: PathBuf) -> Spec {
        Spec { name: self.name.to_owned(), path, schema: (self.schema)(), doc: Some(self.doc.to_owned()) }
    }

    fn settled_id(&self, table_id: &str) -> String {
        format!("{}:{table_id}", self.settled)
    }
}

/// Moves the counts of a Silver commit's announcements, and names the files in its info.
pub fn announce(
    announced: Vec<Announced>,
    silver: &Table,
    progress: &mut Vec<(String, i64)>,
    info: &mut serde_json::Value,
) -> anyhow::Result<Vec<(Announced, i64)>> {
    let mut numbered = Vec::with_capacity(announced.len());
    for announced in announced {
        let kind = announced.side.kind;
        let number = silver.transaction(kind.announced).unwrap_or(0) + 1;
        progress.push((kind.announced.to_owned(), number));
        info[kind.key] = serde_json::to_value(&announced.file)?;
        numbered.push((announced, number));
    }
    Ok(numbered)
}

/// Commits what a Silver commit that has landed announced.
pub async fn follow(announced: Vec<(Announced, i64)>, silver: &Table) -> anyhow::Result<()> {
    for (Announced { side, file }, number) in announced {
        side.follow(silver, number, file).await?;
    }
    Ok(())
}

impl SideTable {
    pub async fn open(kind: &'static Kind, path: PathBuf) -> anyhow::Result<Self> {
        let table = Table::open(&kind.spec(path)).await?;
        let compression = Compression::default();
        let encoder = Encoder::new((kind.schema)(), writer_properties(&compression)?.build(), &compression);
        Ok(Self { kind, table: Mutex::new(table), encoder, stats: Arc::default() })
    }

    pub fn stats(&self) -> Arc<TableStats> {
        self.stats.clone()
    }

    /// Writes rows into a file that is in no commit yet.
    pub async fn put(self: &Arc<Self>, rows: RecordBatch) -> anyhow::Result<Announced> {
        let (file, bytes) = self.encoder.encode(day_of(crate::clock::now_micros()), &[rows])?;
        let store = self.table.lock().await.store();
        file.put(&store, bytes).await?;
        Ok(Announced { side: self.clone(), file })
    }

    /// Brings this table up to what a Silver table has announced: a crash may have come between the two commits.
    pub async fn settle(&self, silver: &Table) -> anyhow::Result<()> {
        let announced = silver.transaction(self.kind.announced).unwrap_or(0);
        let settled = {
            let mut table = self.table.lock().await;
            table.reload().await?;
            table.transaction(&self.kind.settled_id(&silver.id)).unwrap_or(0)
        };
        let mut pending: Vec<(i64, NewFile)> = Vec::new();
        for number in (settled + 1..=announced).rev() {
            let info = silver.info_of(self.kind.announced, number).await?;
            let file = info.and_then(|mut info| info.get_mut(self.kind.key).map(serde_json::Value::take));
            let file: Option<NewFile> = file.and_then(|file| serde_json::from_value(file).ok());
            let store = self.table.lock().await.store();
            match file {
                Some(file) if file.exists(&store).await? => pending.push((number, file)),
                // This table was removed, and made anew: what it had is gone.
                _ => break,
            }
        }
        while let Some((number, file)) = pending.pop() {
            self.commit(&silver.name, &silver.id, number, file).await?;
        }
        Ok(())
    }

    /// The table itself, for whoever marks its rows.
    pub(crate) async fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().await
    }

    /// Commits the file that a Silver table has announced in its `number`th commit of this kind, and all before it.
    async fn follow(&self, silver: &Table, number: i64, file: NewFile) -> anyhow::Result<()> {
        let known = self.table.lock().await.transaction(&self.kind.settled_id(&silver.id)).unwrap_or(0);
        if known == number - 1 {
            self.commit(&silver.name, &silver.id, number, file).await
        } else {
            self.settle(silver).await
        }
    }

    /// Once: a number that is in already is passed over.
    async fn commit(&self, name: &str, table_id: &str, number: i64, file: NewFile) -> anyhow::Result<()> {
        let (begun, id) = (Instant::now(), self.kind.settled_id(table_id));
        let mut table = self.table.lock().await;
        for _ in 0..SETTLE_TRIES_MAX {
            if table.transaction(&id).unwrap_or(0) >= number {
                return Ok(());
            }
            let (rows, size) = (file.rows(), file.size());
            let info = json!({ "table": name, self.kind.counted: rows });
            match table.append(vec![file.clone()], &[(id.clone(), number)], info).await {
                Ok(committed) => {
                    self.stats.committed(committed.version, rows as usize, 1, size, begun.elapsed());
                    return Ok(());
                }
                Err(failure) => {
                    tracing::debug!(table = self.kind.name, "commit: {failure}");
                    table.reload().await?;
                }
            }
        }
        anyhow::bail!("the log of {} took {SETTLE_TRIES_MAX} commits of others in a row", self.kind.name)
    }
}
