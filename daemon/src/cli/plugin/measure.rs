//! Runs a plugin on the events of its cases, and measures it.

use std::borrow::Cow;
use std::iter::Empty;
use std::sync::Arc;
use std::time::{Duration, Instant};

use silverd_core::chunk::{Chunk, ChunkBuilder, Record};
use silverd_core::config::Limits;

use super::case::{Case, Outcome};
use super::size;
use crate::plugin::{Plugin, Transformer};
use crate::reload::json_rows;

/// The plugin's outcome for the event of a case.
pub(super) fn outcome_of(transformer: &mut Transformer, case: &Case) -> anyhow::Result<Outcome> {
    let output = transformer.transform(&chunk_of([case]), &[0])?;
    if transformer.breaker().consecutive_faults() > 0 {
        // The cases are independent: the breaker must not count the fault of one for the next.
        *transformer = Transformer::new(transformer.plugin().clone());
    }
    if let Some(reject) = output.rejected.first() {
        return Ok(Outcome::Rejected { code: reject.code.as_str().to_owned(), reason: reject.reason.clone() });
    }
    let columns: Vec<_> = (0..transformer.plugin().schema.columns.len()).collect();
    let mut rows = Vec::new();
    for batch in &output.rows {
        rows.extend(json_rows(&batch.project(&columns)?)?);
    }
    Ok(if rows.is_empty() { Outcome::Dropped } else { Outcome::Rows(rows) })
}

/// The time and memory that a full batch of events takes.
pub(super) struct Cost {
    events: usize,
    took: Duration,
    /// `None` if the instance ended with a fault.
    memory_bytes: Option<usize>,
}

/// Events of a full batch at most, so that measuring stays quick with wide limits.
const BATCH_ROWS_MAX: usize = 100_000;
/// The fastest of so many batches counts: other load on the machine slowed the rest.
const ROUNDS: usize = 5;

/// Measures full batches of the cases' events, repeated.
pub(super) fn cost(plugin: &Arc<Plugin>, cases: &[&Case]) -> anyhow::Result<Cost> {
    let limits = plugin.limits();
    let bytes: usize = cases.iter().map(|case| case.value.as_ref().map_or(0, Vec::len)).sum();
    let events_max = limits.batch_bytes_max / (bytes / cases.len().max(1)).max(1);
    let events = limits.batch_rows_max.min(events_max).clamp(1, BATCH_ROWS_MAX);
    let chunk = chunk_of(cases.iter().copied().cycle().take(events));
    let records: Vec<u32> = (0..events as u32).collect();
    let mut transformer = Transformer::new(plugin.clone());
    let mut took = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        transformer.transform(&chunk, &records)?;
        took = took.min(began.elapsed());
    }
    Ok(Cost { events, took, memory_bytes: transformer.memory_bytes() })
}

impl Cost {
    /// One line, with the shares of the limits.
    pub(super) fn describe(&self, limits: &Limits) -> String {
        let share = |part: f64, whole: f64| format!("{:.1} %", 100.0 * part / whole);
        let ms = self.took.as_secs_f64() * 1e3;
        let memory = match self.memory_bytes {
            Some(bytes) => format!(
                "{} of memory, {} of limits.memory_bytes_max",
                size(bytes as u64),
                share(bytes as f64, limits.memory_bytes_max as f64)
            ),
            None => "memory unknown, since the instance ended with a fault".to_owned(),
        };
        format!(
            "{:.2} µs per event; a batch of {} such events: {ms:.1} ms, {} of limits.transform_time_max; {memory}",
            1e3 * ms / self.events as f64,
            self.events,
            share(ms, limits.transform_ms_max as f64),
        )
    }
}

/// A chunk of the cases' events, as if they came from Kafka.
fn chunk_of<'c>(cases: impl IntoIterator<Item = &'c Case>) -> Chunk {
    let mut builder = ChunkBuilder::new("cases".into(), "cases".into());
    for (offset, case) in cases.into_iter().enumerate() {
        let headers: Empty<(Cow<str>, Option<&[u8]>)> = std::iter::empty();
        let (key, value) = (case.key.as_deref().map(str::as_bytes), case.value.as_deref());
        let record = Record { partition: 0, offset: offset as i64, timestamp: None, key, value, headers };
        builder.push(offset as i64, record);
    }
    builder.finish(0)
}
