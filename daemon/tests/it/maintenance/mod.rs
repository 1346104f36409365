//! Table maintenance: no row changes, whoever else writes to the tables, and wherever it is killed.

mod compaction;
mod concurrency;
mod log_cleanup;
mod vacuum;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use silverd::delta::Table;
use silverd::maintenance::{MaintainedTable, Throttle, Vacuumed};
use silverd_core::config::{self, Maintenance};
use tokio_util::sync::CancellationToken;

use super::harness::{Project, actions, block_on, entries};

/// The shop's tables without late events.
const TABLES: [&str; 5] = ["bronze", "quarantine", "page_view", "add_to_cart", "order_placed"];

/// A project whose tables have many small files, with rejects.
fn project_with_small_files(name: &str) -> Project {
    let project = Project::new(name, "interval = \"10ms\"\nrows_max = 150\n\n[maintenance]\nenabled = false");
    project.generate(&["--count", "6000", "--seed", "21"]);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    project
}

fn maintained(project: &Project, table: &str) -> MaintainedTable {
    let text = project.pipeline();
    let pipeline = config::check(&text, &|_| None).unwrap_or_else(|_| panic!("{text}"));
    let all = MaintainedTable::all(&pipeline, project.folder.path());
    all.into_iter().find(|maintained| maintained.name == table).unwrap()
}

fn unlimited() -> Throttle {
    Throttle::unlimited(CancellationToken::new())
}

/// Removes all files that the newest version does not have.
fn vacuum(project: &Project, table: &str) -> Vacuumed {
    block_on(async {
        let maintained = maintained(project, table);
        let (table, _) = maintained.open().await.unwrap().unwrap();
        let no_retention = Maintenance { retention_ms: 0, ..Maintenance::default() };
        maintained.vacuum(&table, &no_retention, false, &unlimited()).await.unwrap()
    })
}

fn newest_version(table: &Path) -> u64 {
    *entries(table).last_key_value().unwrap().0
}

/// The `add` actions of a log entry.
fn adds(entry: &Path) -> Vec<Value> {
    actions(entry).into_iter().filter_map(|mut action| action.get_mut("add").map(Value::take)).collect()
}

/// The versions of a table that compacted files.
fn compactions(table: &Path) -> Vec<u64> {
    let optimizes =
        |entry: &PathBuf| actions(entry).iter().any(|action| action["commitInfo"]["operation"] == "OPTIMIZE");
    let compacted =
        |(version, entry): (u64, PathBuf)| (optimizes(&entry) && adds(&entry).len() == 1).then_some(version);
    entries(table).into_iter().filter_map(compacted).collect()
}

/// The data files in a table's folder.
fn data_files(table: &Path) -> BTreeSet<PathBuf> {
    let days = std::fs::read_dir(table).unwrap().map(|entry| entry.unwrap().path());
    let days = days.filter(|path| path.is_dir() && !path.ends_with("_delta_log"));
    days.flat_map(|day| std::fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path())).collect()
}

/// The number of files of the newest version.
fn live_files(project: &Project, table: &str) -> usize {
    block_on(async { Table::open_existing(table, project.path(table)).await.unwrap().unwrap().1.len() })
}

fn verify_ok(project: &Project) {
    project.silverd(&["verify"]);
    project.silverd(&["verify", "--deep", "--strict"]);
}

/// Sets the time of a file's last change to this many days ago.
fn set_age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}
