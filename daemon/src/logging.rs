//! The log: where it goes, how it looks, and its filter, which may be changed while silverd runs.

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, anyhow};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

type Filter = reload::Handle<EnvFilter, Registry>;

/// A process has one log.
static LOG: OnceLock<(Filter, Mutex<String>)> = OnceLock::new();

/// Starts the log, on standard error.
pub fn start(filter: &str, json: bool) -> anyhow::Result<()> {
    let (layer, handle) = reload::Layer::new(parse(filter)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().boxed()
    } else {
        lines.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
    };
    #[cfg(not(feature = "otel"))]
    let registry = tracing_subscriber::registry().with(layer).with(lines);
    // With traces the filter is that of the lines alone: what they show does not depend on what is logged. A line whose
    // arguments call what logs itself is lost then: tracing asks the filter once for both.
    #[cfg(feature = "otel")]
    let registry = tracing_subscriber::registry().with(lines.with_filter(layer)).with(crate::otel::layer()?);
    registry.init();
    LOG.set((handle, Mutex::new(filter.to_owned()))).map_err(|_| anyhow!("the log was started twice"))
}

/// What is logged from now on: `debug`, or `silverd::ingest=debug`.
pub fn set(filter: &str) -> anyhow::Result<()> {
    let parsed = parse(filter)?;
    let (handle, current) = LOG.get().context("there is no log")?;
    handle.reload(parsed)?;
    *current.lock().unwrap_or_else(PoisonError::into_inner) = filter.to_owned();
    Ok(())
}

/// The filter, as it was given.
pub fn filter() -> String {
    LOG.get().map(|(_, filter)| filter.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
}

/// A level alone is silverd's own; anything else is a filter of tracing's.
fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let own = EnvFilter::try_new(format!("warn,silverd={filter}"));
    own.or_else(|_| EnvFilter::try_new(filter)).map_err(|mistake| {
        anyhow!("`{filter}` is no filter ({mistake}): write a level, such as `debug`, or `silverd::ingest=debug`")
    })
}
