//! Verification: reads the log of each table once, and checks it alone and against the logs of the other tables. The
//! data files that it names must be there, with their sizes; only a deep verification reads them. The rules are in
//! `silverd_core::verify`.
//!
//! The logs of Silver tables are read before those of the tables that they refer to, which only grow: so a daemon that
//! writes at the same time causes no findings.

mod deep;
mod files;
mod fingerprint;
mod log;
mod rejects;
mod report;
mod verified;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use deltalake_core::logstore::LogStoreRef;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use silverd_core::config::{Pipeline, SilverTable};
use silverd_core::route::Router;
use silverd_core::verify::{
    Announcements, BronzeVerifier, FileOwner, LogPosition, Problem, SideOutputKind, SideOutputVerifier, SilverVerifier,
    Verifier,
};
use silverd_core::zone::Zone;

use crate::delta::{NotWritable, not_writable, open_log, zone_name_at};

pub use deep::compare_rows;
pub(crate) use files::{DamagedFile, damaged_files};
pub use report::Report;
pub use verified::{Verified, VerifiedTable};

/// The Silver tables to verify; `None` for all.
pub struct SelectedTables(pub Option<Vec<String>>);

impl SelectedTables {
    fn contains(&self, table: &str) -> bool {
        self.0.as_ref().is_none_or(|tables| tables.iter().any(|selected| selected == table))
    }
}

/// Reads the logs of the tables and verifies them.
pub async fn verify_logs(pipeline: &Pipeline, base_dir: &Path, selected: &SelectedTables) -> anyhow::Result<Verified> {
    let mut silver = Vec::new();
    for table in &pipeline.silver {
        if selected.contains(&table.name) {
            let name = table.name.to_string();
            let (path, owner) = (base_dir.join(&*table.path), FileOwner::Silver(name.clone()));
            let mut read = read_table(&name, &path, &owner, || SilverVerifier::new(&name)).await?;
            check_zone(&mut read, table.time_zone).await;
            silver.push(read);
        }
    }
    let quarantine = &base_dir.join(&*pipeline.quarantine.path);
    let late = &base_dir.join(&*pipeline.late.path);
    let mut side_outputs = [
        verify_side_output(&SideOutputKind::QUARANTINE, quarantine, &silver, selected).await?,
        verify_side_output(&SideOutputKind::LATE, late, &silver, selected).await?,
    ];
    let path = base_dir.join(&*pipeline.bronze.path);
    let mut bronze = read_table("bronze", &path, &FileOwner::Bronze, || BronzeVerifier::new("bronze")).await?;
    bronze.verifier.finish();
    side_outputs[0].verifier.check_unrouted(&bronze.verifier);
    for table in &mut silver {
        table.verifier.finish(&bronze.verifier);
    }
    let router = |table: &SilverTable| (table.name.to_string(), Router::new(std::slice::from_ref(table)));
    let matches = pipeline.silver.iter().map(router).collect();
    let mut verified = Verified { bronze, silver, side_outputs, compared: Vec::new(), matches };
    files::check_presence(&mut verified.bronze, &FileOwner::Bronze).await?;
    for table in &mut verified.silver {
        let owner = FileOwner::Silver(table.name.clone());
        files::check_presence(table, &owner).await?;
    }
    for table in &mut verified.side_outputs {
        files::check_presence(table, &FileOwner::SideOutput).await?;
    }
    Ok(verified)
}

async fn verify_side_output(
    kind: &'static SideOutputKind,
    path: &Path,
    silver: &[VerifiedTable<SilverVerifier>],
    selected: &SelectedTables,
) -> anyhow::Result<VerifiedTable<SideOutputVerifier>> {
    let mut table = read_table(kind.name, path, &FileOwner::SideOutput, || SideOutputVerifier::new(kind)).await?;
    // The announcements of a table whose progress is lost have no numbers that can be compared.
    for announcing in silver.iter().filter(|table| !table.verifier.has_lost_progress()) {
        let (id, announcements) = (announcing.verifier.id(), announcing.verifier.announcements(kind));
        let is_pending = is_pending(&table, id, announcements).await?;
        table.verifier.check_announcements(id, announcements, is_pending);
    }
    let ids: Vec<String> = silver.iter().map(|table| table.verifier.id().to_owned()).collect();
    table.verifier.finish(selected.0.is_none().then_some(&ids[..]));
    Ok(table)
}

async fn read_table<V: Verifier>(
    name: &str,
    path: &Path,
    owner: &FileOwner,
    new: impl Fn() -> V,
) -> anyhow::Result<VerifiedTable<V>> {
    let log: Option<LogStoreRef> = open_log(path)?;
    let verifier = match &log {
        Some(log) => {
            let read = log::read(log.object_store(None).as_ref(), owner, new).await;
            let mut verifier = read.with_context(|| format!("read the log of {name} in {}", path.display()))?;
            if let Some(NotWritable(why)) = not_writable(log).await {
                verifier.report(LogPosition::default(), Problem::NotWritable { why });
            }
            verifier
        }
        None => new(),
    };
    Ok(VerifiedTable { name: name.to_owned(), log, verifier, broken_files: BTreeSet::new() })
}

/// Reports a table whose days are those of another zone. What is wrong with a log that cannot be read is reported already.
async fn check_zone(table: &mut VerifiedTable<SilverVerifier>, wanted: Zone) {
    let Some(log) = &table.log else { return };
    let version = table.verifier.version();
    let Ok(has) = zone_name_at(log, version).await else { return };
    if Zone::parse(&has) != Ok(wanted) {
        let position = LogPosition { version: Some(version), ..LogPosition::default() };
        table.verifier.report(position, Problem::OtherTimeZone { has, wanted });
    }
}

/// Whether the last announced file exists, but is in no commit of the side output yet.
async fn is_pending(
    side_output: &VerifiedTable<SideOutputVerifier>,
    table_id: &str,
    announcements: &Announcements,
) -> anyhow::Result<bool> {
    if side_output.verifier.has_all(table_id, announcements) {
        return Ok(false);
    }
    let (Some(log), Some(file)) = (&side_output.log, &announcements.last) else { return Ok(false) };
    match log.object_store(None).head(&ObjectPath::parse(&file.path)?).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look for file {} of {}", file.path, side_output.name)),
    }
}
