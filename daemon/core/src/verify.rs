//! Conservation, proven from the logs: every entry of a table's log is held against what stood before it, and the tables
//! against each other. Entries go in one by one, in order; what comes out is what does not hold.
//!
//! | table      | a commit of silverd                                  | must                                            |
//! |------------|------------------------------------------------------|-------------------------------------------------|
//! | any        | any                                                  | follow its predecessor; remove what is there    |
//! | Bronze     | `ranges`, `events`                                   | begin where the last ended (a gap is told), add `events` rows, set each `txn` to the end |
//! | Silver     | `ranges`, `counts`                                   | begin where the last ended, add `counts.rows` rows, conserve the events, announce its rejects and late events |
//! | Silver     | `correction`                                         | add `rows + kept` rows, remove `removed`        |
//! | side       | of a Silver table's `n`th announcement               | add that very file                              |
//! | any        | of somebody else                                     | change no rows (compaction may write them anew) |
//!
//! A log whose first entries were cleaned away begins with a checkpoint: what it says is taken as given, and the proof
//! goes from there on.

mod bronze;
mod entry;
mod finding;
mod judges;
mod ledger;
mod progress;
mod side;
mod silver;
#[cfg(test)]
mod tests;
mod told;

use ledger::Ledger;

pub use bronze::Bronze;
pub use entry::{Added, Announced, Correction, Entry, PluginInfo, Removed, SilverInfo, ranges_of};
pub use finding::{Finding, Findings, Place, Problem, Severity};
pub use judges::{Judge, Judges};
pub use ledger::{State, file_key};
pub use side::{Announcements, Side, SideKind};
pub use silver::{Corrections, Cuts, Silver};
pub use told::Told;

/// The proof of one table, as far as its log has been taken in.
pub trait Proof {
    /// Begins behind a checkpoint whose entries are gone.
    fn begin(&mut self, state: State);
    /// Takes the next entry in.
    fn take(&mut self, entry: &Entry);
    #[doc(hidden)]
    fn ledger(&self) -> &Ledger;
    #[doc(hidden)]
    fn ledger_mut(&mut self) -> &mut Ledger;

    /// Holds a checkpoint against the entries up to it, of which the last must just have been taken in.
    fn compare(&mut self, checkpoint: &State) {
        self.ledger_mut().compare(checkpoint);
    }

    /// Adds what only the reader of the log, or of the data, can see.
    fn report(&mut self, place: Place, problem: Problem) {
        self.ledger_mut().findings.add(place, problem);
    }

    fn findings(&self) -> &Findings {
        &self.ledger().findings
    }

    /// The last version that was taken in.
    fn version(&self) -> u64 {
        self.ledger().state.version
    }

    /// The first version that was held against its predecessor; `None` before any.
    fn proven_from(&self) -> Option<u64> {
        self.ledger().proven_from
    }

    /// Rows that stand in the table.
    fn rows(&self) -> u64 {
        self.ledger().state.rows()
    }
}
