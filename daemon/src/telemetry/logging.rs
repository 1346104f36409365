//! The log: its destination, its format, and its filter, which can be changed while silverd runs.

use std::sync::OnceLock;

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

type FilterHandle = reload::Handle<EnvFilter, Registry>;

/// The filter of the process's log, and its text.
static LOG: OnceLock<(FilterHandle, Mutex<String>)> = OnceLock::new();

/// Starts the log, on standard error.
pub(crate) fn start(filter: &str, json: bool) -> anyhow::Result<()> {
    let (layer, handle) = reload::Layer::new(parse(filter)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().boxed()
    } else {
        lines.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
    };
    #[cfg(not(feature = "otel"))]
    let registry = tracing_subscriber::registry().with(layer).with(lines);
    // The filter applies only to the log lines, so that traces do not depend on it. A line is lost if computing its
    // arguments logs another line: tracing asks the filter only once for both.
    #[cfg(feature = "otel")]
    let registry = tracing_subscriber::registry().with(lines.with_filter(layer)).with(crate::telemetry::otel::layer()?);
    registry.init();
    LOG.set((handle, Mutex::new(filter.to_owned()))).map_err(|_| anyhow!("the log is already started"))
}

/// Changes the filter: `debug`, or `silverd::source=debug`.
pub(crate) fn set(filter: &str) -> anyhow::Result<()> {
    let parsed = parse(filter)?;
    let (handle, current) = LOG.get().context("the log is not started")?;
    handle.reload(parsed)?;
    *current.lock() = filter.to_owned();
    Ok(())
}

/// The text of the filter.
pub(crate) fn filter() -> String {
    LOG.get().map(|(_, filter)| filter.lock().clone()).unwrap_or_default()
}

/// A level applies to silverd's own lines; any other text is a filter of the tracing library.
fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let own = EnvFilter::try_new(format!("warn,silverd={filter}"));
    own.or_else(|_| EnvFilter::try_new(filter)).map_err(|error| {
        anyhow!("`{filter}` is not a log filter ({error}): write a level, such as `debug`, or `silverd::source=debug`")
    })
}
