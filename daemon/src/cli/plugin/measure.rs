//! Runs a plugin on events that are at hand, and measures it.

use std::borrow::Cow;
use std::iter::Empty;
use std::sync::Arc;
use std::time::{Duration, Instant};

use silverd_core::chunk::{Chunk, ChunkBuilder, Record};
use silverd_core::config::Limits;

use super::case::{Case, Fate};
use super::size;
use crate::reload::json_rows;
use crate::transform::{Plugin, Transformer};

/// The events of cases, as if they had just come from Kafka.
pub fn chunk<'c>(cases: impl IntoIterator<Item = &'c Case>) -> Chunk {
    let mut builder = ChunkBuilder::new("cases".into(), "cases".into());
    for (offset, case) in cases.into_iter().enumerate() {
        let headers: Empty<(Cow<str>, Option<&[u8]>)> = std::iter::empty();
        let (key, value) = (case.key.as_deref().map(str::as_bytes), case.value.as_deref());
        let record = Record { partition: 0, offset: offset as i64, timestamp: None, key, value, headers };
        builder.push(offset as i64, record);
    }
    builder.finish(0)
}

/// What the plugin makes of one event.
pub fn fate_of(transformer: &mut Transformer, case: &Case) -> anyhow::Result<Fate> {
    let verdicts = transformer.transform(&chunk([case]), &[0])?;
    if transformer.breaker().in_a_row() > 0 {
        // One case says nothing of the next.
        *transformer = Transformer::new(transformer.plugin().clone());
    }
    if let Some(reject) = verdicts.rejected.first() {
        return Ok(Fate::Rejected { code: reject.code.as_str().to_owned(), reason: reject.reason.clone() });
    }
    let columns: Vec<_> = (0..transformer.plugin().schema.columns.len()).collect();
    let mut rows = Vec::new();
    for batch in &verdicts.rows {
        rows.extend(json_rows(&batch.project(&columns)?)?);
    }
    Ok(if rows.is_empty() { Fate::Dropped } else { Fate::Rows(rows) })
}

/// What a full batch of events costs.
pub struct Cost {
    events: usize,
    took: Duration,
    memory: Option<usize>,
}

/// Events of a full batch at most, to be quick also where the limits are wide.
const BATCH_ROWS_MAX: usize = 100_000;
/// The fastest of so many batches counts: the others were disturbed.
const ROUNDS: usize = 5;

/// Runs full batches of the cases' events, over and over.
pub fn cost(plugin: &Arc<Plugin>, cases: &[&Case]) -> anyhow::Result<Cost> {
    let limits = plugin.limits();
    let bytes: usize = cases.iter().map(|case| case.value.as_ref().map_or(0, Vec::len)).sum();
    let fit = limits.batch_bytes_max / (bytes / cases.len().max(1)).max(1);
    let events = limits.batch_rows_max.min(fit).clamp(1, BATCH_ROWS_MAX);
    let chunk = chunk(cases.iter().copied().cycle().take(events));
    let records: Vec<u32> = (0..events as u32).collect();
    let mut transformer = Transformer::new(plugin.clone());
    let mut took = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        transformer.transform(&chunk, &records)?;
        took = took.min(begun.elapsed());
    }
    Ok(Cost { events, took, memory: transformer.memory_bytes() })
}

impl Cost {
    pub fn told(&self, limits: &Limits) -> String {
        let of = |part: f64, whole: f64| format!("{:.1} %", 100.0 * part / whole);
        let ms = self.took.as_secs_f64() * 1e3;
        let memory = match self.memory {
            Some(bytes) => format!(
                "{} of memory, {} of limits.memory_bytes_max",
                size(bytes as u64),
                of(bytes as f64, limits.memory_bytes_max as f64)
            ),
            None => "memory unknown: it ended by a fault".to_owned(),
        };
        format!(
            "{:.2} µs an event; a batch of {} such events: {ms:.1} ms, {} of limits.transform_ms_max; {memory}",
            1e3 * ms / self.events as f64,
            self.events,
            of(ms, limits.transform_ms_max as f64),
        )
    }
}
