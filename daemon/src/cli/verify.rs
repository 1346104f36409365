//! `silverd verify`: checks from the logs that every event is accounted for; on request, compares every row.

use std::path::Path;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use crate::app::setup::Setup;
use crate::runtime::inert::inert_lines;
use crate::runtime::out::out;
use crate::verify::{self, Report, SelectedTables, Verified};

#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// Silver tables [default: all tables of pipeline.toml]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Transform the events of Bronze again, and compare every row
    #[arg(long)]
    deep: bool,
    /// With --deep: fail if rows cannot be compared because their plugin is not available
    #[arg(long, requires = "deep")]
    strict: bool,
    /// Print a JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn verify(file: &Path, args: VerifyArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    for table in &args.tables {
        setup.table(table)?;
    }
    let selected = SelectedTables((!args.tables.is_empty()).then_some(args.tables));
    let work = async {
        let mut verified = verify::verify_logs(&setup.pipeline, &setup.base_dir, &selected).await?;
        if args.deep {
            compare_rows(&setup, &mut verified).await?;
        }
        anyhow::Ok(Report::new(&verified))
    };
    let report = tokio::select! {
        report = work => report?,
        () = stop.cancelled() => bail!("interrupted: the verification is incomplete"),
    };
    if args.json {
        out!("{}", report.json());
    } else {
        out!("{}", inert_lines(report.text().trim_end()));
    }
    match report.errors() + if args.strict { report.not_compared() } else { 0 } {
        0 => Ok(()),
        1 => bail!("verification failed: 1 error"),
        errors => bail!("verification failed: {errors} errors"),
    }
}

async fn compare_rows(setup: &Setup, verified: &mut Verified) -> anyhow::Result<()> {
    let mut bar: Option<(String, Progress)> = None;
    let mut show = |table: &str, done: u64, total: u64| {
        if bar.as_ref().is_none_or(|(shown, _)| shown != table) {
            bar.iter().for_each(|(_, bar)| bar.clear());
            bar = Some((table.to_owned(), Progress::new(table)));
        }
        bar.iter().for_each(|(_, bar)| bar.show(done, total));
    };
    let host = setup.host()?;
    let compared = verify::compare_rows(&setup.pipeline, &setup.base_dir, &host, verified, &mut show).await;
    bar.iter().for_each(|(_, bar)| bar.clear());
    compared
}
