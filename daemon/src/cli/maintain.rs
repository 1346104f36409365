//! `silverd maintain`: table maintenance by hand, which a running silverd does in the background.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use tokio_util::sync::CancellationToken;

use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::delta::TableLock;
use crate::maintenance::{
    CleanedUp, Compacted, CompleteDays, MaintainedTable, MaintenanceError, Throttle, Vacuumed, remove_expired,
};
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub struct MaintainArgs {
    /// Maintain only this table, by its name in `silverd query` [default: all tables of pipeline.toml]
    #[arg(value_name = "TABLE")]
    table: Option<String>,
    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
}

/// What was done for a table, or would be.
struct Report {
    compacted: Compacted,
    vacuumed: Vacuumed,
    cleaned_up: CleanedUp,
}

pub async fn maintain(file: &Path, args: MaintainArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let all = MaintainedTable::all(&setup.pipeline, &setup.base_dir);
    let names: Vec<&str> = all.iter().map(|table| table.name.as_str()).collect();
    let is_wanted = |table: &&MaintainedTable| args.table.as_ref().is_none_or(|name| table.name == *name);
    let tables: Vec<&MaintainedTable> = all.iter().filter(is_wanted).collect();
    if tables.is_empty() {
        wrong_use!("there is no table {}; the tables are {}", args.table.unwrap_or_default(), names.join(", "));
    }
    let throttle = Throttle::unlimited(stop);
    let mut disk_space_low = None;
    for table in tables {
        match maintain_table(&setup, table, args.dry_run, &throttle).await {
            Ok(Some(report)) => report.print(&table.name, args.dry_run),
            Ok(None) => out!("{}: nothing was written yet", table.name),
            Err(MaintenanceError::Stopped) => bail!("interrupted; tables not listed above are unchanged"),
            // Its old files are removed by then, and other tables may be on another disk.
            Err(failure @ MaintenanceError::DiskSpaceLow { .. }) => {
                out!("{}: its small files were not compacted", table.name);
                disk_space_low = Some(failure);
            }
            Err(MaintenanceError::Failed(failure)) => {
                return Err(failure.context(format!("maintain table {}", table.name)));
            }
        }
    }
    disk_space_low.map_or(Ok(()), |failure| Err(failure.into()))
}

/// `None` if the table does not exist yet.
async fn maintain_table(
    setup: &Setup,
    maintained: &MaintainedTable,
    dry_run: bool,
    throttle: &Throttle,
) -> Result<Option<Report>, MaintenanceError> {
    let config = &setup.pipeline.maintenance;
    let Some((mut table, files)) = maintained.open().await? else { return Ok(None) };
    if dry_run {
        let vacuumed = maintained.vacuum(&table, config, true, throttle).await?;
        let cleaned_up = maintained.clean_up_log(&table, config, true, throttle).await?;
        let compacted = maintained.plan_compaction(files, config, CompleteDays::All);
        return Ok(Some(Report { compacted, vacuumed, cleaned_up }));
    }
    let locked = || anyhow!("a correction or another maintenance of the table is running; run the command again later");
    let _lock = TableLock::exclusive(&maintained.path)?.with_context(locked)?;
    let (vacuumed, cleaned_up) =
        remove_expired(&setup.pipeline, &setup.base_dir, maintained, &mut table, throttle).await?;
    let files = table.files().await?;
    let compacted = maintained.compact(&mut table, files, config, CompleteDays::All, throttle).await?;
    Ok(Some(Report { compacted, vacuumed, cleaned_up }))
}

impl Report {
    fn print(&self, table: &str, dry_run: bool) {
        let Self { compacted, vacuumed, cleaned_up } = self;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let (compact, remove) = if dry_run { ("would compact", "would remove") } else { ("compacted", "removed") };
        out!(
            "{table}: {compact} {} files ({}) into {}; {remove} {} files ({}), {} log entries and {} checkpoints",
            compacted.files,
            mib(compacted.bytes),
            compacted.compactions,
            vacuumed.files,
            mib(vacuumed.bytes),
            cleaned_up.entries,
            cleaned_up.checkpoints,
        );
    }
}
