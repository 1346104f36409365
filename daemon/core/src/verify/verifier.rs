//! What the verifiers of all kinds of tables have in common.

use super::entry::Entry;
use super::finding::{Findings, LogPosition, Problem};
use super::ledger::Ledger;
use super::state::TableState;

/// Verifies one table, entry by entry of its log.
pub trait Verifier {
    /// Starts at a checkpoint, because the entries before it are gone.
    fn start_at(&mut self, checkpoint: TableState);
    /// Checks the next entry.
    fn apply(&mut self, entry: &Entry);
    #[doc(hidden)]
    fn ledger(&self) -> &Ledger;
    #[doc(hidden)]
    fn ledger_mut(&mut self) -> &mut Ledger;

    /// Compares a checkpoint with the entries up to it; the last of them must be the last that was applied.
    fn check_checkpoint(&mut self, checkpoint: &TableState) {
        self.ledger_mut().check_checkpoint(checkpoint);
    }

    /// Adds a finding that only the reader of the log or of the data files can make.
    fn report(&mut self, position: LogPosition, problem: Problem) {
        self.ledger_mut().findings.add(position, problem);
    }

    fn findings(&self) -> &Findings {
        &self.ledger().findings
    }

    /// The last version that was applied.
    fn version(&self) -> u64 {
        self.ledger().state.version
    }

    /// The first version that was checked against the one before it; `None` if no entry was applied.
    fn checked_from(&self) -> Option<u64> {
        self.ledger().checked_from
    }

    /// The rows of the table.
    fn rows(&self) -> u64 {
        self.ledger().state.rows()
    }
}
