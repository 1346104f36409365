//! `silverd plugin history`: which plugin has written which offsets of a table, and when.

use std::path::Path;

use anyhow::bail;
use chrono::DateTime;

use super::counted;
use crate::cli::setup::Setup;
use crate::delta::{Span, history as spans_of, log_at};
use crate::transform::Digest;

#[derive(clap::Args, Debug)]
pub struct HistoryArgs {
    /// A Silver table of pipeline.toml
    table: String,
    /// One JSON array, of a span of commits each
    #[arg(long)]
    json: bool,
}

pub async fn history(config: &Path, args: &HistoryArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let table = &setup.pipeline.silver[setup.table(&args.table)?];
    let path = setup.base.join(&**table.path);
    let Some(log) = log_at(&path)? else {
        bail!("nothing was written to table {} yet: {} does not exist", table.name, path.display());
    };
    let spans = spans_of(log.object_store(None).as_ref()).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&spans)?);
        return Ok(());
    }
    let commits = spans.iter().map(|span| span.commits).sum();
    println!("{}: {} in {}", table.name, counted(commits, "commit"), path.display());
    let kept = setup.base.join(&**setup.pipeline.state.path).join("plugins");
    for span in &spans {
        tell(span, kept.join(format!("{}.wasm", span.digest)).is_file());
    }
    Ok(())
}

fn tell(span: &Span, kept: bool) {
    let Span { digest, interface, first_version, last_version, counts, .. } = span;
    let short = Digest::short(digest);
    println!("\nplugin {short}  {interface}{}", if kept { "" } else { "  (its file is not kept)" });
    println!("  {} to {}", time(span.first_at_ms), time(span.last_at_ms));
    println!("  versions {first_version} to {last_version}, {}", counted(span.commits, "commit"));
    println!(
        "  {}: {}, {} dropped, {} duplicates, {} rejected",
        counted(counts.events, "event"),
        counted(counts.rows, "row"),
        counts.dropped,
        counts.duplicates,
        counts.rejected
    );
    for (log, [start, end]) in &span.ranges {
        println!("  {log}  offsets {start} to {}", end - 1);
    }
}

fn time(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
