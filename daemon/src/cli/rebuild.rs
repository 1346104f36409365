//! `silverd rebuild`, and its alias `silverd undo`: replaces rows of a Silver table by what the current plugin returns, or the
//! one that served at an earlier time.

use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use chrono::{DateTime, NaiveDate, Utc};
use silverd_core::chunk::day_of;
use silverd_core::config::SilverTable;
use tokio_util::sync::CancellationToken;

use super::plugin_version::{load_as_of, load_serving, parse_time, short};
use super::progress::Progress;
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::corrections::{
    Correction, CorrectionSummary, Kind, NotInBronze, Scope, VersionPrefix, Written, events_written_by,
    retry_on_conflict,
};
use crate::delta::PluginVersion;
use crate::plugin::{Plugin, Source};
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct RebuildArgs {
    /// The Silver table; with --written-by, all of them if none is named
    #[arg(required_unless_present = "written_by")]
    table: Option<String>,
    /// The first day whose rows are replaced, as in the table's `event_date`
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: Option<NaiveDate>,
    /// The last day whose rows are replaced
    #[arg(long, value_name = "YYYY-MM-DD")]
    to: Option<NaiveDate>,
    /// Replace only the rows that this plugin version wrote: its digest, or the first characters of it; with +GIVEN, only those
    /// that it wrote with these settings and reference files
    #[arg(long, value_name = "DIGEST[+GIVEN]", value_parser = VersionPrefix::parse, conflicts_with_all = ["from", "to"])]
    written_by: Option<VersionPrefix>,
    /// Use the plugin version, settings and reference files that served at this time: RFC 3339, or a day (its midnight in UTC)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<DateTime<Utc>>,
    /// Remove also rows that cannot be made again, because bronze no longer has their events
    #[arg(long)]
    remove_lost: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct UndoArgs {
    /// The plugin version whose rows are replaced: its digest, or the first characters of it; with +GIVEN, only those that it
    /// wrote with these settings and reference files
    #[arg(long, value_name = "DIGEST[+GIVEN]", value_parser = VersionPrefix::parse)]
    plugin: VersionPrefix,
    /// Only this Silver table
    table: Option<String>,
    /// Use the plugin version, settings and reference files that served at this time: RFC 3339, or a day (its midnight in UTC)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<DateTime<Utc>>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What the command line asks of a correction.
struct Asked<'a> {
    /// When the version to use served; `None` for the current one.
    as_of: Option<DateTime<Utc>>,
    removes_lost: bool,
    dry_run: bool,
    stop: &'a CancellationToken,
}

/// The error of a correction that was interrupted. Each table is reported when its commit is done.
pub(super) const INTERRUPTED: &str = "interrupted; tables not listed above are unchanged";

pub(super) async fn rebuild(config: &Path, args: RebuildArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let asked = Asked { as_of: args.as_of, removes_lost: args.remove_lost, dry_run: args.dry_run, stop: &stop };
    if let Some(written_by) = &args.written_by {
        let tables = setup.tables(args.table.as_deref())?;
        return rebuild_written_by(&setup, tables, written_by, &asked).await;
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
    let plugin = load(&setup, index, &asked).await?;
    let scope = async || {
        anyhow::Ok(match (from, to) {
            (None, None) => Scope::Everything,
            (from, to) => Scope::Days(from.unwrap_or(i32::MIN)..=to.unwrap_or(i32::MAX)),
        })
    };
    let summary = correct(&setup, index, &plugin, Kind::Rebuild, scope, &asked).await?;
    report(&table, &summary, asked.dry_run);
    Ok(())
}

pub(super) async fn undo(config: &Path, args: UndoArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let tables = setup.tables(args.table.as_deref())?;
    let asked = Asked { as_of: args.as_of, removes_lost: false, dry_run: args.dry_run, stop: &stop };
    rebuild_written_by(&setup, tables, &args.plugin, &asked).await
}

/// What a rebuild of the rows of a plugin version found in a table.
#[derive(PartialEq, Eq)]
enum Found {
    /// No commit is by the version.
    Nothing,
    /// Corrections have replaced all its rows, as far as the log says.
    Replaced,
    Rows,
}

/// Replaces the rows of some tables that a plugin version wrote. A table that refuses stops none of the others.
async fn rebuild_written_by(
    setup: &Setup,
    tables: Vec<usize>,
    written_by: &VersionPrefix,
    asked: &Asked<'_>,
) -> anyhow::Result<()> {
    let count = tables.len();
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for index in tables {
        let name = &setup.pipeline.silver[index].name;
        match rebuild_table_written_by(setup, index, written_by, asked).await {
            Ok(of_table) => {
                match of_table {
                    Found::Nothing => out!("{name}: no commit is by version {written_by}"),
                    Found::Replaced => out!("{name}: no row is known to be by version {written_by} any more"),
                    Found::Rows => {}
                }
                found.push(of_table);
            }
            Err(failure) if count == 1 || asked.stop.is_cancelled() => return Err(failure),
            Err(failure) => {
                eprintln!("{name}: not rebuilt: {failure:#}");
                refused.push(name.to_string());
            }
        }
    }
    if !refused.is_empty() {
        bail!(
            "{} of {count} tables refused the rebuild, each for the reason above: {}",
            refused.len(),
            refused.join(", ")
        );
    }
    if found.iter().all(|of_table| *of_table == Found::Nothing) {
        wrong_use!(
            "no commit of these tables is by a plugin version whose digest starts with {written_by}; `silverd plugin history \
             TABLE` lists the versions"
        );
    }
    if !found.contains(&Found::Rows) {
        wrong_use!(
            "no row of these tables is known to be by version {written_by} any more: corrections have replaced them. `silverd \
             plugin history TABLE` lists the versions"
        );
    }
    Ok(())
}

async fn rebuild_table_written_by(
    setup: &Setup,
    index: usize,
    written_by: &VersionPrefix,
    asked: &Asked<'_>,
) -> anyhow::Result<Found> {
    let config = &setup.pipeline.silver[index];
    let find = || events_written_by(config, &setup.base_dir, written_by);
    let Some(Written { versions, events, unknown }) = find().await? else { return Ok(Found::Nothing) };
    if unknown > 0 {
        let name = &config.name;
        out!(
            "{name}: the log does not say which version wrote the rows of {unknown} events, since an earlier silverd corrected \
             some of them: they stay as they are. `silverd rebuild {name}` replaces all rows"
        );
    }
    if events.is_empty() {
        return Ok(Found::Replaced);
    }
    let plugin = load(setup, index, asked).await?;
    check_is_another(config, &plugin.version(), &versions, asked)?;
    // Another correction may replace some of them before this one is committed.
    let scope = async || anyhow::Ok(Scope::Events(find().await?.unwrap_or_default().events));
    let summary = correct(setup, index, &plugin, Kind::Undo, scope, asked).await?;
    report(&config.name, &summary, asked.dry_run);
    Ok(Found::Rows)
}

/// Fails if the version that would replace the rows is one of those that wrote them. The same plugin with other settings or
/// reference files is another version.
fn check_is_another(
    config: &SilverTable,
    replacing: &PluginVersion,
    writers: &[PluginVersion],
    asked: &Asked<'_>,
) -> anyhow::Result<()> {
    // Commits of older versions of silverd do not say what the plugin was given.
    let is_same = |writer: &PluginVersion| {
        writer.digest == replacing.digest && (writer.given.is_none() || writer.given == replacing.given)
    };
    if !writers.iter().any(is_same) {
        return Ok(());
    }
    let (name, version) = (&config.name, short(replacing));
    let others = writers.iter().filter(|writer| !is_same(writer));
    let others: Vec<_> = others.map(|writer| format!("--written-by {}", short(writer))).collect();
    let only = match others.is_empty() {
        true => String::new(),
        false => format!(". For what it wrote with other settings or reference files: {}", others.join(" or ")),
    };
    if asked.as_of.is_some() {
        bail!("version {version} served table {name} at the time of --as-of, too: name another time{only}");
    }
    bail!(
        "table {name} still runs version {version}: make a good version of {} first, or give it good settings and reference \
         files, or use an earlier version with --as-of; then run the command again{only}",
        Source::of(config, Path::new(""))
    )
}

async fn load(setup: &Setup, index: usize, asked: &Asked<'_>) -> anyhow::Result<Arc<Plugin>> {
    match asked.as_of {
        Some(time) => load_as_of(setup, index, time).await,
        None => load_serving(setup, index).await,
    }
}

async fn correct(
    setup: &Setup,
    index: usize,
    plugin: &Arc<Plugin>,
    kind: Kind,
    scope: impl AsyncFn() -> anyhow::Result<Scope>,
    asked: &Asked<'_>,
) -> anyhow::Result<CorrectionSummary> {
    let name = &setup.pipeline.silver[index].name;
    let as_of_ms = asked.as_of.map(|time| time.timestamp_millis());
    let progress = Progress::new(name);
    let correction = retry_on_conflict(name, async || {
        let correction = Correction::open(&setup.pipeline, &setup.base_dir, index, plugin.clone()).await?;
        let correction = correction.made_as_of(as_of_ms).removing_lost(asked.removes_lost);
        let scope = scope().await?;
        correction.rebuild(kind, scope, asked.dry_run, &mut |done, total| progress.show(done, total)).await
    });
    let result = tokio::select! {
        result = correction => result,
        () = asked.stop.cancelled() => Err(anyhow!(INTERRUPTED)),
    };
    progress.clear();
    result
}

fn report(table: &str, summary: &CorrectionSummary, dry_run: bool) {
    let counts = &summary.counts;
    let rows = format!("{} rows by {}", summary.rows_replaced, counts.rows);
    let what = match (dry_run, summary.version) {
        (true, _) => format!("would replace {rows}"),
        (false, Some(version)) => format!("version {version} replaces {rows}"),
        (false, None) => "nothing to replace".to_owned(),
    };
    out!(
        "{table}: {what}: {} events transformed, {} dropped, {} duplicates, {} rejected ({} new in the quarantine), {} \
         resolved",
        counts.events,
        counts.dropped,
        counts.duplicates,
        counts.rejected,
        summary.quarantined,
        summary.resolved
    );
    let are = if dry_run { "would be" } else { "are" };
    let NotInBronze { foreign, lost } = summary.not_in_bronze;
    if foreign > 0 {
        out!(
            "{table}: the rows of {foreign} events {are} removed that bronze never had: another program wrote them, at offsets \
             that silverd has not reached"
        );
    }
    if lost > 0 {
        out!("{table}: the rows of {lost} events {are} removed that bronze does not have: they cannot be made again");
    }
    for (side_output, rows) in &summary.doubled {
        out!("{table}: {rows} rows {are} removed that the table {side_output} had a second time");
    }
    if let Some(zone) = summary.moved_to {
        let have = if dry_run { "would have" } else { "have" };
        out!("{table}: all rows {have} their days in {zone}");
    }
    if summary.restores_progress {
        let sets = if dry_run { "would set" } else { "sets" };
        out!("{table}: the log had lost the table's progress; the rebuild {sets} it to the end of bronze");
    }
}
