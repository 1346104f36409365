//! The tables beside Silver (the quarantine, the late events): what a Silver table announced, once, and nothing else.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Proof;
use super::entry::{Announced, Entry};
use super::finding::{Findings, Place, Problem};
use super::ledger::{FileKey, Ledger, Moved, State, file_key};

/// What tells one side table from the other.
#[derive(Debug, PartialEq, Eq)]
pub struct SideKind {
    pub name: &'static str,
    /// The application id under which a Silver table numbers its announcements.
    pub announced: &'static str,
    /// The application id, before a Silver table's id, under which the side table has come to that number.
    pub settled: &'static str,
    /// What is announced, in words.
    pub counted: &'static str,
}

impl SideKind {
    pub const QUARANTINE: Self = Self {
        name: "quarantine",
        announced: "silverd-rejects",
        settled: "silverd-quarantine",
        counted: "rejected events",
    };
    pub const LATE: Self =
        Self { name: "late", announced: "silverd-late", settled: "silverd-late-of", counted: "late events" };
}

/// What a Silver table has announced to a side table: by number, the file and its rows.
#[derive(Debug)]
pub struct Announcements {
    kind: &'static SideKind,
    /// The announcements up to this one are not known: their entries were cleaned away.
    unknown: i64,
    files: Vec<(FileKey, u64)>,
    /// The last file, by its path: it may wait for its commit.
    pub last: Option<Announced>,
}

impl Announcements {
    pub(super) fn of(kind: &'static SideKind) -> Self {
        Self { kind, unknown: 0, files: Vec::new(), last: None }
    }

    pub(super) fn begin(&mut self, state: &State) {
        self.unknown = state.version_of(self.kind.announced).unwrap_or(0);
    }

    pub fn number(&self) -> i64 {
        self.unknown + self.files.len() as i64
    }

    pub(super) fn take(&mut self, entry: &Entry, counted: u64, file: Option<&Announced>, findings: &mut Findings) {
        let announced = file.map(|file| file.rows);
        if announced.unwrap_or(0) != counted {
            let problem = Problem::Announced { what: self.kind.counted, counted, announced };
            findings.at(entry.version, problem);
        }
        let (found, expected) = (entry.txn(self.kind.announced), file.map(|_| self.number() + 1));
        if found != expected {
            findings.at(entry.version, Problem::Number { app_id: self.kind.announced, expected, found });
        }
        if let Some(file) = file {
            self.files.push((file_key(&file.path), file.rows));
            self.last = Some(file.clone());
        }
    }
}

/// The proof of a side table, as far as its entries have been taken in.
pub struct Side {
    kind: &'static SideKind,
    ledger: Ledger,
    /// By the Silver tables' ids.
    tables: BTreeMap<String, Settled>,
}

/// What a side table has of one Silver table.
#[derive(Default)]
struct Settled {
    name: String,
    rows: u64,
    /// The numbers up to this one are not known: their entries were cleaned away.
    unknown: i64,
    files: BTreeMap<i64, (FileKey, u64)>,
}

#[derive(Deserialize)]
struct Info {
    table: String,
    rejected: Option<u64>,
    late: Option<u64>,
    resolved: Option<u64>,
}

impl Proof for Side {
    fn begin(&mut self, state: State) {
        for (id, number) in state.txns() {
            if let Some(table) = self.table_of(id) {
                self.tables.insert(table.to_owned(), Settled { unknown: number, ..Settled::default() });
            }
        }
        self.ledger.begin(state);
    }

    fn take(&mut self, entry: &Entry) {
        let moved = self.ledger.enter(entry);
        if entry.info.get("table").is_none() {
            return self.ledger.stranger(entry, moved);
        }
        let info = match Info::deserialize(&entry.info) {
            Ok(info) => info,
            Err(why) => return self.ledger.garbled(entry.version, why),
        };
        let version = entry.version;
        match (info.resolved, info.rejected.or(info.late)) {
            (Some(resolved), _) => {
                if moved.added != moved.removed || resolved > moved.added {
                    let (added, removed) = (moved.added, moved.removed);
                    self.ledger.findings.at(version, Problem::Stranger { added, removed });
                }
            }
            (None, Some(counted)) => self.settled(entry, moved, &info.table, counted),
            (None, None) => return self.ledger.garbled(version, "it counts nothing"),
        }
        self.ledger.accounted += i128::from(moved.added) - i128::from(moved.removed);
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl Side {
    pub fn new(kind: &'static SideKind) -> Self {
        Self { kind, ledger: Ledger::new(kind.name), tables: BTreeMap::new() }
    }

    fn table_of<'a>(&self, app_id: &'a str) -> Option<&'a str> {
        app_id.strip_prefix(self.kind.settled)?.strip_prefix(':')
    }

    fn settled(&mut self, entry: &Entry, moved: Moved, name: &str, counted: u64) {
        let version = entry.version;
        if counted != moved.added || moved.removed > 0 {
            self.ledger.findings.at(version, Problem::Rows { counted, added: moved.added });
        }
        let number = entry.txns.iter().find_map(|(id, number)| Some((self.table_of(id)?.to_owned(), *number)));
        let Some((table, number)) = number else {
            let problem = Problem::Number { app_id: self.kind.settled, expected: Some(1), found: None };
            return self.ledger.findings.at(version, problem);
        };
        let settled = self.tables.entry(table).or_default();
        settled.name = name.to_owned();
        settled.rows += moved.added;
        let last = settled.files.last_key_value().map_or(settled.unknown, |(last, _)| *last);
        if number <= last {
            let problem = Problem::Number { app_id: self.kind.settled, expected: Some(last + 1), found: Some(number) };
            return self.ledger.findings.at(version, problem);
        }
        let file = entry.adds.first().map_or(0, |add| file_key(&add.path));
        settled.files.insert(number, (file, moved.added));
    }

    /// Holds what a Silver table announced against what is here. `waits` tells that the last announced file lies ready, so
    /// that the next start of silverd commits it.
    pub fn settle(&mut self, table_id: &str, announced: &Announcements, waits: bool) {
        let none = Settled::default();
        let settled = self.tables.get(table_id).unwrap_or(&none);
        let mut lost: Vec<(i64, u64)> = Vec::new();
        for (at, (file, rows)) in announced.files.iter().enumerate() {
            let number = announced.unknown + 1 + at as i64;
            match settled.files.get(&number) {
                _ if number <= settled.unknown => {}
                Some((found, found_rows)) if (found, found_rows) != (file, rows) => {
                    let side = self.kind.name;
                    let problem = Problem::OtherFile { side, number, announced: *rows, found: *found_rows };
                    self.ledger.findings.add(Place::default(), problem);
                }
                Some(_) => {}
                None => lost.push((number, *rows)),
            }
        }
        if waits && let Some((_, rows)) = lost.pop_if(|(number, _)| *number == announced.number()) {
            let problem = Problem::Pending { side: self.kind.name, rows };
            self.ledger.findings.add(Place::default(), problem);
        }
        if let (Some((first, _)), Some((last, _))) = (lost.first(), lost.last()) {
            let rows = lost.iter().map(|(_, rows)| rows).sum();
            let problem = Problem::Unsettled { side: self.kind.name, first: *first, last: *last, rows };
            self.ledger.findings.add(Place::default(), problem);
        }
    }

    /// True where the last announcement has come here, or none was made.
    pub fn has_all(&self, table_id: &str, announced: &Announcements) -> bool {
        let come = self
            .tables
            .get(table_id)
            .map_or(0, |settled| settled.files.last_key_value().map_or(settled.unknown, |(number, _)| *number));
        come >= announced.number()
    }

    /// True where another Silver table of the same name has rows here: the name's table was made anew.
    pub fn has_others_named(&self, name: &str, table_id: &str) -> bool {
        self.tables.iter().any(|(id, settled)| id != table_id && settled.name == name && settled.rows > 0)
    }

    /// Holds the sum over all commits, and tells of Silver tables that are none of `known`, if all of them are.
    pub fn finish(&mut self, known: Option<&[String]>) {
        let is_former = |id: &String| known.is_some_and(|known| !known.contains(id));
        let former = self.tables.iter().filter(|(id, settled)| is_former(id) && settled.rows > 0);
        for (id, settled) in former {
            let of = format!("{} as it was under the id {id}", settled.name);
            let problem = Problem::Former { side: self.kind.name, of, rows: settled.rows };
            self.ledger.findings.add(Place::default(), problem);
        }
        self.ledger.total();
    }
}
