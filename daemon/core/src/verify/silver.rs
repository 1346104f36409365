//! A Silver table's log: every range once, every event with one fate, every row accounted for.

use serde::Deserialize;

use super::Proof;
use super::bronze::Bronze;
use super::entry::{Correction, Entry, SilverInfo, ranges_of};
use super::finding::{Place, Problem};
use super::judges::{Judge, Judges};
use super::ledger::{Ledger, Moved, State};
use super::progress::Progress;
use super::side::{Announcements, SideKind};
use crate::account::Counts;
use crate::offsets::{LogPartition, OffsetRange, Offsets, Ranges, missing};

/// The proof of a Silver table, as far as its entries have been taken in.
pub struct Silver {
    ledger: Ledger,
    progress: Progress,
    counts: Counts,
    corrections: Corrections,
    announcements: [Announcements; 2],
    judges: Judges,
    cuts: Cuts,
}

/// The application id under which a Silver table numbers its corrections.
const CORRECTIONS: &str = "silverd-corrections";

/// What corrections did, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corrections {
    pub commits: u64,
    /// They are numbered one by one.
    last: i64,
    pub quarantined: u64,
    /// Of the events that were judged anew.
    pub counts: Counts,
    pub added: u64,
    pub removed: u64,
}

/// How the table's offsets were cut into commits: for each commit and log partition, where its range ended.
#[derive(Default)]
pub struct Cuts {
    logs: Vec<LogPartition>,
    ends: Vec<(u32, u16, i64)>,
    commits: u32,
}

impl Cuts {
    fn add(&mut self, ranges: &Ranges) {
        for (log, range) in ranges.iter() {
            let at = self.logs.iter().position(|known| known == log).unwrap_or_else(|| {
                self.logs.push(log.clone());
                self.logs.len() - 1
            });
            self.ends.push((self.commits, at as u16, range.end));
        }
        self.commits += 1;
    }

    /// The ranges of each commit, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Ranges> {
        let mut next = vec![0; self.logs.len()];
        self.ends.chunk_by(|a, b| a.0 == b.0).map(move |commit| {
            let range = |(_, log, end): &(u32, u16, i64)| {
                let start = std::mem::replace(&mut next[usize::from(*log)], *end);
                (self.logs[usize::from(*log)].clone(), OffsetRange::new(start.min(*end), *end))
            };
            commit.iter().map(range).collect()
        })
    }
}

/// A commit of silverd, its ranges read.
enum Said {
    Progress(Ranges, Counts, SilverInfo),
    Correction(Ranges, Correction, SilverInfo),
}

impl Proof for Silver {
    fn begin(&mut self, state: State) {
        self.progress.begin(state.txns());
        let gone = self.progress.next.iter().map(|(log, next)| (log.clone(), OffsetRange::new(0, *next)));
        self.judges.advance(&gone.collect(), Judge::Mixed);
        self.cuts.add(&self.judges.iter().map(|(log, range, _)| (log.clone(), range)).collect());
        for announcements in &mut self.announcements {
            announcements.begin(&state);
        }
        self.corrections.last = state.version_of(CORRECTIONS).unwrap_or(0);
        self.ledger.begin(state);
    }

    fn take(&mut self, entry: &Entry) {
        let moved = self.ledger.enter(entry);
        if entry.info.get("ranges").is_none() && entry.info.get("correction").is_none() {
            return self.ledger.stranger(entry, moved);
        }
        let said = SilverInfo::deserialize(&entry.info).map_err(|error| error.to_string()).and_then(said);
        match said {
            Ok(Said::Progress(ranges, counts, info)) => self.advanced(entry, moved, &ranges, counts, &info),
            Ok(Said::Correction(ranges, correction, info)) => {
                let digest = info.plugin.as_ref().map_or("", |plugin| &plugin.digest);
                self.judges.correct(&correction.kind, &ranges, digest, correction.days.is_some());
                self.corrected(entry, moved, &correction, &info);
            }
            Err(why) => self.ledger.garbled(entry.version, why),
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl Silver {
    pub fn new(table: &str) -> Self {
        Self {
            ledger: Ledger::new(table),
            progress: Progress::default(),
            counts: Counts::default(),
            corrections: Corrections::default(),
            judges: Judges::default(),
            cuts: Cuts::default(),
            announcements: [Announcements::of(&SideKind::QUARANTINE), Announcements::of(&SideKind::LATE)],
        }
    }

    fn advanced(&mut self, entry: &Entry, moved: Moved, ranges: &Ranges, counts: Counts, info: &SilverInfo) {
        let findings = &mut self.ledger.findings;
        self.progress.take(entry, ranges, counts.events, |expected| Problem::Gap { expected }, findings);
        if !counts.conserved() {
            findings.at(entry.version, Problem::NotConserved { counts });
        }
        if counts.rows != moved.added || moved.removed > 0 {
            findings.at(entry.version, Problem::Rows { counted: counts.rows, added: moved.added });
        }
        self.announced(entry, counts, info);
        let id = self.judges.id(info.plugin.as_ref().map_or("", |plugin| &plugin.digest));
        self.judges.advance(ranges, Judge::Plugin { id, replayed: false });
        self.cuts.add(ranges);
        self.ledger.accounted += i128::from(counts.rows);
        self.counts += counts;
    }

    fn corrected(&mut self, entry: &Entry, moved: Moved, correction: &Correction, info: &SilverInfo) {
        let findings = &mut self.ledger.findings;
        let Correction { counts, kept, removed, quarantined, .. } = *correction;
        if !counts.conserved() || quarantined > counts.rejected {
            findings.at(entry.version, Problem::NotConserved { counts });
        }
        let (expected, found) = (Some(self.corrections.last + 1), entry.txn(CORRECTIONS));
        if found != expected {
            findings.at(entry.version, Problem::Number { app_id: CORRECTIONS, expected, found });
        }
        if moved.added != counts.rows + kept || moved.removed != removed {
            let (added, gone) = (moved.added, moved.removed);
            let problem = Problem::Correction { counted: counts.rows, kept, added, removed, gone };
            findings.at(entry.version, problem);
        }
        // A correction makes no progress.
        self.progress.stays(entry, &Ranges::default(), findings);
        self.announced(entry, Counts { rejected: quarantined, ..counts }, info);
        self.ledger.accounted += i128::from(counts.rows + kept) - i128::from(removed);
        self.corrections.commits += 1;
        self.corrections.last = found.unwrap_or(self.corrections.last + 1);
        self.corrections.quarantined += quarantined;
        self.corrections.counts += counts;
        self.corrections.added += moved.added;
        self.corrections.removed += moved.removed;
    }

    fn announced(&mut self, entry: &Entry, counts: Counts, info: &SilverInfo) {
        let findings = &mut self.ledger.findings;
        let [rejects, late] = &mut self.announcements;
        rejects.take(entry, counts.rejected, info.rejects.as_ref(), findings);
        late.take(entry, counts.late, info.late.as_ref(), findings);
    }

    /// Holds the sum over all commits, and the ranges against Bronze's. Silver's log must have been read before Bronze's.
    pub fn finish(&mut self, bronze: &Bronze) {
        for (log, next) in &self.progress.next {
            let (end, first) = (bronze.next().get(log).copied(), bronze.first().get(log).copied());
            let place = |start: i64, end: i64| {
                let offsets = (start < end).then(|| OffsetRange::new(start, end));
                Place { version: None, log: Some(log.clone()), offsets }
            };
            if end.is_none_or(|end| end < *next) {
                let problem = Problem::AheadOfBronze { end: *next, bronze: end };
                self.ledger.findings.add(place(end.unwrap_or(0), *next), problem);
            }
            let begun = self.progress.first.get(log).copied().unwrap_or(0);
            if let Some(expected) = first.filter(|first| *first < begun) {
                self.ledger.findings.add(place(expected, begun), Problem::Gap { expected });
            }
        }
        let whole = self.ledger.findings.errors == 0 && bronze.findings().errors == 0;
        if whole && self.counts.events > bronze.events() {
            let problem = Problem::MoreEvents { events: self.counts.events, bronze: bronze.events() };
            self.ledger.findings.add(Place::default(), problem);
        }
        self.ledger.total();
    }

    /// Offsets that Bronze has, and this table has not come to.
    pub fn lag(&self, bronze: &Bronze) -> i64 {
        missing(&self.progress.next, bronze.next())
            .iter()
            .map(|(log, range)| {
                let start = bronze.first().get(log).map_or(range.start, |first| range.start.max(*first));
                range.end - start.min(range.end)
            })
            .sum()
    }

    /// Of the progress commits: each event as it was judged when it came.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn corrections(&self) -> Corrections {
        self.corrections
    }

    pub fn first(&self) -> &Offsets {
        &self.progress.first
    }

    pub fn next(&self) -> &Offsets {
        &self.progress.next
    }

    /// Delta's id of the table.
    pub fn id(&self) -> &str {
        self.ledger.state.table_id.as_deref().unwrap_or_default()
    }

    /// Who judged the offsets last.
    pub fn judges(&self) -> &Judges {
        &self.judges
    }

    pub fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// What was announced to a side table.
    pub fn announcements(&self, kind: &SideKind) -> &Announcements {
        let [rejects, late] = &self.announcements;
        if *kind == SideKind::QUARANTINE { rejects } else { late }
    }
}

fn said(mut info: SilverInfo) -> Result<Said, String> {
    if let Some(correction) = info.correction.take() {
        return Ok(Said::Correction(ranges_of(&correction.ranges)?, correction, info));
    }
    let ranges = ranges_of(info.ranges.as_ref().ok_or("it has no `ranges`")?)?;
    let counts = info.counts.ok_or("it has no `counts`")?;
    Ok(Said::Progress(ranges, counts, info))
}
