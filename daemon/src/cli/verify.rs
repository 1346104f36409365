//! `silverd verify`: proves from the logs that every event is accounted for.

use std::path::Path;

use anyhow::bail;

use super::setup::Setup;
use crate::verify::{self, Report, Wanted};

#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// Silver tables [default: all of pipeline.toml]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn verify(file: &Path, args: VerifyArgs) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    for table in &args.tables {
        setup.table(table)?;
    }
    let wanted = Wanted((!args.tables.is_empty()).then_some(args.tables));
    let proven = verify::logs(&setup.pipeline, &setup.base, &wanted).await?;
    let report = Report::of(&proven);
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    match report.errors() {
        0 => Ok(()),
        1 => bail!("the tables do not hold what their logs promise: 1 error"),
        errors => bail!("the tables do not hold what their logs promise: {errors} errors"),
    }
}
