//! Verification from the logs alone: every entry of a table's Delta log is checked against the entries before it, and
//! the tables are checked against each other. The entries are applied in order; the findings are what does not add up.
//!
//! | table       | commit                                 | rule |
//! |-------------|----------------------------------------|------|
//! | any         | any                                    | follows the entry before it; removes only files that exist |
//! | Bronze      | `ranges`, `events`                     | starts where the last range ended (or reports the gap), adds `events` rows, sets each `txn` to the end of its range |
//! | Bronze      | `repair`                               | adds `events` rows, removes `removed` rows, and sets no `txn` of a log partition to another offset |
//! | Silver      | `ranges`, `counts`                     | starts where the last range ended, adds `counts.rows` rows, has one outcome per event, announces its rejects and late events |
//! | Silver      | `correction`                           | adds `rows + kept` rows, removes `removed` rows |
//! | Silver      | `correction` with `progress`           | the same, and sets each `txn` to the end of its range: the log had lost them |
//! | any         | `maintenance.restored`                 | sets each `txn` to what it was, or to anything if the log does not say |
//! | side output | of a Silver table's `n`th announcement | adds the announced file |
//! | side output | `resolved`                             | rewrites rows, and changes no number of them |
//! | side output | `doubled`                              | removes so many rows, which were there twice |
//! | quarantine  | of events that no table takes          | starts where the last range ended, adds `rejected` rows, sets each `txn` to the end of its range |
//! | any         | of another writer                      | changes no rows (a compaction may rewrite them), or a later rebuild replaces what it changed |
//!
//! If the first entries of a log were cleaned up, verification starts at a checkpoint, whose state is taken as given. A log
//! that has lost silverd's application ids is one error; the rules that need them do not apply to it.

mod affected_file;
mod attribution;
mod bronze;
mod entry;
mod explain;
mod finding;
mod foreign;
mod ledger;
mod progress;
mod side_output;
mod silver;
mod state;
#[cfg(test)]
mod tests;
mod unrouted;
mod verifier;

pub use affected_file::{AffectedFile, CoveredOffsets, FileOwner, covered_offsets};
pub use attribution::{Attribution, Lineage, PluginVersion, Replay, Writer};
pub use bronze::BronzeVerifier;
pub use entry::Entry;
pub use explain::Explanation;
pub use finding::{Finding, Findings, LogPosition, NotComparedReason, Problem, Severity};
pub use side_output::{Announcements, SideOutputKind, SideOutputVerifier};
pub use silver::{CommitRanges, Corrections, SilverVerifier};
pub use state::{TableState, file_key};
pub use verifier::Verifier;
