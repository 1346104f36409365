//! What became of the events of a Silver commit: the counts that let the log itself prove that none is lost.

use serde::{Deserialize, Serialize};

/// The fates of a table's events in one commit. Every event has exactly one:
/// `events = with_rows + dropped + duplicates + rejected`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that were routed to the table.
    pub events: u64,
    /// Events that gave at least one row.
    pub with_rows: u64,
    /// Rows that they gave.
    pub rows: u64,
    /// Events to which the plugin gave neither row nor reject.
    pub dropped: u64,
    /// Events that the table has already.
    pub duplicates: u64,
    /// Events that went to the quarantine.
    pub rejected: u64,
    /// Events with rows that were older than the table's `late_after` when they came.
    #[serde(default)]
    pub late: u64,
}

impl Counts {
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
