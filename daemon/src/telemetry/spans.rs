//! The spans of the data path: everything that a trace of silverd can show.
//!
//! ```text
//!   chunk ─┬─ route
//!          ├─ bronze append ─┬─ encode
//!          │                 └─ commit
//!          └─ silver step, one for each table ─┬─ bronze read     if the table is behind: then a trace of its own
//!                                              ├─ transform
//!                                              ├─ encode
//!                                              └─ commit
//!   gold refresh        plugin validation        plugin swap        plugin rollback
//! ```
//!
//! Only the module `otel` reads the spans, if it is compiled in and the environment names a collector. Otherwise a span
//! costs one atomic load, and the log does not show it.

use std::fmt::Display;

use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

/// The target of all spans. It is not a module name, so that no log filter matches it.
pub(crate) const TARGET: &str = "otel";

macro_rules! span {
    // A span for [`record`].
    (recorded, $($fields:tt)*) => { span!($($fields)*, otel.status_code = Empty, otel.status_description = Empty) };
    ($($fields:tt)*) => { tracing::info_span!(target: TARGET, $($fields)*) };
}

/// A chunk, from Kafka until the last table has processed it.
pub(crate) fn chunk(topic: &str, events: usize) -> Span {
    span!(
        parent: None,
        "chunk",
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.type = "process",
        messaging.destination.name = topic,
        messaging.batch.message_count = events,
    )
}

pub(crate) fn route(chunk: &Span) -> Span {
    span!(parent: chunk, "route")
}

pub(crate) fn bronze_append(chunk: &Span) -> Span {
    span!(recorded, parent: chunk, "bronze append")
}

/// One step of a table's worker: with a chunk from Kafka, or with what it reads from Bronze.
pub(crate) fn silver_step(chunk: Option<&Span>, table: &str) -> Span {
    let chunk = chunk.and_then(Span::id);
    span!(recorded, parent: chunk, "silver step", silverd.table = table)
}

pub(crate) fn bronze_read() -> Span {
    span!("bronze read")
}

pub(crate) fn transform(digest: &str, events: usize) -> Span {
    span!("transform", silverd.plugin.digest = digest, silverd.events = events)
}

pub(crate) fn encode() -> Span {
    span!("encode")
}

pub(crate) fn commit() -> Span {
    span!(recorded, "commit")
}

pub(crate) fn gold_refresh(table: &str) -> Span {
    span!(recorded, parent: None, "gold refresh", silverd.table = table)
}

/// The validation of a new plugin version before it writes a row.
pub(crate) fn plugin_validation(table: &str) -> Span {
    span!(recorded, parent: None, "plugin validation", silverd.table = table)
}

pub(crate) fn plugin_swap(table: &str, digest: &str) -> Span {
    span!(parent: None, "plugin swap", silverd.table = table, silverd.plugin.digest = digest)
}

pub(crate) fn plugin_rollback(table: &str) -> Span {
    span!(parent: None, "plugin rollback", silverd.table = table)
}

/// Runs work in a span, and records its error in the span.
pub(crate) async fn record<T, E: Display>(span: Span, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let result = work.instrument(span.clone()).await;
    if let Err(failure) = &result {
        span.record("otel.status_code", "ERROR")
            .record("otel.status_description", display(format_args!("{failure:#}")));
    }
    result
}
