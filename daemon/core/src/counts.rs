//! The outcomes of a Silver commit's events, counted: `silverd verify` uses these counts to show that no event was
//! lost.

use serde::{Deserialize, Serialize};

/// The outcomes of a table's events in one commit. Every event has exactly one:
/// `events = with_rows + dropped + duplicates + rejected`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that were routed to the table.
    pub events: u64,
    /// Events with at least one row.
    pub with_rows: u64,
    /// Rows of these events.
    pub rows: u64,
    /// Events for which the plugin returned neither a row nor a reject.
    pub dropped: u64,
    /// Events whose rows the table already has.
    pub duplicates: u64,
    /// Events that went to the quarantine.
    pub rejected: u64,
    /// Events with rows that were older than the table's `late_after` when they arrived.
    #[serde(default)]
    pub late: u64,
}

impl Counts {
    /// Whether every event has exactly one outcome.
    pub fn conserved(&self) -> bool {
        self.events == self.with_rows + self.dropped + self.duplicates + self.rejected
            && self.rows >= self.with_rows
            && self.late <= self.with_rows
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.with_rows += other.with_rows;
        self.rows += other.rows;
        self.dropped += other.dropped;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.late += other.late;
    }
}
