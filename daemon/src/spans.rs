//! The spans of the data's way: what a trace of silverd can show, and all of it.
//!
//! ```text
//!   chunk ─┬─ route
//!          ├─ bronze append ─┬─ encode
//!          │                 └─ commit
//!          └─ silver turn, one for each table ─┬─ bronze read     where the table is behind: then a trace of its own
//!                                              ├─ transform
//!                                              ├─ encode
//!                                              └─ commit
//!   gold refresh        plugin proof        plugin swap        plugin rollback
//! ```
//!
//! Nobody listens but [`crate::otel`], if it is built in and the environment asks for it. Otherwise each costs a look at
//! one atomic, and the log does not show them.

use std::fmt::Display;
use std::future::Future;

use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

/// The target of all of them. It is no module, so that no filter of the log takes them in.
pub const TARGET: &str = "otel";

macro_rules! span {
    // One of which [`tell`] says how it ended.
    (told, $($fields:tt)*) => { span!($($fields)*, otel.status_code = Empty, otel.status_description = Empty) };
    ($($fields:tt)*) => { tracing::info_span!(target: TARGET, $($fields)*) };
}

/// A chunk, from Kafka until the last table is through with it.
pub fn chunk(topic: &str, events: usize) -> Span {
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

pub fn route(chunk: &Span) -> Span {
    span!(parent: chunk, "route")
}

pub fn bronze_append(chunk: &Span) -> Span {
    span!(told, parent: chunk, "bronze append")
}

/// One turn of a table: with a chunk of the live flow, or else with what it reads from Bronze.
pub fn silver_turn(chunk: Option<&Span>, table: &str) -> Span {
    let chunk = chunk.and_then(Span::id);
    span!(told, parent: chunk, "silver turn", silverd.table = table)
}

pub fn bronze_read() -> Span {
    span!("bronze read")
}

pub fn transform(digest: &str, events: usize) -> Span {
    span!("transform", silverd.plugin.digest = digest, silverd.events = events)
}

pub fn encode() -> Span {
    span!("encode")
}

pub fn commit() -> Span {
    span!(told, "commit")
}

pub fn gold_refresh(table: &str) -> Span {
    span!(told, parent: None, "gold refresh", silverd.table = table)
}

/// What a new version shows before it may serve.
pub fn plugin_proof(table: &str) -> Span {
    span!(told, parent: None, "plugin proof", silverd.table = table)
}

pub fn plugin_swap(table: &str, digest: &str) -> Span {
    span!(parent: None, "plugin swap", silverd.table = table, silverd.plugin.digest = digest)
}

pub fn plugin_rollback(table: &str) -> Span {
    span!(parent: None, "plugin rollback", silverd.table = table)
}

/// Does work within a span that says whether it failed, and with what.
pub async fn tell<T, E: Display>(span: Span, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let result = work.instrument(span.clone()).await;
    if let Err(failure) = &result {
        span.record("otel.status_code", "ERROR")
            .record("otel.status_description", display(format_args!("{failure:#}")));
    }
    result
}
