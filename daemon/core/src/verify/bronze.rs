//! Bronze's log: every range once, and a row for each event.

use serde::Deserialize;

use super::Proof;
use super::entry::{Entry, Spans, ranges_of};
use super::finding::Problem;
use super::ledger::{Ledger, State};
use super::progress::Progress;
use crate::offsets::Offsets;

/// The proof of Bronze, as far as its entries have been taken in.
pub struct Bronze {
    ledger: Ledger,
    progress: Progress,
    events: u64,
}

#[derive(Deserialize)]
struct Info {
    ranges: Spans,
    events: u64,
}

impl Proof for Bronze {
    fn begin(&mut self, state: State) {
        self.progress.begin(state.txns());
        self.events = state.rows();
        self.ledger.begin(state);
    }

    fn take(&mut self, entry: &Entry) {
        let moved = self.ledger.enter(entry);
        if entry.info.get("ranges").is_none() {
            return self.ledger.stranger(entry, moved);
        }
        let info = Info::deserialize(&entry.info).map_err(|error| error.to_string());
        let info = match info.and_then(|info| Ok((ranges_of(&info.ranges)?, info.events))) {
            Ok(info) => info,
            Err(why) => return self.ledger.garbled(entry.version, why),
        };
        let (ranges, events) = info;
        let findings = &mut self.ledger.findings;
        self.progress.take(entry, &ranges, events, |expected| Problem::Skipped { expected }, findings);
        if events != moved.added || moved.removed > 0 {
            findings.at(entry.version, Problem::Events { counted: events, added: moved.added });
        }
        self.events += events;
        self.ledger.accounted += i128::from(moved.added) - i128::from(moved.removed);
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl Bronze {
    pub fn new(table: &str) -> Self {
        Self { ledger: Ledger::new(table), progress: Progress::default(), events: 0 }
    }

    /// Holds the sum over all commits.
    pub fn finish(&mut self) {
        self.ledger.total();
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// Where the first proven range of each log partition began, and where its last one ends.
    pub fn first(&self) -> &Offsets {
        &self.progress.first
    }

    pub fn next(&self) -> &Offsets {
        &self.progress.next
    }
}
