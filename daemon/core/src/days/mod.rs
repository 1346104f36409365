//! Days that are complete: whether the figures of a table's day may still change, and why.
//!
//! ```text
//!   partitions ─▶ complete until ─┐
//!   quarantine, corrections ──────┼─▶ reasons why the day may change ─▶ none: final
//!   sources of a Gold table ──────┘                                     any:  provisional
//! ```

mod complete;
mod decide;
mod reason;

pub use complete::{CompleteUntil, End, PartitionFacts, complete_until};
pub use decide::{DayFacts, GoldFacts, SourceDay, reasons_of_gold, reasons_of_silver, state};
pub use reason::DayReason;

use std::fmt;

/// Whether a day's rows may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DayState {
    /// They may, without another word.
    Provisional,
    /// They do not, unless the day is called provisional first.
    Final,
}

impl DayState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Final => "final",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Provisional, Self::Final].into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for DayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
