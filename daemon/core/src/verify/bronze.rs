//! Verifies Bronze: every range once, and one row per event.

use serde::Deserialize;

use super::entry::{Entry, RangesInfo, read_ranges};
use super::finding::Problem;
use super::ledger::Ledger;
use super::progress::Progress;
use super::state::TableState;
use super::verifier::Verifier;
use crate::offsets::Offsets;

pub struct BronzeVerifier {
    ledger: Ledger,
    progress: Progress,
    events: u64,
}

#[derive(Deserialize)]
struct Info {
    ranges: RangesInfo,
    events: u64,
}

impl Verifier for BronzeVerifier {
    fn start_at(&mut self, checkpoint: TableState) {
        self.progress.start_at(checkpoint.txns());
        self.events = checkpoint.rows();
        self.ledger.start_at(checkpoint);
    }

    fn apply(&mut self, entry: &Entry) {
        let change = self.ledger.apply(entry);
        if entry.restores_progress() {
            self.progress.restore(entry, &mut self.ledger.findings);
        }
        if entry.info.get("ranges").is_none() {
            return self.ledger.check_foreign_commit(entry, change);
        }
        let info = Info::deserialize(&entry.info).map_err(|error| error.to_string());
        let info = match info.and_then(|info| Ok((read_ranges(&info.ranges)?, info.events))) {
            Ok(info) => info,
            Err(why) => return self.ledger.report_unreadable_info(entry.version, why),
        };
        let (ranges, events) = info;
        let findings = &mut self.ledger.findings;
        self.progress.apply(entry, &ranges, events, |expected| Problem::Skipped { expected }, findings);
        if events != change.added || change.removed > 0 {
            findings.at(entry.version, Problem::Events { counted: events, added: change.added });
        }
        self.events += events;
        self.ledger.accounted += i128::from(change.added) - i128::from(change.removed);
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl BronzeVerifier {
    pub fn new(table: &str) -> Self {
        Self { ledger: Ledger::new(table), progress: Progress::default(), events: 0 }
    }

    /// Checks the sum over all commits, after the last entry.
    pub fn finish(&mut self) {
        self.ledger.check_total();
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// The start of the first checked range of each log partition.
    pub fn first(&self) -> &Offsets {
        &self.progress.first
    }

    /// The end of the last range of each log partition.
    pub fn next(&self) -> &Offsets {
        &self.progress.next
    }
}
