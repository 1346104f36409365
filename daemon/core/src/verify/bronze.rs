//! Verifies Bronze: every range once, and one row per event, except for those that a repair has recorded as lost.

use serde::Deserialize;

use super::affected_file::CoveredOffsets;
use super::entry::{Entry, RangesInfo, read_ranges};
use super::finding::Problem;
use super::ledger::{Ledger, RowChange};
use super::progress::Progress;
use super::state::TableState;
use super::verifier::Verifier;
use crate::lost::{self, LOST_EVENTS};
use crate::offsets::{LogPartition, OffsetRange, Offsets, Ranges};

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

/// The info of a commit that replaces damaged files by what Kafka still had of their records.
#[derive(Deserialize)]
struct Repair {
    /// Records that were read again.
    events: u64,
    /// The rows of the damaged files.
    removed: u64,
}

impl Verifier for BronzeVerifier {
    fn start_at(&mut self, checkpoint: TableState) {
        self.progress.start_at(checkpoint.txns());
        let lost = checkpoint.txn(LOST_EVENTS).unwrap_or(0).unsigned_abs();
        self.events = checkpoint.rows() + lost;
        self.ledger.start_at(checkpoint);
    }

    fn apply(&mut self, entry: &Entry) {
        let change = self.ledger.apply(entry);
        if entry.restores_progress() {
            self.progress.restore(entry, &mut self.ledger.findings);
        }
        if entry.info.get("repair").is_some() {
            return self.apply_repair(entry, change);
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

    /// A repair makes no progress: it replaces rows, or gives them up.
    fn apply_repair(&mut self, entry: &Entry, change: RowChange) {
        let repair = match Repair::deserialize(&entry.info["repair"]) {
            Ok(repair) => repair,
            Err(why) => return self.ledger.report_unreadable_info(entry.version, why),
        };
        let findings = &mut self.ledger.findings;
        self.progress.check_unchanged(entry, &Ranges::default(), findings);
        let RowChange { added, removed } = change;
        if (repair.events, repair.removed) != (added, removed) {
            let (counted, removed_from_files) = (repair.events, removed);
            let removed = repair.removed;
            findings.at(entry.version, Problem::Correction { counted, kept: 0, added, removed, removed_from_files });
        }
        self.ledger.accounted += i128::from(added) - i128::from(removed);
    }

    /// Reports what is known to be lost, and checks the sum over all commits, after the last entry.
    pub fn finish(&mut self) {
        let covered = |(log, range): (LogPartition, OffsetRange)| CoveredOffsets {
            partition: log.to_string(),
            start: range.start,
            end: range.end,
        };
        let offsets: Vec<_> = self.lost().map(covered).collect();
        let events = self.ledger.state.txn(LOST_EVENTS).unwrap_or(0);
        if events > 0 || !offsets.is_empty() {
            self.ledger.findings.add(Default::default(), Problem::KnownLost { events, offsets });
        }
        self.ledger.check_total();
    }

    /// The offsets of events that are lost for good: a repair has recorded them.
    pub fn lost(&self) -> impl Iterator<Item = (LogPartition, OffsetRange)> {
        self.ledger.state.txns().filter_map(|(id, version)| lost::from_app_id(id, version))
    }

    /// The events that Bronze has read, with those that are lost.
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
