//! `silverd-bench chaos`: several silverd on the same tables, a Kafka with events, and faults that a seed draws. At the end, the
//! tables must be what they would be without any fault.
//!
//! ```text
//!   events ──▶ Kafka ──▶ silverd, silverd, silverd ──▶ tables ──▶ check
//!                ▲           ▲                           ▲
//!                └───────────┴────── run ────────────────┘
//!                                     ▲
//!                                   plan, by the seed
//! ```

mod bronze_log;
mod check;
mod events;
mod fleet;
mod folder;
mod kafka;
mod plan;
mod project;
mod run;
mod shim;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use folder::RunFolder;

#[derive(clap::Args, Debug)]
pub(crate) struct ChaosArgs {
    /// Which faults happen, and in which order: the same seed draws the same ones [default: a random one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults happen, before the tables are checked
    #[arg(long = "for", default_value = "10m", value_name = "TIME", value_parser = parse_time)]
    time: Duration,
    /// Kafka's brokers, which stay as they are
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "kafka", required_unless_present = "kafka")]
    brokers: Option<String>,
    /// Start a Kafka by this script instead, and restart it: scripts/kafka
    #[arg(long, value_name = "SCRIPT")]
    kafka: Option<PathBuf>,
    /// The program that is tested [default: the silverd next to this program]
    #[arg(long, value_name = "FILE")]
    silverd: Option<PathBuf>,
    /// The checkout of silverd whose plugins are used
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    repository: PathBuf,
    /// How many silverd run on the same tables; one more joins them at times
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    daemons: u16,
    /// Events per second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    eps: u32,
    /// Only these kinds of faults, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<plan::Kind>,
    /// At most so long between two faults
    #[arg(long, default_value = "4s", value_name = "TIME", value_parser = parse_time)]
    wait_max: Duration,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn parse_time(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "expected a number and a unit, such as 60s or 10m")
}

/// Runs the faults and the check. Fails if something was wrong; the folder of the run stays then.
pub(crate) async fn chaos(args: ChaosArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let folder = RunFolder::create()?;
    eprintln!("seed {seed}, in {}", folder.path.display());
    let summary = match run::run(&args, seed, &folder.path, &stop).await {
        Ok(summary) => summary,
        Err(failure) => {
            return Err(failure.context(format!("run seed {seed}; its folder is {}", folder.keep().display())));
        }
    };
    match args.json {
        true => println!("{}", summary.json()),
        false => print!("{}", summary.text()),
    }
    let violations = summary.violations.len();
    if violations > 0 {
        bail!("{violations} violations under seed {seed}: the tables and the logs are in {}", folder.keep().display());
    }
    folder.remove().context("remove the folder of the run")
}
