//! `silverd plugin history`: which version of a plugin, with which settings and reference files, wrote which offsets of a
//! table, and when.

use std::path::Path;

use anyhow::bail;
use chrono::DateTime;
use silverd_core::counts::Counts;

use super::counted;
use crate::app::setup::Setup;
use crate::cli::plugin_version::short;
use crate::delta::{Corrected, PluginSpan, open_log, plugin_history};
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct HistoryArgs {
    /// A Silver table of pipeline.toml
    table: String,
    /// Print a JSON array with one object for each span of commits
    #[arg(long)]
    json: bool,
}

pub(super) async fn history(config: &Path, args: &HistoryArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let table = &setup.pipeline.silver[setup.table(&args.table)?];
    let path = setup.base_dir.join(&**table.path);
    let Some(log) = open_log(&path)? else {
        bail!("nothing was written to table {} yet: {} does not exist", table.name, path.display());
    };
    let spans = plugin_history(log.object_store(None).as_ref()).await?;
    if args.json {
        out!("{}", serde_json::to_string_pretty(&spans)?);
        return Ok(());
    }
    let commits = spans.iter().map(|span| span.commits).sum();
    out!("{}: {} in {}", table.name, counted(commits, "commit"), path.display());
    let state = setup.base_dir.join(&**setup.pipeline.state.path);
    for span in &spans {
        print_span(span, &state);
    }
    Ok(())
}

fn print_span(span: &PluginSpan, state: &Path) {
    let PluginSpan { digest, given, interface, first_version, last_version, counts, .. } = span;
    let has_plugin = state.join(format!("plugins/{digest}.wasm")).is_file();
    let has_given = given.as_ref().is_none_or(|given| state.join(format!("given/{given}.json")).is_file());
    let note = match (has_plugin, has_given) {
        (true, true) => "",
        (false, _) => "  (its file is no longer kept)",
        (true, false) => "  (its settings and reference files are no longer kept)",
    };
    out!("\nplugin {}  {interface}{note}", short(&span.version()));
    out!("  {} to {}", time_text(span.first_at_ms), time_text(span.last_at_ms));
    out!("  versions {first_version} to {last_version}, {}", counted(span.commits, "commit"));
    if span.commits > span.corrections.values().map(|corrected| corrected.commits).sum::<u64>() {
        out!("  {}", counts_text(counts));
    }
    for (kind, Corrected { commits, counts }) in &span.corrections {
        let name = match kind.as_str() {
            "undo" => "rebuild of what a version wrote",
            "replay" => "replay of the quarantine",
            kind => kind,
        };
        out!("  {name}, {}: {}", counted(*commits, "commit"), counts_text(counts));
    }
    for (log, [start, end]) in &span.ranges {
        out!("  {log}  offsets {start} to {}", end - 1);
    }
}

fn counts_text(counts: &Counts) -> String {
    format!(
        "{}: {}, {} dropped, {} duplicates, {} rejected",
        counted(counts.events, "event"),
        counted(counts.rows, "row"),
        counts.dropped,
        counts.duplicates,
        counts.rejected
    )
}

fn time_text(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
