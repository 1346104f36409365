//! silverd-bench: measures silverd on this machine.
//!
//! A drain runs in a process of its own, so that memory and CPU time are those of the drain alone. It is repeated, and the
//! median counts.

mod args;
mod chaos;
mod drain;
mod drain_process;
mod native;
mod output_dir;
mod running;
mod soak;
mod suite;
mod topic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Parser, Subcommand};
use serde_json::Value;
use silverd::cli::process::{self, LogArgs};
use silverd::plugin::cache::COMPILE_COMMAND;
use silverd::runtime::allocator::Allocator;
use silverd::source::EmbeddedBroker;
use silverd::sql_engine::{SQL_COMMAND, SqlWork};
use tokio_util::sync::CancellationToken;

use args::BenchArgs;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Measure silverd on this machine: fill a topic, drain it into new tables, and report events per second.
///
/// Exit codes: 0 done; 1 failed, or found an error; 2 wrong command line or configuration.
#[derive(Parser, Debug)]
#[command(name = "silverd-bench", version, about, long_about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: BenchArgs,
    /// The configuration file
    #[arg(long, global = true, default_value = "pipeline.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Commit many times to two tables, and report whether commits and opening stay fast as the tables grow
    Soak(soak::SoakArgs),
    /// Kill and disturb several silverd on the same tables, by a seed, and check that the tables are complete
    Chaos(chaos::ChaosArgs),
    /// What this program runs to compile a plugin: reads a component from stdin, writes machine code to stdout
    #[command(hide = true, name = COMPILE_COMMAND)]
    CompilePlugin,
    /// What this program runs to evaluate SQL: reads requests from stdin, writes answers to stdout
    #[command(hide = true, name = SQL_COMMAND)]
    Sql {
        #[arg(value_enum)]
        work: SqlWork,
    },
}

const EMBEDDED_TOPIC: &str = "silverd-bench";
/// Bytes that the embedded broker needs for an event, at most on average.
const EVENT_BYTES: u64 = 512;

fn main() -> ExitCode {
    silverd::runtime::allocator::configure();
    let cli = Cli::parse();
    match cli.command {
        Some(Command::CompilePlugin) => return process::compile_plugin(),
        Some(Command::Sql { work }) => return process::sql(work),
        Some(Command::Soak(_) | Command::Chaos(_)) | None => {}
    }
    process::run(&cli.log, |stop| execute(cli.command, cli.config, cli.bench, stop))
}

async fn execute(
    command: Option<Command>,
    config: PathBuf,
    args: BenchArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    match command {
        Some(Command::Soak(args)) => soak::soak(args, stop).await,
        Some(Command::Chaos(args)) => chaos::chaos(args, stop).await,
        Some(Command::CompilePlugin | Command::Sql { .. }) => Ok(()),
        None if args.serve => running::serve(&config, args, stop).await,
        None if args.once => drain::once(&config, args, stop).await,
        None => bench(&config, args, stop).await,
    }
}

/// All measurements that were asked for, each in processes of its own.
async fn bench(config: &Path, mut args: BenchArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let embedded = args.embedded.then(|| EmbeddedBroker::start(EMBEDDED_TOPIC, args.partitions)).transpose()?;
    if let Some(broker) = &embedded {
        args.brokers = broker.bootstrap();
        args.topic_name = Some(EMBEDDED_TOPIC.to_owned());
        let events_max = broker.ahead_bytes_max() / EVENT_BYTES;
        let events = *args.events.get_or_insert(events_max);
        ensure!(
            events <= events_max,
            "--events {events}: with --partitions {}, the embedded broker holds at most {events_max} events. Ask for no \
             more, or give Kafka's brokers with --brokers",
            args.partitions
        );
    }
    let report = suite::run(config, &args, &stop).await?;
    if embedded.is_some() {
        let (sent, drained) = (args.events.unwrap_or_default(), report["events"].as_u64().unwrap_or_default());
        ensure!(
            sent == drained,
            "the embedded broker dropped {} of {sent} events, which were larger than usual: ask for fewer with --events",
            sent.saturating_sub(drained)
        );
    }
    if args.json {
        println!("{}", Value::Object(report));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn drain_is_the_default() {
        let cli = Cli::try_parse_from(["silverd-bench", "--events", "5", "--brokers", "b:1", "--json"]).unwrap();
        assert!(cli.command.is_none() && cli.bench.json);
        assert_eq!((cli.bench.events, cli.bench.brokers.as_str()), (Some(5), "b:1"));
        let soak = Cli::try_parse_from(["silverd-bench", "soak", "--commits", "7"]).unwrap();
        assert!(matches!(soak.command, Some(Command::Soak(_))));
    }

    #[test]
    fn chaos_needs_a_kafka() {
        let chaos = |arguments: &[&str]| Cli::try_parse_from(["silverd-bench", "chaos"].iter().chain(arguments));
        assert!(chaos(&[]).is_err());
        assert!(chaos(&["--brokers", "b:1", "--kafka", "scripts/kafka"]).is_err());
        assert!(chaos(&["--brokers", "b:1", "--seed", "7", "--for", "60s"]).is_ok());
        assert!(chaos(&["--kafka", "scripts/kafka", "--daemons", "2", "--json"]).is_ok());
        assert!(chaos(&["--kafka", "scripts/kafka", "--for", "sixty"]).is_err());
    }
}
