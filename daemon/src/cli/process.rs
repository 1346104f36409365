//! What silverd and silverd-bench do around their work: start the log and the runtime, listen to signals, report the error.

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::query::query_process;
use crate::app::WrongUse;
use crate::app::setup::InvalidConfig;
use crate::delta::checkpoints_done;
use crate::gold::GoldHandler;
use crate::plugin::cache;
use crate::row_sql;
use crate::runtime::inert::inert_lines;
use crate::runtime::{causes, out};
use crate::sql::PanelHandler;
use crate::sql::process::serve;
use crate::sql_engine::SqlWork;
use crate::telemetry::logging;

const FAILED: u8 = 1;
/// Wrong use, or errors in pipeline.toml; clap exits with the same code.
pub(super) const WRONG_USE: u8 = 2;
/// What was waited for did not happen in time.
const TIMED_OUT: u8 = 3;
/// Exit code after a second Ctrl-C, as shells have it.
const INTERRUPTED: i32 = 130;
/// How long threads that still wait, such as for a broker that is gone, can delay the exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a command waited for did not happen in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TimedOut(String);

impl TimedOut {
    pub(super) fn error(text: String) -> anyhow::Error {
        Self(text).into()
    }
}

/// What is logged, and how.
#[derive(clap::Args, Debug)]
pub struct LogArgs {
    /// What to log, e.g. debug, or silverd::source=debug
    #[arg(long, global = true, env = "SILVERD_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// The format of the log
    #[arg(long, global = true, env = "SILVERD_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs `work` in a new runtime and returns the exit code. `work` gets a token that Ctrl-C and SIGTERM cancel.
pub fn run<F: Future<Output = anyhow::Result<()>>>(
    log: &LogArgs,
    work: impl FnOnce(CancellationToken) -> F,
) -> ExitCode {
    if let Err(failure) = logging::start(&log.log, matches!(log.log_format, LogFormat::Json)) {
        eprintln!("error: start the log: {failure:#}");
        return ExitCode::from(WRONG_USE);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(failure) => {
            eprintln!("error: start the runtime: {failure}");
            return ExitCode::from(FAILED);
        }
    };
    let result = runtime.block_on(async {
        let result = match stop_on_signal() {
            Ok(stop) => work(stop).await,
            Err(failure) => Err(failure),
        };
        checkpoints_done().await;
        result
    });
    // What still runs is given up. Delta's reader panics if its runtime ends under it, which is no news by now.
    std::panic::set_hook(Box::new(|_| {}));
    runtime.shutdown_timeout(EXIT_TIMEOUT);
    #[cfg(feature = "otel")]
    crate::telemetry::otel::finish();
    result.and_then(|()| out::check()).map_or_else(report, |()| ExitCode::SUCCESS)
}

/// The hidden command [`cache::COMPILE_COMMAND`]. Must be called before any thread is started, so that its low priority applies
/// to all of them.
pub fn compile_plugin() -> ExitCode {
    cache::compile_command().map_or_else(
        |(code, failure)| {
            eprintln!("{failure}");
            ExitCode::from(code)
        },
        |()| ExitCode::SUCCESS,
    )
}

/// The hidden command [`SQL_COMMAND`](crate::sql_engine::SQL_COMMAND). Must be called before any thread is started, so
/// that its low priority applies to all of them.
pub fn sql(work: SqlWork) -> ExitCode {
    let served = match work {
        SqlWork::Panels => serve(PanelHandler::new),
        SqlWork::Gold => serve(GoldHandler::new),
        SqlWork::Query => return query_process(),
        SqlWork::Rows => row_sql::serve(),
    };
    served.map_or_else(report, |()| ExitCode::SUCCESS)
}

fn report(failure: anyhow::Error) -> ExitCode {
    if let Some(invalid) = failure.downcast_ref::<InvalidConfig>() {
        eprint!("{invalid}");
        return ExitCode::from(WRONG_USE);
    }
    // It may quote an event.
    eprintln!("error: {}", inert_lines(&causes(&failure)));
    ExitCode::from(match () {
        () if failure.is::<WrongUse>() => WRONG_USE,
        () if failure.is::<TimedOut>() => TIMED_OUT,
        () => FAILED,
    })
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
            #[allow(clippy::disallowed_methods)] // The user wants no last commit.
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(stop)
}
