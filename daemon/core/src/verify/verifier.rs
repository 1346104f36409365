//! What the verifiers of all kinds of tables have in common.

use super::affected_file::FileOwner;
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

    /// Adds the finding that the log has lost at least so many application ids at this version. Must come before the first
    /// entry: what follows from it is no finding of its own.
    fn report_lost_progress(&mut self, version: u64, lost: u64, owner: FileOwner) {
        let findings = &mut self.ledger_mut().findings;
        findings.at(version, Problem::LostProgress { lost, owner });
        findings.has_lost_progress = true;
    }

    /// Whether the log has lost application ids.
    fn has_lost_progress(&self) -> bool {
        self.findings().has_lost_progress
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
