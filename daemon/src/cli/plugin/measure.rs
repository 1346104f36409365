//! Measures a plugin on the events of its cases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use silverd_core::config::Limits;

use super::size;
use crate::cases::{Case, chunk_of};
use crate::plugin::{Plugin, Transformer};

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
