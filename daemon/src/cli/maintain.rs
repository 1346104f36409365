//! `silverd maintain`: what a running silverd does for its tables' files and logs, once and at once.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use tokio_util::sync::CancellationToken;

use super::setup::Setup;
use crate::delta::Lease;
use crate::maintenance::{Kept, Merged, NoRoom, Pace, Stopped, Swept, Tails, Trimmed, tidy};

#[derive(clap::Args, Debug)]
pub struct MaintainArgs {
    /// Only this table, as `silverd query` names it [default: all of pipeline.toml]
    #[arg(value_name = "TABLE")]
    table: Option<String>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn maintain(file: &Path, args: MaintainArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let all = Kept::all(&setup.pipeline, &setup.base);
    let names: Vec<&str> = all.iter().map(|kept| kept.name.as_str()).collect();
    let wanted = |kept: &&Kept| args.table.as_ref().is_none_or(|table| kept.name == *table);
    let tables: Vec<&Kept> = all.iter().filter(wanted).collect();
    if tables.is_empty() {
        bail!("there is no table {}; the tables are {}", args.table.unwrap_or_default(), names.join(", "));
    }
    let pace = Pace::at_once(stop);
    let mut short = None;
    for kept in tables {
        match of_table(&setup, kept, args.dry_run, &pace).await {
            Ok(()) => {}
            Err(failure) if failure.is::<Stopped>() => bail!("stopped: what was not told as done is as it was"),
            // Old files are gone by then, and other tables may lie elsewhere.
            Err(failure) if failure.is::<NoRoom>() => {
                println!("{}: its small files stay as they are", kept.name);
                short = Some(failure);
            }
            Err(failure) => return Err(failure.context(format!("care for table {}", kept.name))),
        }
    }
    short.map_or(Ok(()), Err)
}

async fn of_table(setup: &Setup, kept: &Kept, rehearsal: bool, pace: &Pace) -> anyhow::Result<()> {
    let config = &setup.pipeline.maintenance;
    let Some((mut table, files)) = kept.open().await? else {
        println!("{}: nothing written yet", kept.name);
        return Ok(());
    };
    if rehearsal {
        let swept = kept.sweep(&table, config, true, pace).await?;
        let trimmed = kept.trim(&table, config, true, pace).await?;
        let merged = kept.would_merge(files, config, Tails::OfAllDays);
        tell(&kept.name, merged, swept, trimmed, true);
        return Ok(());
    }
    let busy =
        || anyhow!("a correction, or another maintenance of it, is at work: run the command again when it is over");
    let _lease = Lease::alone(&kept.path)?.with_context(busy)?;
    let (swept, trimmed) = tidy(&setup.pipeline, &setup.base, kept, &mut table, pace).await?;
    let files = table.files().await?;
    let merged = kept.merge(&mut table, files, config, Tails::OfAllDays, pace).await?;
    tell(&kept.name, merged, swept, trimmed, false);
    Ok(())
}

fn tell(table: &str, merged: Merged, swept: Swept, trimmed: Trimmed, rehearsal: bool) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let (merge, remove) = if rehearsal { ("would merge", "would remove") } else { ("merged", "removed") };
    println!(
        "{table}: {merge} {} files ({}) into {}; {remove} {} files ({}), {} entries and {} checkpoints of the log",
        merged.files,
        mib(merged.bytes),
        merged.merges,
        swept.files,
        mib(swept.bytes),
        trimmed.entries,
        trimmed.checkpoints,
    );
}
