//! What must be true after each commit, whatever happened: from the entry of the log and from what was sent, by other code
//! than silverd's own verification.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use silverd_core::counts::Counts;
use silverd_core::offsets::LogPartition;
use silverd_core::unrouted::{NO_TABLE, log_of_progress_id};
use silverd_core::verify::Entry;

use super::topic::{Action, Event, PARTITIONS, TOPIC, Topic};

pub(super) const BRONZE: &str = "bronze";
pub(super) const QUARANTINE: &str = "quarantine";
pub(super) const SILVER: [&str; 2] = ["plain", "deduplicated"];
pub(super) const TABLES: [&str; 4] = [BRONZE, QUARANTINE, SILVER[0], SILVER[1]];

pub(super) struct Checker {
    folder: PathBuf,
    tables: BTreeMap<String, TableProgress>,
}

#[derive(Default)]
struct TableProgress {
    version: Option<u64>,
    /// The next offset of each partition.
    next: [i64; PARTITIONS as usize],
}

/// Offsets of a partition that a commit says it has.
struct Passed {
    partition: i32,
    start: i64,
    end: i64,
}

impl Checker {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), tables: BTreeMap::new() }
    }

    /// Checks the commit that this file is; `None` if it is none. Gives what the commit is, and what is wrong with it.
    pub(super) fn check(&mut self, file: &str, topic: &Topic) -> Option<(String, Vec<String>)> {
        let (table, version) = self.commit_of(file)?;
        let mut wrong = Vec::new();
        let entry = Entry::parse(version, &std::fs::read(file).unwrap()).unwrap();
        let progress = self.tables.entry(table.clone()).or_default();
        let expected = progress.version.map_or(0, |before| before + 1);
        if version != expected {
            wrong.push(format!("version {version}, expected {expected}"));
        }
        progress.version = Some(version);
        let log_of =
            |id: &str| if table == QUARANTINE { log_of_progress_id(id) } else { LogPartition::from_app_id(id) };
        let mut passed = Vec::new();
        for (id, end) in &entry.txns {
            let Some(log) = log_of(id).filter(|log| *log.topic == *TOPIC) else { continue };
            let next = &mut progress.next[log.partition as usize];
            if *end < *next {
                wrong.push(format!("partition {} goes back from {next} to {end}", log.partition));
            }
            passed.push(Passed { partition: log.partition, start: *next, end: *end });
            *next = *end;
        }
        self.check_bounds(&table, &passed, topic, &mut wrong);
        if wrong.is_empty() {
            check_rows(&table, &entry, &passed, topic, &mut wrong);
        }
        Some((format!("{table} {version}"), wrong))
    }

    fn commit_of(&self, file: &str) -> Option<(String, u64)> {
        let (table, name) = file.rsplit_once("/_delta_log/")?;
        let version = name.strip_suffix(".json")?.parse().ok()?;
        let table = Path::new(table).strip_prefix(&self.folder).ok()?;
        Some((table.to_str()?.to_owned(), version))
    }

    /// Bronze has no more than was sent, and no table more than Bronze.
    fn check_bounds(&self, table: &str, passed: &[Passed], topic: &Topic, wrong: &mut Vec<String>) {
        let bronze = self.tables.get(BRONZE);
        for Passed { partition, end, .. } in passed {
            let limit = match (table, bronze) {
                (BRONZE, _) => topic.end(*partition),
                (_, bronze) => bronze.map_or(0, |bronze| bronze.next[*partition as usize]),
            };
            if *end > limit {
                wrong.push(format!("partition {partition} goes to {end}, and there is nothing after {limit}"));
            }
        }
    }

    /// Whether a table has all events that concern it.
    pub(super) fn is_complete(&self, table: &str, topic: &Topic) -> bool {
        let next = self.tables.get(table).map_or([0; PARTITIONS as usize], |progress| progress.next);
        let concerns = |event: &Event| match table {
            BRONZE => true,
            QUARANTINE => !event.is_routed(),
            _ => event.is_routed(),
        };
        let rest = |partition: i32| topic.events(partition, next[partition as usize], topic.end(partition));
        !(0..PARTITIONS).any(|partition| rest(partition).iter().any(concerns))
    }
}

fn check_rows(table: &str, entry: &Entry, passed: &[Passed], topic: &Topic, wrong: &mut Vec<String>) {
    let rows: u64 = entry.adds.iter().filter_map(|added| added.rows).sum();
    let of = |passed: &Passed| topic.events(passed.partition, passed.start, passed.end);
    let events: Vec<Event> = passed.iter().flat_map(of).collect();
    let count = |which: &dyn Fn(&Event) -> bool| events.iter().filter(|event| which(event)).count() as u64;
    let mut equal = |what: &str, found: u64, expected: u64| {
        if found != expected {
            wrong.push(format!("{what}: {found}, expected {expected}"));
        }
    };
    match table {
        BRONZE => equal("rows", rows, events.len() as u64),
        QUARANTINE if entry.info["table"] == NO_TABLE => equal("rows", rows, count(&|event| !event.is_routed())),
        QUARANTINE => {}
        _ => {
            let Ok(counts) = serde_json::from_value::<Counts>(entry.info["counts"].clone()) else {
                return equal("rows of a commit without counts", rows, 0);
            };
            let of_action = |action: Action| count(&|event| event.action == action);
            equal("events", counts.events, count(&Event::is_routed));
            equal("dropped", counts.dropped, of_action(Action::Drop));
            equal("rejected", counts.rejected, of_action(Action::Reject) + of_action(Action::Trap));
            equal("rows and duplicates", counts.rows + counts.duplicates, of_action(Action::Row));
            equal("rows in the files", rows, counts.rows);
            if table != "deduplicated" {
                equal("duplicates", counts.duplicates, 0);
            }
        }
    }
}
