//! What the writer of a table does at the moment, as the status line, the dashboard, metrics and readiness show it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The state of a table's writer: of a Silver worker, or of Bronze, which is `Live` or `Retrying`.
///
/// ```text
///   Starting ─▶ Opening ─▶ CatchingUp ◀─▶ Live ─▶ Stopped
///                  ▲            │           │
///                  │            ▼           ▼
///                  └── Retrying (an error) · Paused (the circuit breaker is open) · RollingBack
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WriterState {
    /// The worker waits for the worker that it replaces.
    #[default]
    Starting,
    /// It loads the plugin and opens the table.
    Opening,
    /// It reads from Bronze what the table does not have yet.
    CatchingUp,
    /// It takes the chunks as they arrive from Kafka.
    Live,
    /// A step failed; the worker tries again.
    Retrying { reason: String },
    /// The plugin fails on every event: the circuit breaker is open.
    Paused { seconds: u64, reason: String },
    /// A new plugin version failed in its canary period: its rows are rebuilt with the version before it. So many of the
    /// offsets are done; the total is 0 before it is known.
    RollingBack { done: u64, total: u64 },
    /// The worker has ended.
    Stopped,
}

impl WriterState {
    /// The name that the API and the metrics use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Opening => "opening",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Retrying { .. } => "retrying",
            Self::Paused { .. } => "paused",
            Self::RollingBack { .. } => "rolling_back",
            Self::Stopped => "stopped",
        }
    }

    /// False while the table cannot be written.
    pub fn is_writing(&self) -> bool {
        !matches!(self, Self::Retrying { .. } | Self::Paused { .. })
    }
}

/// One line for people.
impl fmt::Display for WriterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Opening => f.write_str("opening"),
            Self::CatchingUp => f.write_str("catching up from bronze"),
            Self::Live => f.write_str("live"),
            Self::Retrying { reason } => write!(f, "retrying: {}", first_line(reason)),
            Self::Paused { seconds, reason } => write!(f, "paused for {seconds} s: {}", first_line(reason)),
            Self::RollingBack { done, total } => {
                f.write_str("rebuilding the rows of a plugin version that was rolled back")?;
                if *total > 0 { write!(f, ": {done} of {total} offsets") } else { Ok(()) }
            }
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A writer's state, shared with whoever shows it.
#[derive(Clone)]
pub struct WriterStateCell(Arc<Mutex<(WriterState, Instant)>>);

impl WriterStateCell {
    pub(crate) fn new(state: WriterState) -> Self {
        Self(Arc::new(Mutex::new((state, Instant::now()))))
    }

    pub fn get(&self) -> WriterState {
        self.0.lock().0.clone()
    }

    /// For how long the writer has been in its state.
    pub fn lasts(&self) -> Duration {
        self.0.lock().1.elapsed()
    }

    pub(crate) fn set(&self, state: WriterState) {
        let (current, since) = &mut *self.0.lock();
        if current.name() != state.name() {
            *since = Instant::now();
        }
        *current = state;
    }
}

impl Default for WriterStateCell {
    fn default() -> Self {
        Self::new(WriterState::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_keep_a_table_from_being_written() {
        let reason = || "commit: disk full\nos error 28".to_owned();
        let check = |state: WriterState, name: &str, text: &str, is_writing: bool| {
            assert_eq!((state.name(), state.to_string().as_str(), state.is_writing()), (name, text, is_writing));
        };
        check(WriterState::Live, "live", "live", true);
        check(WriterState::CatchingUp, "catching_up", "catching up from bronze", true);
        check(WriterState::Retrying { reason: reason() }, "retrying", "retrying: commit: disk full", false);
        check(
            WriterState::Paused { seconds: 5, reason: reason() },
            "paused",
            "paused for 5 s: commit: disk full",
            false,
        );
        let rebuilding = "rebuilding the rows of a plugin version that was rolled back";
        check(WriterState::RollingBack { done: 0, total: 0 }, "rolling_back", rebuilding, true);
        let text = format!("{rebuilding}: 40 of 100 offsets");
        check(WriterState::RollingBack { done: 40, total: 100 }, "rolling_back", &text, true);
    }
}
