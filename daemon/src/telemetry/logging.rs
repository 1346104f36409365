//! The log: its destination, its format, and its filter, which can be changed while silverd runs.

use std::fmt::Debug;
use std::sync::OnceLock;

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::http::AUDIT;
use crate::runtime::inert::{inert, inert_lines};

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
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        lines.with_target(false).with_ansi(is_terminal).fmt_fields(debug_fn(write_field).delimited(" ")).boxed()
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

/// Writes a field so that text from events can neither command the terminal nor look like a line of its own.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => out.write_str(&inert_lines(&text).replace('\n', "\n    ")),
        name => write!(out, "{name}={}", inert(&text)),
    }
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

/// A level applies to silverd's own lines; any other text is a filter of the tracing library. Who changed what is logged
/// in any case.
fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let own = EnvFilter::try_new(format!("warn,silverd={filter}"));
    let filter = own.or_else(|_| EnvFilter::try_new(filter)).map_err(|error| {
        anyhow!("`{filter}` is not a log filter ({error}): write a level, such as `debug`, or `silverd::source=debug`")
    })?;
    Ok(filter.add_directive(format!("{AUDIT}=info").parse()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{self, Write};
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn text_from_events_is_inert() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let layer = layer.fmt_fields(debug_fn(write_field).delimited(" "));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let text = "a\u{1b}[2J\u{202e}\nERROR all is lost";
            tracing::info!(field = text, other = %text, n = 7, "rejected: {text}");
        });
        let log = String::from_utf8(lines.0.lock().clone()).unwrap();
        let log = log.split_once("silverd::telemetry::logging::tests: ").unwrap().1;
        let expected = "rejected: a\\u{1b}[2J\\u{202e}\n    ERROR all is lost \
            field=\"a\\u{1b}[2J\\u{202e}\\nERROR all is lost\" other=a\\u{1b}[2J\\u{202e}\\nERROR all is lost n=7\n";
        assert_eq!(log, expected);
    }

    #[test]
    fn changes_are_logged_whatever_the_filter_is() {
        for filter in ["off", "error", "silverd::source=debug"] {
            assert!(parse(filter).unwrap().to_string().contains("silverd::audit=info"), "{filter}");
        }
    }
}
