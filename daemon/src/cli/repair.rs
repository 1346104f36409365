//! `silverd repair`: the way out when data files are damaged.

use std::path::Path;

use anyhow::{Context, bail};
use silverd_core::offsets::{LogPartition, OffsetRange};
use silverd_core::verify::FileOwner;
use tokio_util::sync::CancellationToken;

use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::delta::open_log;
use crate::maintenance::{MaintainedTable, TableKind};
use crate::repair::{RepairOptions, Repaired, repair_bronze};
use crate::runtime::inert::inert_lines;
use crate::runtime::out::out;
use crate::verify::{DamagedFile, damaged_files};

/// More ranges than that are not shown.
const RANGES_SHOWN_MAX: usize = 8;

#[derive(clap::Args, Debug)]
pub(super) struct RepairArgs {
    /// Only these tables, by their names in `silverd query` [default: all tables of pipeline.toml]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Read from Kafka and show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Record as lost the events of Bronze whose topic or cluster Kafka no longer has, or that cannot be distinguished from deleted ones
    #[arg(long)]
    accept_loss: bool,
}

pub(super) async fn repair(config: &Path, args: RepairArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let all = MaintainedTable::all(&setup.pipeline, &setup.base_dir);
    if let Some(unknown) = args.tables.iter().find(|name| all.iter().all(|table| table.name != **name)) {
        let names: Vec<&str> = all.iter().map(|table| table.name.as_str()).collect();
        wrong_use!("there is no table {unknown}; the tables are {}", names.join(", "));
    }
    let is_wanted = |table: &&MaintainedTable| args.tables.is_empty() || args.tables.contains(&table.name);
    // The rows of other tables are made of Bronze's records.
    let (bronze, others): (Vec<_>, Vec<_>) =
        all.iter().filter(is_wanted).partition(|table| table.kind() == TableKind::Bronze);
    if !bronze.is_empty() {
        let options = RepairOptions { accept_loss: args.accept_loss, dry_run: args.dry_run, stop: &stop };
        match repair_bronze(&setup.pipeline, &setup.base_dir, &options).await.context("repair bronze")? {
            Some(repaired) => print(&repaired, args.dry_run),
            None => out!("bronze: nothing was written yet"),
        }
    }
    let mut left = 0;
    for table in others {
        let find = find_damaged(table);
        let found = tokio::select! {
            found = find => found.with_context(|| format!("read the files of {}", table.name))?,
            () = stop.cancelled() => bail!("interrupted; the files of {} and of the tables after it were not read", table.name),
        };
        match found {
            None => out!("{}: nothing was written yet", table.name),
            Some(damaged) if damaged.is_empty() => out!("{}: no file is damaged", table.name),
            Some(damaged) => {
                left += damaged.len();
                print_damaged(table, &damaged);
            }
        }
    }
    match left {
        0 => Ok(()),
        1 => bail!("1 damaged file is left: run the command above that makes its rows again"),
        files => bail!("{files} damaged files are left: run the commands above that make their rows again"),
    }
}

/// The damaged files of a table that is not Bronze; `None` if the table does not exist yet.
async fn find_damaged(table: &MaintainedTable) -> anyhow::Result<Option<Vec<DamagedFile>>> {
    let Some(log) = open_log(&table.path)? else { return Ok(None) };
    let owner = match table.kind() {
        TableKind::Bronze => FileOwner::Bronze,
        TableKind::Silver => FileOwner::Silver(table.name.clone()),
        TableKind::SideOutput | TableKind::Gold => FileOwner::SideOutput,
    };
    damaged_files(&log, &owner).await.map(Some)
}

fn print_damaged(table: &MaintainedTable, damaged: &[DamagedFile]) {
    for file in damaged {
        let explanation = file.problem.explain();
        out!("{}", inert_lines(&format!("{}: {}", table.name, explanation.found)));
        match table.kind() {
            TableKind::Gold => out!(
                "  help      stop silverd, move the folder {} away, and start silverd: it computes the table again",
                table.path.display()
            ),
            _ => out!("{}", inert_lines(&format!("  help      {}", explanation.help))),
        }
    }
}

fn print(repaired: &Repaired, dry_run: bool) {
    let Repaired { damaged, read_events, read, lost_events, lost, unreadable, moved_to } = repaired;
    if damaged.is_empty() {
        out!("bronze: no file is damaged");
        return;
    }
    for file in damaged {
        out!("{}", inert_lines(&format!("bronze: {}", file.problem.explain().found)));
    }
    for reason in unreadable {
        out!("{}", inert_lines(&format!("bronze: not read: {reason}")));
    }
    let (reads, are) = if dry_run { ("would be read", "would be") } else { ("were read", "are") };
    out!("{}", inert_lines(&format!("bronze: {read_events} events {reads} again from Kafka{}", shown(read))));
    out!("{}", inert_lines(&format!("bronze: {lost_events} events {are} recorded as lost{}", shown(lost))));
    for file in moved_to {
        out!("bronze: moved the damaged file to {}", file.display());
    }
    if dry_run {
        out!("bronze: nothing was changed");
    }
}

/// The first of some ranges, in brackets.
fn shown(ranges: &[(LogPartition, OffsetRange)]) -> String {
    let mut parts: Vec<String> =
        ranges.iter().take(RANGES_SHOWN_MAX).map(|(log, range)| format!("{log} offsets {range}")).collect();
    match ranges.len().saturating_sub(RANGES_SHOWN_MAX) {
        0 => {}
        more => parts.push(format!("and {more} more ranges")),
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}
