//! The events that go to no table, counted by reason, and a warning when they are most of what arrives.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arrow::array::Array;
use parking_lot::Mutex;
use silverd_core::chunk::Chunk;
use silverd_core::unrouted::{UnroutedEvents, UnroutedReason};
use tracing::warn;

const WINDOW: Duration = Duration::from_secs(60);
/// Characters of an event that the warning shows.
const SAMPLE_MAX: usize = 200;

/// The unrouted events since the start, shared with whoever shows them.
#[derive(Default)]
pub(crate) struct Unrouted {
    counts: [AtomicU64; UnroutedReason::ALL.len()],
    window: Mutex<Option<Window>>,
}

/// What arrived since the last look.
struct Window {
    since: Instant,
    events: u64,
    unrouted: u64,
    sample: String,
}

impl Unrouted {
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(crate) fn by_reason(&self) -> impl Iterator<Item = (UnroutedReason, u64)> {
        UnroutedReason::ALL.into_iter().map(|reason| (reason, self.counts[reason as usize].load(Relaxed)))
    }

    pub(in crate::pipeline) fn count(&self, chunk: &Chunk, unrouted: &UnroutedEvents) {
        for reason in UnroutedReason::ALL {
            self.counts[reason as usize].fetch_add(unrouted.get(reason), Relaxed);
        }
        let now = Instant::now();
        let mut window = self.window.lock();
        let current =
            window.get_or_insert_with(|| Window { since: now, events: 0, unrouted: 0, sample: String::new() });
        current.events += chunk.records.num_rows() as u64;
        current.unrouted += unrouted.total();
        if let Some(row) = unrouted.first_row().filter(|_| current.sample.is_empty()) {
            current.sample = sample(chunk, row as usize);
        }
        if now.duration_since(current.since) >= WINDOW
            && let Some(done) = window.take()
            && done.unrouted * 2 > done.events
        {
            self.warn(&done);
        }
    }

    fn warn(&self, window: &Window) {
        let mut reasons = String::new();
        for (reason, count) in self.by_reason().filter(|(_, count)| *count > 0) {
            let _ = write!(reasons, " {reason}={count}");
        }
        warn!(
            events = window.events,
            unrouted = window.unrouted,
            sample = window.sample,
            "most events of the last minute match no table: does `match` in pipeline.toml name the right field and value? \
             They are in bronze; since the start, by reason:{reasons}"
        );
    }
}

fn sample(chunk: &Chunk, row: usize) -> String {
    let values = chunk.values();
    if values.is_null(row) {
        return "no value".to_owned();
    }
    let text: String = String::from_utf8_lossy(values.value(row)).chars().take(SAMPLE_MAX).collect();
    // Without control characters, which a terminal would obey.
    text.escape_debug().to_string()
}
