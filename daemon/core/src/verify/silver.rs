//! Verifies a Silver table: every range once, one outcome per event, every row accounted for.

use serde::Deserialize;

use super::attribution::{Attribution, Writer};
use super::bronze::BronzeVerifier;
use super::entry::{Correction, CorrectionKind, Entry, SilverInfo, read_ranges};
use super::finding::{LogPosition, Problem};
use super::ledger::{Ledger, RowChange};
use super::progress::Progress;
use super::side_output::{Announcements, SideOutputKind};
use super::state::TableState;
use super::verifier::Verifier;
use crate::counts::Counts;
use crate::offsets::{LogPartition, OffsetRange, Offsets, Ranges, missing};

pub struct SilverVerifier {
    ledger: Ledger,
    progress: Progress,
    counts: Counts,
    corrections: Corrections,
    announcements: [Announcements; 2],
    attribution: Attribution,
    commit_ranges: CommitRanges,
}

/// The application id with the number of the last correction.
const CORRECTIONS: &str = "silverd-corrections";

/// The sum over all corrections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corrections {
    pub commits: u64,
    /// The number of the last correction.
    last: i64,
    pub quarantined: u64,
    /// The outcomes of the events that were processed again.
    pub counts: Counts,
    pub added: u64,
    pub removed: u64,
}

/// The ranges of all progress commits, stored compactly.
#[derive(Default)]
pub struct CommitRanges {
    logs: Vec<LogPartition>,
    /// The number of the commit, the index of the log partition, and the end of the range.
    ends: Vec<(u32, u16, i64)>,
    commits: u32,
}

impl CommitRanges {
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
    pub fn iter(&self) -> impl Iterator<Item = Ranges> {
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

/// The parsed info of a commit of silverd.
enum CommitInfo {
    Progress(Ranges, Counts, SilverInfo),
    /// The events of an undo or a replay, too, if the commit names them.
    Correction(Ranges, Option<Vec<(LogPartition, OffsetRange)>>, Correction, SilverInfo),
}

impl Verifier for SilverVerifier {
    fn start_at(&mut self, checkpoint: TableState) {
        self.progress.start_at(checkpoint.txns());
        let before = self.progress.next.iter().map(|(log, next)| (log.clone(), OffsetRange::new(0, *next)));
        self.attribution.extend(&before.collect(), Writer::Mixed);
        self.commit_ranges.add(&self.attribution.iter().map(|(log, range, _)| (log.clone(), range)).collect());
        for announcements in &mut self.announcements {
            announcements.start_at(&checkpoint);
        }
        self.corrections.last = checkpoint.txn(CORRECTIONS).unwrap_or(0);
        self.ledger.start_at(checkpoint);
    }

    fn apply(&mut self, entry: &Entry) {
        let change = self.ledger.apply(entry);
        if entry.restores_progress() {
            self.restore_progress(entry);
        }
        if entry.info.get("ranges").is_none() && entry.info.get("correction").is_none() {
            return self.ledger.check_foreign_commit(entry, change);
        }
        let info = SilverInfo::deserialize(&entry.info).map_err(|error| error.to_string()).and_then(commit_info);
        match info {
            Ok(CommitInfo::Progress(ranges, counts, info)) => {
                self.check_progress(entry, change, &ranges, counts, &info)
            }
            Ok(CommitInfo::Correction(ranges, events, correction, info)) => {
                match correction.progress {
                    true => self.restart(entry, &ranges, &info),
                    false => {
                        let is_of_days = correction.days.is_some();
                        let version = info.version();
                        match (events, correction.kind) {
                            (Some(events), CorrectionKind::Undo) => self.attribution.undo(&events, &ranges, &version),
                            (Some(events), CorrectionKind::Replay) => {
                                self.attribution.replay(&events, &ranges, &version);
                            }
                            (_, kind) => self.attribution.correct(kind, &ranges, &version, is_of_days),
                        }
                        // It makes no progress.
                        self.progress.check_unchanged(entry, &Ranges::default(), &mut self.ledger.findings);
                    }
                }
                self.check_correction(entry, change, &correction, &info);
            }
            Err(why) => self.ledger.report_unreadable_info(entry.version, why),
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl SilverVerifier {
    pub fn new(table: &str) -> Self {
        Self {
            ledger: Ledger::new(table),
            progress: Progress::default(),
            counts: Counts::default(),
            corrections: Corrections::default(),
            attribution: Attribution::default(),
            commit_ranges: CommitRanges::default(),
            announcements: [Announcements::new(&SideOutputKind::QUARANTINE), Announcements::new(&SideOutputKind::LATE)],
        }
    }

    fn check_progress(&mut self, entry: &Entry, change: RowChange, ranges: &Ranges, counts: Counts, info: &SilverInfo) {
        let findings = &mut self.ledger.findings;
        self.progress.apply(entry, ranges, counts.events, |expected| Problem::Gap { expected }, findings);
        if !counts.conserved() {
            findings.at(entry.version, Problem::NotConserved { counts });
        }
        if counts.rows != change.added || change.removed > 0 {
            findings.at(entry.version, Problem::Rows { counted: counts.rows, added: change.added });
        }
        self.check_announcements(entry, counts, info);
        let id = self.attribution.id(&info.version());
        self.attribution.extend(ranges, Writer::plugin(id));
        self.commit_ranges.add(ranges);
        self.ledger.accounted += i128::from(counts.rows);
        self.counts += counts;
    }

    /// Takes the progress from a commit that sets it again, because another engine's checkpoint had left it out.
    fn restore_progress(&mut self, entry: &Entry) {
        let restored = self.progress.restore(entry, &mut self.ledger.findings);
        if !restored.is_empty() {
            self.attribution.extend(&restored, Writer::Mixed);
            self.commit_ranges.add(&restored);
        }
        self.announcements.iter_mut().for_each(|announcements| announcements.restore(entry, false));
        self.corrections.last = self.corrections.last.max(entry.txn(CORRECTIONS).unwrap_or(0));
    }

    /// Takes the progress from a rebuild of everything that sets it again, because the log had lost it.
    fn restart(&mut self, entry: &Entry, ranges: &Ranges, info: &SilverInfo) {
        self.progress.restart(entry, ranges, &mut self.ledger.findings);
        self.attribution.restart(ranges, &info.version());
        self.commit_ranges.add(ranges);
        let [rejects, late] = &mut self.announcements;
        rejects.restore(entry, info.rejects.is_some());
        late.restore(entry, info.late.is_some());
    }

    fn check_correction(&mut self, entry: &Entry, change: RowChange, correction: &Correction, info: &SilverInfo) {
        let findings = &mut self.ledger.findings;
        let Correction { counts, kept, removed, quarantined, .. } = *correction;
        if !counts.conserved() || quarantined > counts.rejected {
            findings.at(entry.version, Problem::NotConserved { counts });
        }
        let (expected, found) = (Some(self.corrections.last + 1), entry.txn(CORRECTIONS));
        if found != expected {
            findings.at(entry.version, Problem::SequenceNumber { app_id: CORRECTIONS, expected, found });
        }
        if change.added != counts.rows + kept || change.removed != removed {
            let (added, removed_from_files) = (change.added, change.removed);
            let problem = Problem::Correction { counted: counts.rows, kept, added, removed, removed_from_files };
            findings.at(entry.version, problem);
        }
        self.check_announcements(entry, Counts { rejected: quarantined, ..counts }, info);
        if correction.kind == CorrectionKind::Rebuild {
            self.ledger.rebuilt(entry.version, correction.days);
        }
        self.ledger.accounted += i128::from(counts.rows + kept) - i128::from(removed);
        self.corrections.commits += 1;
        self.corrections.last = found.unwrap_or(self.corrections.last + 1);
        self.corrections.quarantined += quarantined;
        self.corrections.counts += counts;
        self.corrections.added += change.added;
        self.corrections.removed += change.removed;
    }

    fn check_announcements(&mut self, entry: &Entry, counts: Counts, info: &SilverInfo) {
        let findings = &mut self.ledger.findings;
        let [rejects, late] = &mut self.announcements;
        rejects.apply(entry, counts.rejected, info.rejects.as_ref(), findings);
        late.apply(entry, counts.late, info.late.as_ref(), findings);
    }

    /// Checks the sum over all commits, and compares the ranges with Bronze. The log of Bronze must have been read
    /// later than this one: it only grows.
    pub fn finish(&mut self, bronze: &BronzeVerifier) {
        self.ledger.report_foreign_commits();
        for (log, next) in &self.progress.next {
            let (end, first) = (bronze.next().get(log).copied(), bronze.first().get(log).copied());
            let position = |start: i64, end: i64| {
                let offsets = (start < end).then(|| OffsetRange::new(start, end));
                LogPosition { version: None, partition: Some(log.clone()), offsets }
            };
            // Bronze's end is not known if its log has lost progress.
            if end.is_none_or(|end| end < *next) && !bronze.has_lost_progress() {
                let problem = Problem::AheadOfBronze { end: *next, bronze: end };
                self.ledger.findings.add(position(end.unwrap_or(0), *next), problem);
            }
            let start = self.progress.first.get(log).copied().unwrap_or(0);
            if let Some(expected) = first.filter(|first| *first < start) {
                self.ledger.findings.add(position(expected, start), Problem::Gap { expected });
            }
        }
        let is_complete = self.ledger.findings.errors == 0 && bronze.findings().errors == 0;
        if is_complete && self.counts.events > bronze.events() {
            let problem = Problem::MoreEventsThanBronze { events: self.counts.events, bronze: bronze.events() };
            self.ledger.findings.add(LogPosition::default(), problem);
        }
        self.ledger.check_total();
    }

    /// The number of offsets that Bronze has and this table does not have yet, in the topics that it takes.
    pub fn lag(&self, bronze: &BronzeVerifier, takes: impl Fn(&str) -> bool) -> i64 {
        missing(&self.progress.next, bronze.next())
            .of_topics(takes)
            .iter()
            .map(|(log, range)| {
                let start = bronze.first().get(log).map_or(range.start, |first| range.start.max(*first));
                range.end - start.min(range.end)
            })
            .sum()
    }

    /// The outcomes of all progress commits: those of the events when they arrived.
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

    /// Which plugin wrote the rows of which offsets.
    pub fn attribution(&self) -> &Attribution {
        &self.attribution
    }

    pub fn commit_ranges(&self) -> &CommitRanges {
        &self.commit_ranges
    }

    /// The announcements to a side output.
    pub fn announcements(&self, kind: &SideOutputKind) -> &Announcements {
        let [rejects, late] = &self.announcements;
        if *kind == SideOutputKind::QUARANTINE { rejects } else { late }
    }
}

fn commit_info(mut info: SilverInfo) -> Result<CommitInfo, String> {
    if let Some(correction) = info.correction.take() {
        let (ranges, events) = (read_ranges(&correction.ranges)?, correction.events()?);
        return Ok(CommitInfo::Correction(ranges, events, correction, info));
    }
    let ranges = read_ranges(info.ranges.as_ref().ok_or("it has no `ranges`")?)?;
    let counts = info.counts.ok_or("it has no `counts`")?;
    Ok(CommitInfo::Progress(ranges, counts, info))
}
