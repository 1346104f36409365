//! `silverd verify`: proves from the logs that every event is accounted for, and compares the rows, if it is asked to.

use std::path::Path;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::setup::Setup;
use crate::verify::{self, Report, Wanted};

#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// Silver tables [default: all of pipeline.toml]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Judge what Bronze has again, and compare every row
    #[arg(long)]
    deep: bool,
    /// With --deep: rows that cannot be compared, since their plugin is not here, are an error
    #[arg(long, requires = "deep")]
    strict: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn verify(file: &Path, args: VerifyArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    for table in &args.tables {
        setup.table(table)?;
    }
    let wanted = Wanted((!args.tables.is_empty()).then_some(args.tables));
    let work = async {
        let mut proven = verify::logs(&setup.pipeline, &setup.base, &wanted).await?;
        if args.deep {
            compare(&setup, &mut proven).await?;
        }
        anyhow::Ok(Report::of(&proven))
    };
    let report = tokio::select! {
        report = work => report?,
        () = stop.cancelled() => bail!("stopped before the end: nothing is proven"),
    };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    match report.errors() + if args.strict { report.not_compared() } else { 0 } {
        0 => Ok(()),
        1 => bail!("the tables do not hold what their logs promise: 1 error"),
        errors => bail!("the tables do not hold what their logs promise: {errors} errors"),
    }
}

async fn compare(setup: &Setup, proven: &mut verify::Proven) -> anyhow::Result<()> {
    let mut bar: Option<(String, Progress)> = None;
    let mut show = |table: &str, done: u64, all: u64| {
        if bar.as_ref().is_none_or(|(of, _)| of != table) {
            bar.iter().for_each(|(_, bar)| bar.clear());
            bar = Some((table.to_owned(), Progress::new(table)));
        }
        bar.iter().for_each(|(_, bar)| bar.show(done, all));
    };
    let compared = verify::compare_rows(&setup.pipeline, &setup.base, proven, &mut show).await;
    bar.iter().for_each(|(_, bar)| bar.clear());
    compared
}
