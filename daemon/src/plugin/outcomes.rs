//! The outcomes of a chunk's events: rows, rejects and counts, or the reason why there are none.

use std::time::Duration;

use arrow::array::RecordBatch;
use silverd_core::counts::Counts;
use silverd_core::outcome::Code;

use super::fault::Fault;

/// The outcomes of a chunk's events.
#[derive(Default)]
pub struct TransformOutput {
    /// The rows, in the order of their events, with the columns of the table's files.
    pub rows: Vec<RecordBatch>,
    pub rejected: Vec<Rejected>,
    pub counts: Counts,
    /// CPU time of decoding the events.
    pub decode: Duration,
    /// CPU time of lifting the rows.
    pub lift: Duration,
    /// CPU time of all that on other threads than the caller's, and in other processes.
    pub other_threads: Duration,
}

/// A rejected event: the index of its record in the chunk, and the reason.
#[derive(Debug)]
pub struct Rejected {
    pub record: u32,
    pub code: Code,
    pub reason: String,
}

/// Why the events of a chunk have no outcomes.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The plugin fails on every event: the circuit breaker is open. The events are not rejected.
    #[error(transparent)]
    Tripped(#[from] Tripped),
    /// The plugin could not be started.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The circuit breaker is open. `fault` is the last fault, and `events` the number of consecutive events with a fault.
#[derive(Debug, thiserror::Error)]
#[error(
    "the plugin fails on everything: {events} events in a row. {} on the last: {}",
    .fault.code.as_str(),
    .fault.reason
)]
pub struct Tripped {
    pub fault: Fault,
    pub events: usize,
}

impl TransformOutput {
    /// How many events were rejected because the plugin itself failed on them.
    pub(crate) fn faults(&self) -> u64 {
        self.rejected.iter().filter(|reject| reject.code.is_fault()).count() as u64
    }

    /// Rejects a record on which the plugin failed.
    pub(super) fn reject(&mut self, record: u32, fault: Fault) {
        self.rejected.push(Rejected { record, code: fault.code, reason: fault.reason });
        self.counts += Counts { events: 1, rejected: 1, ..Counts::default() };
    }
}
