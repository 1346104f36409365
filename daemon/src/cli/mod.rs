//! The command line.

mod alert;
mod arrow_table;
mod check;
mod demo;
mod infer;
mod maintain;
mod plugin;
mod plugin_version;
pub mod process;
mod progress;
mod quarantine;
mod query;
mod rebuild;
mod renamed;
mod repair;
mod run;
mod verify;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, Subcommand};
use silverd_core::zone::TZDATA_VERSION;
use tokio_util::sync::CancellationToken;

use crate::generate::{self, GenerateArgs};
use crate::plugin::cache::COMPILE_COMMAND;
use crate::sql_engine::{SQL_COMMAND, SqlWork};

use process::{LogArgs, WRONG_USE};

/// Kafka to Delta Lake, through WebAssembly: raw Bronze, clean Silver, exactly once.
///
/// Exit codes: 0 done; 1 failed, or found an error; 2 wrong command line or configuration; 3 `wait` gave up.
#[derive(Parser, Debug)]
#[command(name = "silverd", version = version(), about, long_about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The configuration file
    #[arg(long, global = true, default_value = "pipeline.toml", value_name = "FILE")]
    config: PathBuf,
    /// Stop run, demo or generate cleanly after this time, e.g. 15s, 2m
    #[arg(long = "for", global = true, value_name = "TIME", value_parser = parse_time)]
    time: Option<Duration>,
    #[command(flatten)]
    log: LogArgs,
}

/// silverd's version, and that of its time zones' rules.
fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("{} (time zones: tzdata {TZDATA_VERSION})", env!("CARGO_PKG_VERSION")));
    &VERSION
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Try silverd with nothing to install: an embedded broker, generated events, the pipeline and the dashboard
    Demo(demo::DemoArgs),
    /// Run the pipeline against the brokers in pipeline.toml
    Run(run::RunArgs),
    /// Check pipeline.toml and its plugins, and report every error
    Check(check::CheckArgs),
    /// Look at the newest events of a topic, and show for each kind of event which fields it has, of which types; writes nothing
    Infer(infer::InferArgs),
    /// Create, inspect, test, try and deploy plugins, and show which version wrote what
    Plugin(plugin::PluginArgs),
    /// Send generated events, or those of a file, to a topic
    Generate(GenerateArgs),
    /// Answer SQL over the tables of pipeline.toml
    Query(query::QueryArgs),
    /// Verify from the tables' logs that every event is accounted for
    Verify(verify::VerifyArgs),
    /// Wait until a day of a table is final, for a report that must not be half a day
    Wait(wait::WaitArgs),
    /// What silverd runs to compile a plugin: reads a component from stdin, writes machine code to stdout
    #[command(hide = true, name = COMPILE_COMMAND)]
    CompilePlugin,
    /// What silverd runs to answer SQL within limits: reads requests from stdin, writes answers to stdout
    #[command(hide = true, name = SQL_COMMAND)]
    Sql {
        #[arg(value_enum)]
        work: SqlWork,
    },
    /// Rebuild a Silver table from Bronze with the current plugin, or with the one that served at an earlier time: all of it,
    /// some days, or what one version wrote
    Rebuild(rebuild::RebuildArgs),
    /// The same as `rebuild --written-by`
    #[command(hide = true)]
    Undo(rebuild::UndoArgs),
    /// Repair damaged data files: read the records of Bronze's again from Kafka, and name the commands that make those of other
    /// tables again
    Repair(repair::RepairArgs),
    /// Compact small files, remove old ones and clean up the logs now; a running silverd does this automatically
    Maintain(maintain::MaintainArgs),
    /// Show which alerts fire, and try out their notifications
    Alert(alert::AlertArgs),
    /// List, show and replay rejected events
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
}

/// Parses the command line, runs the command, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match renamed::message(&error) {
            Some(message) => {
                eprintln!("error: {message}");
                return ExitCode::from(WRONG_USE);
            }
            None => error.exit(),
        },
    };
    match cli.command {
        Command::CompilePlugin => process::compile_plugin(),
        Command::Sql { work } => process::sql(work),
        command => process::run(&cli.log, |stop| execute(command, cli.config, cli.time, stop)),
    }
}

fn parse_time(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "expected a number and a unit, such as 15s or 2m")
}

async fn execute(
    command: Command,
    config: PathBuf,
    time: Option<Duration>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let config = &config;
    match command {
        Command::Demo(args) => demo::demo(config, args, time, stop).await,
        Command::Run(args) => {
            stop_after(time, &stop);
            run::run(config, args, stop).await
        }
        Command::Check(args) => check::check(config, args).await,
        Command::Generate(args) => {
            stop_after(time, &stop);
            generate::run(args, stop).await.map(drop)
        }
        Command::CompilePlugin | Command::Sql { .. } => Ok(()),
        Command::Infer(args) => infer::infer(config, args, stop).await,
        Command::Plugin(args) => plugin::plugin(config, args, stop).await,
        Command::Query(args) => query::query(config, args).await,
        Command::Verify(args) => verify::verify(config, args, stop).await,
        Command::Wait(args) => wait::wait(config, args, stop).await,
        Command::Rebuild(args) => rebuild::rebuild(config, args, stop).await,
        Command::Undo(args) => rebuild::undo(config, args, stop).await,
        Command::Repair(args) => repair::repair(config, args, stop).await,
        Command::Maintain(args) => maintain::maintain(config, args, stop).await,
        Command::Alert(args) => alert::alert(config, args).await,
        Command::Quarantine(command) => quarantine::quarantine(config, command, stop).await,
    }
}

/// Cancels the token when the time of `--for` is over, counted from now.
fn stop_after(time: Option<Duration>, stop: &CancellationToken) {
    if let Some(time) = time {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            stop.cancel();
        });
    }
}
