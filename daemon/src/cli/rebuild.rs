//! `silverd rebuild` and `silverd undo`: a table's history, made anew from Bronze.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use chrono::NaiveDate;
use silverd_core::chunk::day_of;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::setup::Setup;
use crate::correct::{Correction, Kind, Outcome, Scope, made_by, undisturbed};
use crate::silver::load_plugin;
use crate::transform::Plugin;

#[derive(clap::Args, Debug)]
pub struct RebuildArgs {
    /// The Silver table
    table: String,
    /// The first day whose rows are replaced, YYYY-MM-DD, UTC
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,
    /// The last day whose rows are replaced
    #[arg(long, value_name = "DATE")]
    to: Option<NaiveDate>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
pub struct UndoArgs {
    /// The plugin version whose rows are made anew: its digest, or the beginning of it
    #[arg(long, value_name = "DIGEST")]
    plugin: String,
    /// Only this Silver table
    table: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn rebuild(file: &Path, args: RebuildArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let index = setup.table(&args.table)?;
    if let (Some(from), Some(to)) = (args.from, args.to)
        && to < from
    {
        bail!("--to {to} lies before --from {from}: no day is between them");
    }
    let day = |date: NaiveDate| date.and_hms_opt(0, 0, 0).map(|time| day_of(time.and_utc().timestamp_micros()));
    let (from, to) = (args.from.and_then(day), args.to.and_then(day));
    let plugin = load(&setup, index).await?;
    let scope = || match (from, to) {
        (None, None) => Scope::Everything,
        (from, to) => Scope::Days(from.unwrap_or(i32::MIN)..=to.unwrap_or(i32::MAX)),
    };
    let outcome = correct(&setup, index, &plugin, Kind::Rebuild, scope, args.dry_run, &stop).await?;
    tell(&args.table, &outcome, args.dry_run);
    Ok(())
}

pub async fn undo(file: &Path, args: UndoArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let tables = setup.tables(args.table.as_deref())?;
    let mut found = false;
    for index in tables {
        let config = &setup.pipeline.silver[index];
        let Some((digest, events)) = made_by(config, &setup.base, &args.plugin).await? else { continue };
        found = true;
        let plugin = load(&setup, index).await?;
        if plugin.digest.as_str() == digest {
            bail!(
                "{} still runs version {}: put a good one in its place first ({}), then undo what this one made",
                config.name,
                plugin.digest,
                config.plugin.value
            );
        }
        let scope = || Scope::Events(events.clone());
        let outcome = correct(&setup, index, &plugin, Kind::Undo, scope, args.dry_run, &stop).await?;
        tell(&config.name, &outcome, args.dry_run);
    }
    if !found {
        bail!(
            "no commit of these tables was made by a plugin whose digest begins with {}; `silverd plugin history TABLE` \
             lists them",
            args.plugin
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
) -> anyhow::Result<Outcome> {
    let name = &setup.pipeline.silver[index].name;
    let progress = Progress::new(name);
    let work = undisturbed(name, async || {
        let correction = Correction::open(&setup.pipeline, &setup.base, index, plugin.clone()).await?;
        correction.rebuild(kind, scope(), dry_run, &mut |done, total| progress.show(done, total)).await
    });
    let result = tokio::select! {
        result = work => result,
        () = stop.cancelled() => Err(anyhow!("stopped: nothing was replaced in table {name}")),
    };
    progress.clear();
    result
}

pub(super) async fn load(setup: &Setup, index: usize) -> anyhow::Result<Arc<Plugin>> {
    let (config, base) = (setup.pipeline.silver[index].clone(), setup.base.clone());
    let (host, limits) = (setup.host()?, setup.pipeline.limits.clone());
    let load = move || load_plugin(&config, &base, host, limits).map(Arc::new);
    tokio::task::spawn_blocking(load).await?.context("load the table's plugin")
}

fn tell(table: &str, outcome: &Outcome, dry_run: bool) {
    let counts = &outcome.counts;
    let what = match (dry_run, outcome.version) {
        (true, _) => format!("{table}: would replace"),
        (false, Some(version)) => format!("{table}: version {version} replaces"),
        (false, None) => format!("{table}: nothing to replace;"),
    };
    println!(
        "{what} {} rows by {}: {} events judged, {} dropped, {} duplicates, {} rejected ({} new in the quarantine), {} \
         resolved",
        outcome.removed,
        counts.rows,
        counts.events,
        counts.dropped,
        counts.duplicates,
        counts.rejected,
        outcome.quarantined,
        outcome.resolved
    );
}
