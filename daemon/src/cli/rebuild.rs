//! `silverd rebuild`, and its alias `silverd undo`: replaces rows of a Silver table by what the current plugin returns.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use chrono::NaiveDate;
use silverd_core::chunk::day_of;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::corrections::{Correction, CorrectionSummary, Kind, Scope, events_written_by, retry_on_conflict};
use crate::plugin::{Plugin, load_plugin};

#[derive(clap::Args, Debug)]
pub(super) struct RebuildArgs {
    /// The Silver table; with --written-by, all of them if none is named
    #[arg(required_unless_present = "written_by")]
    table: Option<String>,
    /// The first day whose rows are replaced, in UTC
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: Option<NaiveDate>,
    /// The last day whose rows are replaced
    #[arg(long, value_name = "YYYY-MM-DD")]
    to: Option<NaiveDate>,
    /// Replace only the rows that this plugin version wrote: its digest, or the first characters of it
    #[arg(long, value_name = "DIGEST", conflicts_with_all = ["from", "to"])]
    written_by: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct UndoArgs {
    /// The plugin version whose rows are replaced: its digest, or the first characters of it
    #[arg(long, value_name = "DIGEST")]
    plugin: String,
    /// Only this Silver table
    table: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The error of a correction that was interrupted. Each table is reported when its commit is done.
pub(super) const INTERRUPTED: &str = "interrupted; tables not listed above are unchanged";

pub(super) async fn rebuild(config: &Path, args: RebuildArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    if let Some(digest) = &args.written_by {
        let tables = setup.tables(args.table.as_deref())?;
        return rebuild_written_by(&setup, tables, digest, args.dry_run, &stop).await;
    }
    let Some(table) = args.table else {
        wrong_use!("name the table to rebuild, or a plugin version with --written-by")
    };
    let index = setup.table(&table)?;
    if let (Some(from), Some(to)) = (args.from, args.to)
        && to < from
    {
        wrong_use!("--to {to} is before --from {from}: expected the same day or a later one");
    }
    let day = |date: NaiveDate| date.and_hms_opt(0, 0, 0).map(|time| day_of(time.and_utc().timestamp_micros()));
    let (from, to) = (args.from.and_then(day), args.to.and_then(day));
    let plugin = load(&setup, index).await?;
    let scope = || match (from, to) {
        (None, None) => Scope::Everything,
        (from, to) => Scope::Days(from.unwrap_or(i32::MIN)..=to.unwrap_or(i32::MAX)),
    };
    let summary = correct(&setup, index, &plugin, Kind::Rebuild, scope, args.dry_run, &stop).await?;
    report(&table, &summary, args.dry_run);
    Ok(())
}

pub(super) async fn undo(config: &Path, args: UndoArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let tables = setup.tables(args.table.as_deref())?;
    rebuild_written_by(&setup, tables, &args.plugin, args.dry_run, &stop).await
}

/// Replaces the rows of some tables that the plugin version wrote whose digest starts with `digest`.
async fn rebuild_written_by(
    setup: &Setup,
    tables: Vec<usize>,
    digest: &str,
    dry_run: bool,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut found = false;
    for index in tables {
        let config = &setup.pipeline.silver[index];
        let Some((writer, events)) = events_written_by(config, &setup.base_dir, digest).await? else { continue };
        found = true;
        let plugin = load(setup, index).await?;
        if plugin.digest.as_str() == writer {
            bail!(
                "table {} still runs version {}: build a good version in {} first, then run the command again",
                config.name,
                plugin.digest,
                config.plugin.value
            );
        }
        let scope = || Scope::Events(events.clone());
        let summary = correct(setup, index, &plugin, Kind::Undo, scope, dry_run, stop).await?;
        report(&config.name, &summary, dry_run);
    }
    if !found {
        wrong_use!(
            "no commit of these tables is by a plugin version whose digest starts with {digest}; `silverd plugin history \
             TABLE` lists the versions"
        );
    }
    Ok(())
}

async fn correct(
    setup: &Setup,
    index: usize,
    plugin: &Arc<Plugin>,
    kind: Kind,
    scope: impl Fn() -> Scope,
    dry_run: bool,
    stop: &CancellationToken,
) -> anyhow::Result<CorrectionSummary> {
    let name = &setup.pipeline.silver[index].name;
    let progress = Progress::new(name);
    let correction = retry_on_conflict(name, async || {
        let correction = Correction::open(&setup.pipeline, &setup.base_dir, index, plugin.clone()).await?;
        correction.rebuild(kind, scope(), dry_run, &mut |done, total| progress.show(done, total)).await
    });
    let result = tokio::select! {
        result = correction => result,
        () = stop.cancelled() => Err(anyhow!(INTERRUPTED)),
    };
    progress.clear();
    result
}

/// The current plugin of a table.
pub(super) async fn load(setup: &Setup, index: usize) -> anyhow::Result<Arc<Plugin>> {
    let (config, base_dir) = (setup.pipeline.silver[index].clone(), setup.base_dir.clone());
    let (host, limits) = (setup.host()?, setup.pipeline.limits.clone());
    let load = move || load_plugin(&config, &base_dir, host, limits).map(Arc::new);
    tokio::task::spawn_blocking(load).await?.context("load the table's plugin")
}

fn report(table: &str, summary: &CorrectionSummary, dry_run: bool) {
    let counts = &summary.counts;
    let rows = format!("{} rows by {}", summary.rows_replaced, counts.rows);
    let what = match (dry_run, summary.version) {
        (true, _) => format!("would replace {rows}"),
        (false, Some(version)) => format!("version {version} replaces {rows}"),
        (false, None) => "nothing to replace".to_owned(),
    };
    println!(
        "{table}: {what}: {} events transformed, {} dropped, {} duplicates, {} rejected ({} new in the quarantine), {} \
         resolved",
        counts.events, counts.dropped, counts.duplicates, counts.rejected, summary.quarantined, summary.resolved
    );
    if summary.restores_progress {
        let sets = if dry_run { "would set" } else { "sets" };
        println!("{table}: the log had lost the table's progress; the rebuild {sets} it to the end of bronze");
    }
}
