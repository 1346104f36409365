//! Verifies the quarantine's commits of events that no table takes. Like a Silver table, the quarantine has each offset
//! once: its commits have ranges and progress, from the offsets at which `[quarantine] unrouted` was switched on.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::bronze::BronzeVerifier;
use super::entry::{Entry, RangesInfo, read_ranges};
use super::finding::{Findings, LogPosition, Problem};
use super::ledger::RowChange;
use super::progress::{Progress, ProgressIds};
use super::verifier::Verifier;
use crate::offsets::{LogPartition, OffsetRange, Offsets, Ranges};
use crate::unrouted::{SWITCH_ID, log_of_progress_id, progress_id};

pub(super) struct UnroutedCommits {
    progress: Progress,
    /// The number of the last switch.
    switches: i64,
    events: u64,
    /// The offsets of the commits, by what the tables matched on then.
    offsets: BTreeMap<String, BTreeMap<LogPartition, Vec<OffsetRange>>>,
}

#[derive(Deserialize)]
struct Info {
    rejected: u64,
    #[serde(default)]
    ranges: RangesInfo,
    /// Identifies what the tables matched on.
    #[serde(default)]
    routing: String,
    #[serde(default)]
    switched: Option<Switched>,
    /// The next offsets when it was switched on.
    #[serde(default)]
    start: BTreeMap<String, i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Switched {
    On,
    Off,
}

impl UnroutedCommits {
    pub(super) fn new() -> Self {
        let progress = Progress::with_ids(ProgressIds { of_log: progress_id, log_of: log_of_progress_id });
        Self { progress, switches: 0, events: 0, offsets: BTreeMap::new() }
    }

    /// Starts at the application ids of a checkpoint.
    pub(super) fn start_at<'a>(&mut self, txns: impl Iterator<Item = (&'a str, i64)>) {
        let txns: Vec<_> = txns.collect();
        self.switches = txns.iter().find(|(id, _)| *id == SWITCH_ID).map_or(0, |(_, number)| *number);
        self.progress.start_at(txns.into_iter());
    }

    /// Takes application ids from a commit that sets them again.
    pub(super) fn restore(&mut self, entry: &Entry, findings: &mut Findings) {
        self.progress.restore(entry, findings);
        self.switches = self.switches.max(entry.txn(SWITCH_ID).unwrap_or(0));
    }

    pub(super) fn apply(&mut self, entry: &Entry, change: RowChange, findings: &mut Findings) -> Result<(), String> {
        let info = Info::deserialize(&entry.info).map_err(|error| error.to_string())?;
        if info.rejected != change.added || change.removed > 0 {
            findings.at(entry.version, Problem::Rows { counted: info.rejected, added: change.added });
        }
        self.check_switch(entry, &info, findings);
        match info.switched {
            Some(Switched::On) => self.switch_on(entry, &info.start, findings)?,
            Some(Switched::Off) => self.progress.check_unchanged(entry, &Ranges::default(), findings),
            None => {
                let ranges = read_ranges(&info.ranges)?;
                for (log, _) in ranges.iter() {
                    // A log partition that is new since the switch starts at offset 0.
                    self.progress.first.entry(log.clone()).or_insert(0);
                    self.progress.next.entry(log.clone()).or_insert(0);
                }
                self.progress.apply(entry, &ranges, info.rejected, |expected| Problem::Gap { expected }, findings);
                self.add_offsets(&info.routing, &ranges);
            }
        }
        self.events += info.rejected;
        Ok(())
    }

    /// It is switched on and off by turns. Other commits come while it is on, and have no such number.
    fn check_switch(&mut self, entry: &Entry, info: &Info, findings: &mut Findings) {
        let is_on = self.switches % 2 == 1;
        let expected = match info.switched {
            Some(Switched::On) if is_on => Some(self.switches + 2),
            Some(Switched::Off) if !is_on => Some(self.switches + 2),
            None if is_on => None,
            Some(_) | None => Some(self.switches + 1),
        };
        let found = entry.txn(SWITCH_ID);
        if found != expected {
            findings.at(entry.version, Problem::SequenceNumber { app_id: SWITCH_ID, expected, found });
        }
        self.switches = expected.unwrap_or(self.switches);
    }

    /// From these offsets on, events are quarantined. What came before, while it was off, is left out.
    fn switch_on(
        &mut self,
        entry: &Entry,
        start: &BTreeMap<String, i64>,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let parse = |(log, start): (&String, &i64)| match log.parse::<LogPartition>() {
            Ok(log) if *start >= 0 => Ok((log, *start)),
            Ok(_) => Err(format!("{start} of {log} is not a valid offset")),
            Err(error) => Err(error.to_string()),
        };
        let start: Offsets = start.iter().map(parse).collect::<Result<_, _>>()?;
        for (log, start) in &start {
            let position =
                |offsets| LogPosition { version: Some(entry.version), partition: Some(log.clone()), offsets };
            if let Some(expected) = self.progress.next.get(log).copied().filter(|next| start < next) {
                let problem = Problem::Overlap { expected };
                findings.add(position(Some(OffsetRange::new(*start, expected))), problem);
            }
            let (app_id, expected) = (progress_id(log), Some(*start));
            let found = entry.txn(&app_id);
            if found != expected {
                findings.add(position(None), Problem::TxnMismatch { app_id, expected, found });
            }
            self.progress.first.entry(log.clone()).or_insert(*start);
            self.progress.next.insert(log.clone(), *start);
        }
        let started = start.into_iter().map(|(log, start)| (log, OffsetRange::new(start, start))).collect();
        self.progress.check_unchanged(entry, &started, findings);
        Ok(())
    }

    fn add_offsets(&mut self, routing: &str, ranges: &Ranges) {
        let offsets = match self.offsets.get_mut(routing) {
            Some(offsets) => offsets,
            None => self.offsets.entry(routing.to_owned()).or_default(),
        };
        for (log, range) in ranges.iter() {
            let before = offsets.entry(log.clone()).or_default();
            match before.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => before.push(range),
            }
        }
    }

    /// Compares the ranges with Bronze, whose log must have been read later than this one.
    pub(super) fn finish(&self, bronze: &BronzeVerifier, findings: &mut Findings) {
        for (log, next) in &self.progress.next {
            let end = bronze.next().get(log).copied();
            if end.is_none_or(|end| end < *next) && !bronze.has_lost_progress() {
                let offsets = Some(OffsetRange::new(end.unwrap_or(0), *next));
                let position = LogPosition { version: None, partition: Some(log.clone()), offsets };
                findings.add(position, Problem::AheadOfBronze { end: *next, bronze: end });
            }
        }
    }

    /// The events of all commits.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The offsets whose events were routed by tables that matched on the same: as few ranges of each log partition as
    /// possible, in order.
    pub(super) fn offsets(&self, routing: &str) -> Vec<Ranges> {
        let mut all = Vec::new();
        for (log, ranges) in self.offsets.get(routing).into_iter().flatten() {
            for (at, range) in ranges.iter().enumerate() {
                if at == all.len() {
                    all.push(Ranges::default());
                }
                all[at].insert(log.clone(), *range);
            }
        }
        all
    }
}
