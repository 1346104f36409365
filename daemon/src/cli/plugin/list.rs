//! `silverd plugin list`: which version serves which table, and which versions do not.

use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

use super::text_table;
use crate::app::setup::Setup;
use crate::delta::last_plugin;
use crate::plugin::{Digest, FailedVersion, Source};
use crate::runtime::inert::inert_line;
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct ListArgs {
    /// Print a JSON array with one object for each table
    #[arg(long)]
    json: bool,
}

/// The versions of one table's plugin.
#[derive(Serialize)]
struct Listed {
    table: String,
    /// The version that serves in a running silverd; without one, the version that wrote the table last.
    serving: Option<String>,
    /// The version that wrote the table last.
    wrote_last: Option<String>,
    newest: Option<String>,
    /// The version that somebody deployed.
    deployed: Option<String>,
    /// The version that silverd rolled back last, and that it does not use again.
    blocked: Option<String>,
    /// Why the deployed version serves, or the blocked one does not.
    reason: Option<String>,
    /// All versions that do not serve, the last one first.
    failed: Vec<Failed>,
}

/// A version that does not serve.
#[derive(Serialize)]
struct Failed {
    digest: String,
    /// The digest of its settings and reference files; without it, it does not serve with any.
    given: Option<String>,
    /// It failed on live events; otherwise it was rejected before it served.
    served: bool,
    at_ms: i64,
    reason: String,
}

impl Failed {
    fn of(version: &FailedVersion, served: bool) -> Self {
        let FailedVersion { digest, given, reason, at_ms } = version.clone();
        Self { digest, given, served, at_ms, reason }
    }
}

pub(super) async fn list(config: &Path, args: &ListArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let host = setup.host()?;
    let mut tables = Vec::new();
    for table in &setup.pipeline.silver {
        let source = Source::of(table, &setup.base_dir);
        let newest = tokio::task::block_in_place(|| source.newest_digest()).ok().flatten();
        let held = host.held(&table.name);
        let by_hand = held.by_hand(host.reload_mode, newest.as_ref());
        let rollback = held.deployment.as_ref().filter(|deployment| deployment.rolled_back);
        let mut failed: Vec<_> = held.failed.iter().map(|version| Failed::of(version, true)).collect();
        failed.extend(held.rejected.iter().map(|version| Failed::of(version, false)));
        failed.sort_by_key(|version| std::cmp::Reverse(version.at_ms));
        let wrote_last = last_plugin(&setup.base_dir.join(&*table.path)).await?.map(|last| last.digest);
        let serving = host.serving(&table.name).map(|serving| serving.digest);
        tables.push(Listed {
            table: table.name.to_string(),
            serving: serving.or_else(|| wrote_last.clone()),
            wrote_last,
            newest: newest.map(|digest| digest.as_str().to_owned()),
            deployed: by_hand.map(|deployment| deployment.version.clone()),
            blocked: rollback.map(|rollback| rollback.instead_of.clone()),
            reason: by_hand.or(rollback).map(|deployment| deployment.reason.clone()),
            failed,
        });
    }
    if args.json {
        out!("{}", serde_json::to_string_pretty(&tables)?);
        return Ok(());
    }
    let short = |digest: &Option<String>| digest.as_deref().map_or("none", Digest::short).to_owned();
    let row = |listed: &Listed| {
        let note = match (&listed.deployed, &listed.blocked) {
            (Some(version), _) => format!("{} is deployed", Digest::short(version)),
            (_, Some(version)) => format!("{} is blocked", Digest::short(version)),
            _ => String::new(),
        };
        vec![listed.table.clone(), short(&listed.serving), short(&listed.wrote_last), short(&listed.newest), note]
    };
    let rows: Vec<_> = tables.iter().map(row).collect();
    out!("{}", text_table(&["table", "serves", "wrote last", "newest build", "note"], &rows)?);
    for Listed { table, failed, .. } in &tables {
        for Failed { digest, given, served, at_ms, reason } in failed {
            let at = DateTime::from_timestamp_millis(*at_ms).unwrap_or_default();
            let given = given.as_deref().map(|given| format!("+{}", Digest::short(given))).unwrap_or_default();
            out!(
                "{table}: {}{given} {} at {}: {}",
                Digest::short(digest),
                if *served { "was rolled back" } else { "was rejected" },
                at.to_rfc3339_opts(SecondsFormat::Secs, true),
                inert_line(reason)
            );
        }
    }
    Ok(())
}
