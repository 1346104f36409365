//! Conservation, proven: the tables' logs are read once each, and held against themselves and each other. The proof itself
//! is the core's; no data file is read for it.
//!
//! Silver's logs are read before those of the tables that they refer to, which only grow: so a daemon that writes
//! meanwhile is no finding.

mod blocks;
mod deep;
mod log;
mod prints;
mod rejects;
mod report;

use std::path::{Path, PathBuf};

use anyhow::Context;
use deltalake_core::logstore::LogStoreRef;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use silverd_core::config::Pipeline;
use silverd_core::verify::{Announcements, Bronze, Side, SideKind, Silver};

use crate::delta::log_at;

pub use deep::{Compared, Progress, compare_rows};
pub use report::Report;

/// A table's log, if there is one, and its proof.
pub struct Table<P> {
    pub name: String,
    pub path: PathBuf,
    pub log: Option<LogStoreRef>,
    pub proof: P,
}

/// Which tables are wanted; `None` for all.
pub struct Wanted(pub Option<Vec<String>>);

/// The tables of a pipeline, proven as far as their logs go.
pub struct Proven {
    pub bronze: Table<Bronze>,
    /// In the order of pipeline.toml, and of the wanted ones alone.
    pub silver: Vec<Table<Silver>>,
    /// The quarantine, then the late events.
    pub sides: Vec<Table<Side>>,
    /// What was compared of which Silver table, if it was.
    pub compared: Vec<(String, Compared)>,
}

impl Wanted {
    fn wants(&self, table: &str) -> bool {
        self.0.as_ref().is_none_or(|tables| tables.iter().any(|wanted| wanted == table))
    }
}

/// Reads the logs and holds them against each other.
pub async fn logs(pipeline: &Pipeline, base: &Path, wanted: &Wanted) -> anyhow::Result<Proven> {
    let mut silver = Vec::new();
    for table in &pipeline.silver {
        if wanted.wants(&table.name) {
            let name = table.name.to_string();
            silver.push(table_of(&name, base.join(&*table.path), || Silver::new(&name)).await?);
        }
    }
    let mut sides = Vec::new();
    for (kind, path) in [(&SideKind::QUARANTINE, &pipeline.quarantine.path), (&SideKind::LATE, &pipeline.late.path)] {
        let mut side = table_of(kind.name, base.join(&**path), || Side::new(kind)).await?;
        for table in &silver {
            let (id, announced) = (table.proof.id(), table.proof.announcements(kind));
            let waits = waits(&side, id, announced).await?;
            side.proof.settle(id, announced, waits);
        }
        let ids: Vec<String> = silver.iter().map(|table| table.proof.id().to_owned()).collect();
        side.proof.finish(wanted.0.is_none().then_some(&ids[..]));
        sides.push(side);
    }
    let mut bronze = table_of("bronze", base.join(&*pipeline.bronze.path), || Bronze::new("bronze")).await?;
    bronze.proof.finish();
    for table in &mut silver {
        table.proof.finish(&bronze.proof);
    }
    Ok(Proven { bronze, silver, sides, compared: Vec::new() })
}

async fn table_of<P: silverd_core::verify::Proof>(
    name: &str,
    path: PathBuf,
    make: impl Fn() -> P,
) -> anyhow::Result<Table<P>> {
    let log = log_at(&path)?;
    let proof = match &log {
        Some(log) => log::read(log.object_store(None).as_ref(), make)
            .await
            .with_context(|| format!("read the log of {name} in {}", path.display()))?,
        None => make(),
    };
    Ok(Table { name: name.to_owned(), path, log, proof })
}

/// True where the last announced file is in no commit yet, and lies ready for it.
async fn waits(side: &Table<Side>, id: &str, announced: &Announcements) -> anyhow::Result<bool> {
    if side.proof.has_all(id, announced) {
        return Ok(false);
    }
    let (Some(log), Some(file)) = (&side.log, &announced.last) else { return Ok(false) };
    match log.object_store(None).head(&ObjectPath::parse(&file.path)?).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(failure) => Err(failure).with_context(|| format!("look for {} of {}", file.path, side.name)),
    }
}
