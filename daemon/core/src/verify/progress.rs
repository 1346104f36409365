//! Ranges that follow one another, and the application ids that say so.

use super::entry::{Added, Entry};
use super::finding::{Findings, Place, Problem};
use crate::offsets::{LogPartition, OffsetRange, Offsets, Ranges};

/// How far a table has come in each log partition.
#[derive(Default)]
pub(super) struct Progress {
    /// Where the first range that is proven began.
    pub(super) first: Offsets,
    pub(super) next: Offsets,
}

impl Progress {
    /// Goes on from what a checkpoint says.
    pub(super) fn begin<'a>(&mut self, txns: impl Iterator<Item = (&'a str, i64)>) {
        for (id, version) in txns {
            if let Some(log) = LogPartition::from_app_id(id) {
                self.next.insert(log.clone(), version);
                // Where it began nobody knows any more.
                self.first.insert(log, 0);
            }
        }
    }

    /// Takes the ranges of a commit of so many events in. What lies between two of them is told as `between` says.
    pub(super) fn take(
        &mut self,
        entry: &Entry,
        ranges: &Ranges,
        events: u64,
        between: fn(i64) -> Problem,
        findings: &mut Findings,
    ) {
        let version = entry.version;
        for (log, range) in ranges.iter() {
            let at = |start: i64, end: i64| {
                let offsets = (0 <= start && start < end).then(|| OffsetRange::new(start, end));
                Place { version: Some(version), log: Some(log.clone()), offsets }
            };
            match self.next.get(log).copied() {
                Some(next) if range.start < next => {
                    let problem = Problem::Overlap { expected: next };
                    findings.add(at(range.start, range.end.min(next)), problem);
                }
                Some(next) if next < range.start => findings.add(at(next, range.start), between(next)),
                Some(_) => {}
                None => drop(self.first.insert(log.clone(), range.start)),
            }
            let (app_id, expected) = (log.app_id(), Some(range.end));
            let found = entry.txn(&app_id);
            if found != expected {
                findings.add(at(range.start, range.end), Problem::Progress { app_id, expected, found });
            }
            self.next.insert(log.clone(), range.end);
        }
        let offsets: i64 = ranges.iter().map(|(_, range)| range.end - range.start).sum();
        if events > offsets.unsigned_abs() {
            findings.at(version, Problem::MoreThanOffsets { events, offsets });
        }
        self.stays(entry, ranges, findings);
        for add in &entry.adds {
            outside(add, ranges, version, findings);
        }
    }

    /// What a commit moves beside its ranges must stay where it is.
    pub(super) fn stays(&self, entry: &Entry, ranges: &Ranges, findings: &mut Findings) {
        for (app_id, found) in &entry.txns {
            let log = LogPartition::from_app_id(app_id).filter(|log| ranges.get(log).is_none());
            if let Some(log) = log.filter(|log| self.next.get(log) != Some(found)) {
                let (app_id, expected) = (app_id.clone(), self.next.get(&log).copied());
                findings.at(entry.version, Problem::Progress { app_id, expected, found: Some(*found) });
            }
        }
    }
}

/// The statistics of a commit's file name coordinates: they must lie in the commit's ranges, as far as lowest and highest
/// values can tell.
fn outside(add: &Added, ranges: &Ranges, version: u64, findings: &mut Findings) {
    let Some([(first, last), (low, high)]) = add.holds else { return };
    let covers = |partition: i64| ranges.iter().any(|(log, _)| i64::from(log.partition) == partition);
    let held = || ranges.iter().filter(|(log, _)| (first..=last).contains(&i64::from(log.partition)));
    let start = held().map(|(_, range)| range.start).min();
    let end = held().map(|(_, range)| range.end).max();
    let inside = start.is_some_and(|start| start <= low) && end.is_some_and(|end| high < end);
    if !(inside && covers(first) && covers(last)) {
        let offsets = (0 <= low && low <= high).then(|| OffsetRange::new(low, high + 1));
        let place = Place { version: Some(version), log: None, offsets };
        findings.add(place, Problem::Outside { file: add.path.clone() });
    }
}
