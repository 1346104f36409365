//! Verifies a side output (the quarantine, the late events): it has every announced file once, and nothing else.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::bronze::BronzeVerifier;
use super::entry::{AnnouncedFile, Entry};
use super::finding::{Findings, LogPosition, Problem};
use super::ledger::{Ledger, RowChange};
use super::state::{FileKey, TableState, file_key};
use super::unrouted::UnroutedCommits;
use super::verifier::Verifier;
use crate::offsets::Ranges;
use crate::unrouted::NO_TABLE;

/// The two side outputs.
#[derive(Debug, PartialEq, Eq)]
pub struct SideOutputKind {
    pub name: &'static str,
    /// The application id with the number of a Silver table's last announcement.
    pub announced: &'static str,
    /// The prefix of the application ids with the number of the last published announcement of each Silver table.
    pub published: &'static str,
    /// The announced events, in words.
    pub events: &'static str,
}

impl SideOutputKind {
    pub const QUARANTINE: Self = Self {
        name: "quarantine",
        announced: "silverd-rejects",
        published: "silverd-quarantine",
        events: "rejected events",
    };
    pub const LATE: Self =
        Self { name: "late", announced: "silverd-late", published: "silverd-late-of", events: "late events" };
}

/// The announcements of a Silver table to a side output: by number, the file and its rows.
#[derive(Debug)]
pub struct Announcements {
    kind: &'static SideOutputKind,
    /// The announcements up to this number are unknown: their entries were cleaned up.
    unknown: i64,
    files: Vec<(FileKey, u64)>,
    /// The last file, which may not be published yet.
    pub last: Option<AnnouncedFile>,
}

impl Announcements {
    pub(super) fn new(kind: &'static SideOutputKind) -> Self {
        Self { kind, unknown: 0, files: Vec::new(), last: None }
    }

    pub(super) fn start_at(&mut self, checkpoint: &TableState) {
        self.unknown = checkpoint.txn(self.kind.announced).unwrap_or(0);
    }

    /// The number of the last announcement; 0 before the first.
    pub fn last_number(&self) -> i64 {
        self.unknown + self.files.len() as i64
    }

    /// Takes the number of the last announcement from a commit that sets it again, because the log had lost it. The commit
    /// may announce a file, too.
    pub(super) fn restore(&mut self, entry: &Entry, announces: bool) {
        if let Some(number) = entry.txn(self.kind.announced).filter(|_| self.last_number() == 0) {
            self.unknown = number - i64::from(announces);
        }
    }

    /// Checks the announcement of a commit that counts so many events for this side output.
    pub(super) fn apply(&mut self, entry: &Entry, counted: u64, file: Option<&AnnouncedFile>, findings: &mut Findings) {
        let announced = file.map(|file| file.rows);
        if announced.unwrap_or(0) != counted {
            let problem = Problem::AnnouncedRows { what: self.kind.events, counted, announced };
            findings.at(entry.version, problem);
        }
        let (found, last) = (entry.txn(self.kind.announced), self.last_number());
        let expected = match file {
            Some(_) => Some(last + 1),
            // Set again, because the log had lost it.
            None => found.filter(|found| *found == last && entry.restarts()),
        };
        if found != expected {
            findings.at(entry.version, Problem::SequenceNumber { app_id: self.kind.announced, expected, found });
        }
        if let Some(file) = file {
            self.files.push((file_key(&file.path), file.rows));
            self.last = Some(file.clone());
        }
    }
}

pub struct SideOutputVerifier {
    kind: &'static SideOutputKind,
    ledger: Ledger,
    /// By the id of the Silver table.
    tables: BTreeMap<String, Published>,
    /// The commits of events that no table takes.
    unrouted: UnroutedCommits,
}

/// The published files of one Silver table.
#[derive(Default)]
struct Published {
    name: String,
    rows: u64,
    /// The files up to this number are unknown: their entries were cleaned up.
    unknown: i64,
    files: BTreeMap<i64, (FileKey, u64)>,
}

#[derive(Deserialize)]
struct Info {
    table: String,
    rejected: Option<u64>,
    late: Option<u64>,
    resolved: Option<u64>,
    /// Rows that were there twice, and are removed.
    doubled: Option<u64>,
}

impl Verifier for SideOutputVerifier {
    fn start_at(&mut self, checkpoint: TableState) {
        for (id, number) in checkpoint.txns() {
            if let Some(table) = self.table_of(id) {
                self.tables.insert(table.to_owned(), Published { unknown: number, ..Published::default() });
            }
        }
        self.unrouted.start_at(checkpoint.txns());
        self.ledger.start_at(checkpoint);
    }

    fn apply(&mut self, entry: &Entry) {
        let change = self.ledger.apply(entry);
        if entry.restores_progress() {
            self.restore_progress(entry);
        }
        if entry.info.get("table").is_none() {
            return self.ledger.check_foreign_commit(entry, change);
        }
        let info = match Info::deserialize(&entry.info) {
            Ok(info) => info,
            Err(why) => return self.ledger.report_unreadable_info(entry.version, why),
        };
        let version = entry.version;
        match (info.resolved.or(info.doubled), info.rejected.or(info.late)) {
            (Some(_), _) => {
                let (resolved, doubled) = (info.resolved.unwrap_or(0), info.doubled.unwrap_or(0));
                if change.added + doubled != change.removed || resolved > change.added {
                    let (added, removed) = (change.added, change.removed);
                    let problem = Problem::ForeignCommit { added, removed, days: None, rebuilt_in: None };
                    self.ledger.findings.at(version, problem);
                }
            }
            (None, _) if info.table == NO_TABLE => {
                if let Err(why) = self.unrouted.apply(entry, change, &mut self.ledger.findings) {
                    return self.ledger.report_unreadable_info(version, why);
                }
            }
            (None, Some(counted)) => self.check_published(entry, change, &info.table, counted),
            (None, None) => return self.ledger.report_unreadable_info(version, "it has no count"),
        }
        self.ledger.accounted += i128::from(change.added) - i128::from(change.removed);
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl SideOutputVerifier {
    pub fn new(kind: &'static SideOutputKind) -> Self {
        Self { kind, ledger: Ledger::new(kind.name), tables: BTreeMap::new(), unrouted: UnroutedCommits::new() }
    }

    fn table_of<'a>(&self, app_id: &'a str) -> Option<&'a str> {
        app_id.strip_prefix(self.kind.published)?.strip_prefix(':')
    }

    /// Takes the numbers of published announcements from a commit that sets them again, and the offsets of unrouted events.
    fn restore_progress(&mut self, entry: &Entry) {
        for (id, number) in &entry.txns {
            let Some(table) = self.table_of(id).map(str::to_owned) else { continue };
            let published = self.tables.entry(table).or_default();
            if published.last_number() == 0 {
                published.unknown = *number;
            }
        }
        self.unrouted.restore(entry, &mut self.ledger.findings);
    }

    fn check_published(&mut self, entry: &Entry, change: RowChange, name: &str, counted: u64) {
        let version = entry.version;
        if counted != change.added || change.removed > 0 {
            self.ledger.findings.at(version, Problem::Rows { counted, added: change.added });
        }
        let number = entry.txns.iter().find_map(|(id, number)| Some((self.table_of(id)?.to_owned(), *number)));
        let Some((table, number)) = number else {
            let problem = Problem::SequenceNumber { app_id: self.kind.published, expected: Some(1), found: None };
            return self.ledger.findings.at(version, problem);
        };
        let published = self.tables.entry(table).or_default();
        published.name = name.to_owned();
        published.rows += change.added;
        let last = published.last_number();
        if number <= last {
            let problem =
                Problem::SequenceNumber { app_id: self.kind.published, expected: Some(last + 1), found: Some(number) };
            return self.ledger.findings.at(version, problem);
        }
        let file = entry.adds.first().map_or(0, |add| file_key(&add.path));
        published.files.insert(number, (file, change.added));
    }

    /// Checks that the announcements of a Silver table were published. `is_pending` says that the last announced file
    /// exists, so that silverd will publish it at its next start at the latest.
    pub fn check_announcements(&mut self, table_id: &str, announcements: &Announcements, is_pending: bool) {
        let none = Published::default();
        let published = self.tables.get(table_id).unwrap_or(&none);
        let mut lost: Vec<(i64, u64)> = Vec::new();
        for (at, (file, rows)) in announcements.files.iter().enumerate() {
            let number = announcements.unknown + 1 + at as i64;
            match published.files.get(&number) {
                _ if number <= published.unknown => {}
                Some((found, found_rows)) if (found, found_rows) != (file, rows) => {
                    let side = self.kind.name;
                    let problem = Problem::DifferentFile { side, number, announced: *rows, found: *found_rows };
                    self.ledger.findings.add(LogPosition::default(), problem);
                }
                Some(_) => {}
                None => lost.push((number, *rows)),
            }
        }
        if is_pending && let Some((_, rows)) = lost.pop_if(|(number, _)| *number == announcements.last_number()) {
            let problem = Problem::Pending { side: self.kind.name, rows };
            self.ledger.findings.add(LogPosition::default(), problem);
        }
        if let (Some((first, _)), Some((last, _))) = (lost.first(), lost.last()) {
            let rows = lost.iter().map(|(_, rows)| rows).sum();
            let problem = Problem::NotPublished { side: self.kind.name, first: *first, last: *last, rows };
            self.ledger.findings.add(LogPosition::default(), problem);
        }
    }

    /// Whether the last announcement was published, or there is none.
    pub fn has_all(&self, table_id: &str, announcements: &Announcements) -> bool {
        self.tables.get(table_id).map_or(0, Published::last_number) >= announcements.last_number()
    }

    /// Whether there are rows of an earlier Silver table with the same name, which was replaced by the one with this
    /// id.
    pub fn has_rows_of_former(&self, name: &str, table_id: &str) -> bool {
        self.tables.iter().any(|(id, published)| id != table_id && published.name == name && published.rows > 0)
    }

    /// How many events that no table takes were quarantined.
    pub fn unrouted_events(&self) -> u64 {
        self.unrouted.events()
    }

    /// The offsets whose unrouted events are in the quarantine, as far as the tables matched on the same then.
    pub fn unrouted_offsets(&self, routing: &str) -> Vec<Ranges> {
        self.unrouted.offsets(routing)
    }

    /// Compares the offsets of unrouted events with Bronze, whose log must have been read later than this one.
    pub fn check_unrouted(&mut self, bronze: &BronzeVerifier) {
        self.unrouted.finish(bronze, &mut self.ledger.findings);
    }

    /// Checks the sum over all commits, after the last entry. If `known` has the ids of all current Silver tables, rows
    /// of other tables are reported.
    pub fn finish(&mut self, known: Option<&[String]>) {
        let is_former = |id: &String| known.is_some_and(|known| !known.contains(id));
        let former = self.tables.iter().filter(|(id, published)| is_former(id) && published.rows > 0);
        for (id, published) in former {
            let of = format!("an earlier table {} with the id {id}", published.name);
            let problem = Problem::FormerTable { side: self.kind.name, of, rows: published.rows };
            self.ledger.findings.add(LogPosition::default(), problem);
        }
        self.ledger.check_total();
    }
}

impl Published {
    fn last_number(&self) -> i64 {
        self.files.last_key_value().map_or(self.unknown, |(number, _)| *number)
    }
}
