//! What does not hold, and where.

use std::fmt;

use serde::Serialize;

use crate::account::Counts;
use crate::offsets::{LogPartition, OffsetRange};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; the sums hold.
    Notice,
    /// Something is lost, twice, or cannot be proven.
    Error,
}

/// Where in a table's log, and in which offsets, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub version: Option<u64>,
    pub log: Option<LogPartition>,
    pub offsets: Option<OffsetRange>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub table: String,
    pub place: Place,
    pub problem: Problem,
}

/// What one can find. The fields are for machines; [`Problem::tell`] is for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Problem {
    /// Entries are not in the log, and those before and behind them are.
    LostEntries {
        first: u64,
        last: u64,
    },
    /// An entry or a checkpoint cannot be read.
    Unreadable {
        why: String,
    },
    /// A commit changed rows, and is none of silverd's.
    Stranger {
        added: u64,
        removed: u64,
    },
    /// A file was added without its number of rows.
    Uncounted {
        file: String,
    },
    /// A file was added that is there, or removed that is not.
    FileTwice {
        file: String,
        added: bool,
    },
    /// Offsets that an earlier commit has covered.
    Overlap {
        expected: i64,
    },
    /// Offsets that no commit covers.
    Gap {
        expected: i64,
    },
    /// The same in Bronze, where Kafka may have had them no longer.
    Skipped {
        expected: i64,
    },
    /// The application id and the range do not end alike.
    Progress {
        app_id: String,
        expected: Option<i64>,
        found: Option<i64>,
    },
    /// A file's statistics name offsets that its commit does not cover.
    Outside {
        file: String,
    },
    /// A commit counts more events than it covers offsets.
    MoreThanOffsets {
        events: u64,
        offsets: i64,
    },
    /// Bronze counts other events than it added rows.
    Events {
        counted: u64,
        added: u64,
    },
    NotConserved {
        counts: Counts,
    },
    /// A Silver commit counts other rows than it added.
    Rows {
        counted: u64,
        added: u64,
    },
    /// Counted rejects or late events, and those in the announced file, differ.
    Announced {
        what: &'static str,
        counted: u64,
        announced: Option<u64>,
    },
    /// Announcements are numbered one by one.
    Number {
        app_id: &'static str,
        expected: Option<i64>,
        found: Option<i64>,
    },
    /// A correction's rows do not add up.
    Correction {
        counted: u64,
        kept: u64,
        added: u64,
        removed: u64,
        gone: u64,
    },
    /// Rows of the live files, and those that the commits account for, differ.
    Total {
        accounted: i128,
        live: u64,
    },
    /// A checkpoint says other than the commits before it.
    Checkpoint {
        what: &'static str,
        expected: String,
        found: String,
    },
    /// A Silver table has come further than Bronze.
    AheadOfBronze {
        end: i64,
        bronze: Option<i64>,
    },
    /// A Silver table counts more events than Bronze has.
    MoreEvents {
        events: u64,
        bronze: u64,
    },
    /// What a Silver table announced is not in the side table.
    Unsettled {
        side: &'static str,
        first: i64,
        last: i64,
        rows: u64,
    },
    /// The same, and the next start brings it there.
    Pending {
        side: &'static str,
        rows: u64,
    },
    /// A side table has another file, or other rows, than were announced.
    OtherFile {
        side: &'static str,
        number: i64,
        announced: u64,
        found: u64,
    },
    /// Rows in a side table of a Silver table that is not in pipeline.toml, or was made anew.
    Former {
        side: &'static str,
        of: String,
        rows: u64,
    },
    /// Rows that the plugin makes of Bronze, and those that stand in the table, differ.
    Content {
        missing: u64,
        unexpected: u64,
        changed: u64,
        blocks: usize,
        looked_into: usize,
        examples: Vec<String>,
    },
    /// Events that the plugin rejects, and those in the quarantine, differ.
    Rejects {
        missing: u64,
        unexpected: u64,
        other_code: u64,
        examples: Vec<String>,
    },
    /// Offsets that were judged by other plugins than those at hand.
    NotCompared {
        digest: String,
        offsets: i64,
        why: String,
    },
}

impl Problem {
    pub fn severity(&self) -> Severity {
        match self {
            Self::Skipped { .. } | Self::Pending { .. } | Self::Former { .. } | Self::NotCompared { .. } => {
                Severity::Notice
            }
            _ => Severity::Error,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = self.version {
            write!(f, ", version {version}")?;
        }
        if let Some(log) = &self.log {
            write!(f, ", {log}")?;
        }
        match self.offsets {
            Some(offsets) => write!(f, ", offsets {offsets}"),
            None => Ok(()),
        }
    }
}

/// The findings of a table: the first ones, and how many there were.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub table: String,
    pub list: Vec<Finding>,
    pub errors: usize,
    pub notices: usize,
}

/// So many findings of a table are kept; a log that is torn in one place is often torn in many.
const FINDINGS_MAX: usize = 100;

impl Findings {
    pub fn of(table: impl Into<String>) -> Self {
        Self { table: table.into(), ..Self::default() }
    }

    pub fn add(&mut self, place: Place, problem: Problem) {
        match problem.severity() {
            Severity::Error => self.errors += 1,
            Severity::Notice => self.notices += 1,
        }
        if self.list.len() < FINDINGS_MAX {
            self.list.push(Finding { table: self.table.clone(), place, problem });
        }
    }

    pub fn at(&mut self, version: u64, problem: Problem) {
        self.add(Place { version: Some(version), ..Place::default() }, problem);
    }

    pub fn left_out(&self) -> usize {
        self.errors + self.notices - self.list.len()
    }
}
