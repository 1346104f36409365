//! The command line.

mod bench;
mod beside;
mod demo;
mod flat;
mod follow;
mod maintain;
mod plugin;
mod progress;
mod quarantine;
mod query;
mod rebuild;
mod run;
mod setup;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::delta::checkpoints_done;
use crate::generate::{self, GenerateArgs};
use crate::logging;
use crate::transform::cache;

pub use setup::Mistaken;

/// Kafka to Delta Lake, through WebAssembly: raw Bronze, clean Silver, exactly once.
///
/// Exit codes: 0 ended as it should; 1 failed; 2 pipeline.toml or the command line has mistakes.
#[derive(Parser, Debug)]
#[command(name = "silverd", version, about, long_about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The pipeline
    #[arg(long, global = true, default_value = "pipeline.toml", value_name = "FILE")]
    config: PathBuf,
    /// End cleanly after this time, e.g. 15s, 2m
    #[arg(long = "for", global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// What is logged, e.g. debug, or silverd::ingest=debug
    #[arg(long, global = true, env = "SILVERD_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How it is logged
    #[arg(long, global = true, env = "SILVERD_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show it all, with nothing to install: an embedded broker, generated events, the pipeline
    Demo(demo::DemoArgs),
    /// Run the pipeline against the brokers of pipeline.toml
    Run(run::RunArgs),
    /// Check pipeline.toml and its plugins, and tell every mistake
    Check,
    /// Make, inspect, test and try plugins, and tell which of them wrote what
    Plugin(plugin::PluginArgs),
    /// Send made-up events, or those of a file, to a topic
    Generate(GenerateArgs),
    /// Answer SQL over the tables of pipeline.toml
    Query(query::QueryArgs),
    /// Prove from the tables' logs that every event is accounted for
    Verify(verify::VerifyArgs),
    /// What silverd runs to compile a plugin: a component in by stdin, machine code out by stdout
    #[command(hide = true, name = cache::COMPILE_COMMAND)]
    CompilePlugin,
    /// Make a Silver table anew from Bronze, or some days of it, with the plugin of today
    Rebuild(rebuild::RebuildArgs),
    /// Make anew what a bad version of a plugin made
    Undo(rebuild::UndoArgs),
    /// Merge small files, remove old ones, and trim the logs, now; a running silverd does it by itself
    Maintain(maintain::MaintainArgs),
    /// The rejected events: list, show and replay them
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Drain a topic into fresh tables, and print events per second, CPU per stage and memory
    Bench(bench::BenchArgs),
    /// Commit 50,000 times, and print how long commits and openings take as a table grows old
    Flat(flat::FlatArgs),
}

impl Command {
    /// True where the command prints something and does nothing else that could be cut off.
    fn only_answers(&self) -> bool {
        use quarantine::QuarantineCommand::{List, Show};
        matches!(self, Self::Check | Self::Query(_) | Self::Verify(_) | Self::Quarantine(List(_) | Show { .. }))
    }
}

const FAILED: u8 = 1;
const MISTAKEN: u8 = 2;

/// Runs the command, and gives the exit code.
pub fn main(cli: Cli) -> ExitCode {
    if let Command::CompilePlugin = cli.command {
        // Before any thread is there: its low priority is for all of them.
        return cache::compile_command().map_or_else(
            |(code, failure)| {
                eprintln!("{failure}");
                ExitCode::from(code)
            },
            |()| ExitCode::SUCCESS,
        );
    }
    if let Err(mistake) = logging::start(&cli.log, matches!(cli.log_format, LogFormat::Json)) {
        eprintln!("error: start the log: {mistake:#}");
        return ExitCode::from(MISTAKEN);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(failure) => {
            eprintln!("error: start the runtime: {failure}");
            return ExitCode::from(FAILED);
        }
    };
    let ended = runtime.block_on(async {
        let ended = execute(cli).await;
        checkpoints_done().await;
        ended
    });
    // What still waits on a broker that is gone must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    #[cfg(feature = "otel")]
    crate::otel::finish();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => match failure.downcast::<Mistaken>() {
            Ok(mistaken) => {
                eprint!("{mistaken}");
                ExitCode::from(MISTAKEN)
            }
            Err(failure) => {
                eprintln!("error: {failure:#}");
                ExitCode::from(FAILED)
            }
        },
    }
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    if cli.command.only_answers() {
        // Who reads the answer may stop before its end, as `head` does.
        // SAFETY: sets a signal back to what it is by default, before any thread of ours writes.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let stop = stop_on_signal()?;
    let (config, time) = (&cli.config, cli.time);
    match cli.command {
        Command::Demo(args) => demo::demo(config, args, time, stop).await,
        Command::Run(args) => {
            stop_after(time, &stop);
            run::run(config, args, stop).await
        }
        Command::Check => setup::check(config).await,
        Command::Generate(args) => {
            stop_after(time, &stop);
            generate::run(args, stop).await.map(drop)
        }
        Command::CompilePlugin => Ok(()),
        Command::Plugin(args) => plugin::plugin(config, args, stop).await,
        Command::Query(args) => query::query(config, args).await,
        Command::Verify(args) => verify::verify(config, args, stop).await,
        Command::Rebuild(args) => rebuild::rebuild(config, args, stop).await,
        Command::Undo(args) => rebuild::undo(config, args, stop).await,
        Command::Maintain(args) => maintain::maintain(config, args, stop).await,
        Command::Quarantine(command) => quarantine::quarantine(config, command, stop).await,
        Command::Bench(args) => bench::bench(config, args, stop).await,
        Command::Flat(args) => flat::flat(args, stop).await,
    }
}

/// A token that Ctrl-C or SIGTERM cancels. A second Ctrl-C ends the process at once.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => info!("Ctrl-C: stopping after a last commit"),
            _ = terminate.recv() => info!("SIGTERM: stopping after a last commit"),
        }
        token.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    Ok(stop)
}

/// Lets the end of `--for`, from now on, cancel the token.
fn stop_after(time: Option<Duration>, stop: &CancellationToken) {
    if let Some(time) = time {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            stop.cancel();
        });
    }
}
