//! A finding: a problem, and its position in a table's log.

use std::fmt;

use serde::Serialize;

use super::affected_file::{AffectedFile, CoveredOffsets, FileOwner};
use crate::counts::Counts;
use crate::offsets::{LogPartition, OffsetRange};
use crate::zone::Zone;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; no data is wrong.
    Notice,
    /// Data is lost, duplicated, or cannot be verified.
    Error,
}

/// The position of a finding: the version of the table, the log partition and the offsets, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    pub version: Option<u64>,
    pub partition: Option<LogPartition>,
    pub offsets: Option<OffsetRange>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub table: String,
    pub position: LogPosition,
    pub problem: Problem,
}

/// What verification can find. The fields are for machines; [`Problem::explain`] is for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Problem {
    /// Entries are missing in the log between existing ones.
    LostEntries { first: u64, last: u64 },
    /// An entry or a checkpoint cannot be read.
    Unreadable { why: String },
    /// Another engine changed the table so that silverd cannot write it.
    NotWritable { why: String },
    /// The days of the table are those of another time zone than pipeline.toml says: silverd does not write it.
    OtherTimeZone { has: String, wanted: Zone },
    /// The log has lost at least so many of silverd's application ids, so that it does not say how far the table is.
    LostProgress {
        lost: u64,
        #[serde(skip)]
        owner: FileOwner,
    },
    /// A commit of another writer changed rows, from the first to the last of these days. A rebuild may have replaced them
    /// since, in the version `rebuilt_in`.
    ForeignCommit {
        added: u64,
        removed: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        days: Option<[String; 2]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        rebuilt_in: Option<u64>,
    },
    /// A file was added without its row count.
    NoRowCount { file: String },
    /// A file was added although it exists (`added`), or removed although it does not.
    FileMismatch { file: String, added: bool },
    /// A live data file is not in the table's folder.
    FileMissing {
        #[serde(flatten)]
        file: AffectedFile,
    },
    /// A live data file has another size, in bytes, than the log says.
    FileSize {
        #[serde(flatten)]
        file: AffectedFile,
        expected: u64,
        found: u64,
    },
    /// A live data file cannot be read to its end, or has other rows than the log says.
    FileDamaged {
        #[serde(flatten)]
        file: AffectedFile,
        why: String,
    },
    /// Offsets that an earlier commit covers.
    Overlap { expected: i64 },
    /// Offsets that no commit covers.
    Gap { expected: i64 },
    /// The same in Bronze, where Kafka may have deleted them before they were read.
    Skipped { expected: i64 },
    /// Events of Bronze that a repair has recorded as lost, and the offsets among which they were.
    KnownLost { events: i64, offsets: Vec<CoveredOffsets> },
    /// A `txn` is not set to the end of its range.
    TxnMismatch { app_id: String, expected: Option<i64>, found: Option<i64> },
    /// A file has rows of offsets that its commit does not cover.
    OutsideRanges { file: String },
    /// A commit counts more events than it covers offsets.
    MoreEventsThanOffsets { events: u64, offsets: i64 },
    /// A Bronze commit counts a different number of events than it adds rows.
    Events { counted: u64, added: u64 },
    /// The outcomes of a commit do not add up to its events.
    NotConserved { counts: Counts },
    /// A commit counts a different number of rows than it adds.
    Rows { counted: u64, added: u64 },
    /// A commit counts a different number of rejects or late events than it announces.
    AnnouncedRows { what: &'static str, counted: u64, announced: Option<u64> },
    /// A sequence number does not follow the one before it.
    SequenceNumber { app_id: &'static str, expected: Option<i64>, found: Option<i64> },
    /// The rows of a correction do not add up.
    Correction { counted: u64, kept: u64, added: u64, removed: u64, removed_from_files: u64 },
    /// The live files have a different number of rows than all commits account for.
    Total { accounted: i128, live: u64 },
    /// A checkpoint differs from the entries before it.
    Checkpoint { what: &'static str, expected: String, found: String },
    /// A Silver table has offsets that Bronze lacks.
    AheadOfBronze { end: i64, bronze: Option<i64> },
    /// A Silver table counts more events than Bronze has.
    MoreEventsThanBronze { events: u64, bronze: u64 },
    /// Announced rows are not in the side output.
    NotPublished { side: &'static str, first: i64, last: i64, rows: u64 },
    /// The last announced file is not in the side output yet; silverd will publish it.
    Pending { side: &'static str, rows: u64 },
    /// The side output has another file, or another number of rows, than announced.
    DifferentFile { side: &'static str, number: i64, announced: u64, found: u64 },
    /// The side output has rows of a Silver table that is not in pipeline.toml, or was replaced by a new one.
    FormerTable { side: &'static str, of: String, rows: u64 },
    /// The rows of the table differ from those that the plugin derives from Bronze.
    Content {
        missing: u64,
        unexpected: u64,
        changed: u64,
        /// Blocks of rows that differ, and how many of them were compared row by row.
        blocks: usize,
        compared: usize,
        examples: Vec<String>,
    },
    /// The quarantine differs from the events that the plugin rejects.
    Rejects { missing: u64, unexpected: u64, other_code: u64, examples: Vec<String> },
    /// The quarantine differs from the events that no table takes.
    Unrouted { missing: u64, unexpected: u64, other_code: u64, examples: Vec<String> },
    /// Offsets that could not be compared, because what made their rows is not available, or files cannot be read.
    NotCompared {
        digest: Option<String>,
        offsets: i64,
        /// The rows of these offsets; `None` if they were not counted.
        #[serde(skip_serializing_if = "Option::is_none")]
        rows: Option<u64>,
        reason: NotComparedReason,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotComparedReason {
    /// silverd no longer has the plugin, or what it was given.
    PluginMissing,
    /// Another version of the decoder read the events.
    OtherDecoder,
    /// One of several plugins wrote the rows, or the commit is no longer in the log.
    WriterUnknown,
    /// A replay of the quarantine made the rows of events that the plugin had rejected, and its commit does not name them one
    /// by one, or the table has deduplication.
    Replayed,
    /// Files of the table or of Bronze cannot be read.
    FilesDamaged,
    /// The table's log has lost its progress, and with it which plugin wrote which offsets.
    ProgressLost,
}

impl Problem {
    pub fn severity(&self) -> Severity {
        match self {
            Self::Skipped { .. }
            | Self::KnownLost { .. }
            | Self::Pending { .. }
            | Self::FormerTable { .. }
            | Self::NotCompared { .. }
            | Self::OtherTimeZone { .. }
            | Self::ForeignCommit { rebuilt_in: Some(_), .. } => Severity::Notice,
            _ => Severity::Error,
        }
    }

    /// Whether a log that has lost application ids has such findings for that reason alone.
    fn follows_from_lost_progress(&self) -> bool {
        match self {
            Self::Checkpoint { what, .. } => *what == APPLICATION_IDS,
            Self::Gap { .. }
            | Self::TxnMismatch { .. }
            | Self::SequenceNumber { .. }
            | Self::NotPublished { .. }
            | Self::Pending { .. }
            | Self::DifferentFile { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = self.version {
            write!(f, ", version {version}")?;
        }
        if let Some(partition) = &self.partition {
            write!(f, ", {partition}")?;
        }
        match self.offsets {
            Some(offsets) => write!(f, ", offsets {offsets}"),
            None => Ok(()),
        }
    }
}

/// The findings of a table: the first ones, and how many there are.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub table: String,
    pub list: Vec<Finding>,
    pub errors: usize,
    pub notices: usize,
    /// The log has lost application ids.
    pub(super) has_lost_progress: bool,
}

/// What of a checkpoint differs if it lacks some.
pub(super) const APPLICATION_IDS: &str = "application ids";

/// The most findings that are kept per table: a damaged log often has very many.
const FINDINGS_MAX: usize = 100;

impl Findings {
    pub fn new(table: impl Into<String>) -> Self {
        Self { table: table.into(), ..Self::default() }
    }

    pub fn add(&mut self, position: LogPosition, problem: Problem) {
        if self.has_lost_progress && problem.follows_from_lost_progress() {
            return;
        }
        match problem.severity() {
            Severity::Error => self.errors += 1,
            Severity::Notice => self.notices += 1,
        }
        if self.list.len() < FINDINGS_MAX {
            self.list.push(Finding { table: self.table.clone(), position, problem });
        }
    }

    /// Adds a problem of one version.
    pub fn at(&mut self, version: u64, problem: Problem) {
        self.add(LogPosition { version: Some(version), ..LogPosition::default() }, problem);
    }

    /// How many findings were not kept.
    pub fn left_out(&self) -> usize {
        self.errors + self.notices - self.list.len()
    }
}
