//! The care for files and logs: rows stay what they are, whoever is killed or works at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use silverd::delta::{Change, Files, Lease, Table};
use silverd::maintenance::{Kept, Merged, Pace, Swept, Tails};
use silverd_core::config::{self, Maintenance, Pipeline};
use tokio_util::sync::CancellationToken;

use super::harness::{Asked, Project, root, wait};
use super::kill::terminate;
use super::{pipeline, truth};

/// All tables of the shop that are made.
const TABLES: [&str; 5] = ["bronze", "quarantine", "page_view", "add_to_cart", "order_placed"];

/// A project whose tables have many small files, with rejects.
fn crumbs(name: &str) -> Project {
    let project = Project::new(name, "interval_ms = 10\nrows_max = 150\n\n[maintenance]\nenabled = false");
    project.generate(&["--count", "6000", "--seed", "21"]);
    pipeline::send_odd_ones(&project);
    project.silverd(&["run", "--drain"]);
    project
}

fn read_pipeline(project: &Project) -> Pipeline {
    let text = std::fs::read_to_string(project.folder.path().join("pipeline.toml")).unwrap();
    config::check(&text, &|_| None).unwrap_or_else(|_| panic!("{text}"))
}

fn kept(project: &Project, table: &str) -> Kept {
    let all = Kept::all(&read_pipeline(project), project.folder.path());
    all.into_iter().find(|kept| kept.name == table).unwrap()
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

fn at_once() -> Pace {
    Pace::at_once(CancellationToken::new())
}

/// Removes everything that the newest versions do not have.
fn sweep(project: &Project, table: &str) -> Swept {
    block(async {
        let kept = kept(project, table);
        let (table, _) = kept.open().await.unwrap().unwrap();
        let at_once_gone = Maintenance { retention_ms: 0, ..Maintenance::default() };
        kept.sweep(&table, &at_once_gone, false, &at_once()).await.unwrap()
    })
}

fn entries(table: &Path) -> BTreeMap<u64, PathBuf> {
    let files = std::fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path());
    let version = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    files.filter(|path| path.extension().is_some_and(|e| e == "json")).filter_map(|p| Some((version(&p)?, p))).collect()
}

fn actions(entry: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(entry).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The versions of a table that merged files.
fn merges(table: &Path) -> Vec<u64> {
    let merged = |entry: &PathBuf| actions(entry).iter().any(|action| action["commitInfo"]["operation"] == "OPTIMIZE");
    let merged = |(version, entry): (u64, PathBuf)| (merged(&entry) && adds(&entry).len() == 1).then_some(version);
    entries(table).into_iter().filter_map(merged).collect()
}

fn adds(entry: &Path) -> Vec<Value> {
    actions(entry).into_iter().filter_map(|mut action| action.get_mut("add").map(Value::take)).collect()
}

fn version(table: &Path) -> u64 {
    *entries(table).last_key_value().unwrap().0
}

/// The data files in a table's folder.
fn on_disk(table: &Path) -> BTreeSet<PathBuf> {
    let days = std::fs::read_dir(table).unwrap().map(|entry| entry.unwrap().path());
    let days = days.filter(|path| path.is_dir() && !path.ends_with("_delta_log"));
    days.flat_map(|day| std::fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path())).collect()
}

fn live_files(project: &Project, table: &str) -> usize {
    block(async { Table::adopt(table, project.path(table)).await.unwrap().unwrap().1.len() })
}

/// What another implementation of Delta reads: the number of rows, and a digest of them all.
fn python(table: &Path, version: Option<u64>) -> Option<(u64, String)> {
    let python = std::env::var("SILVERD_TEST_PYTHON").ok()?;
    let mut command = Command::new(python);
    command.arg(root().join(".ci/check_delta.py")).arg(table);
    if let Some(version) = version {
        command.args(["--version", &version.to_string()]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    Some((told["num_rows"].as_u64().unwrap(), told["sha256"].as_str().unwrap().to_owned()))
}

fn holds(project: &Project) {
    project.silverd(&["verify"]);
    project.silverd(&["verify", "--deep", "--strict"]);
}

/// Makes a file look as old.
fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn merged_by_hand_the_rows_stay_what_they_are() {
    let project = crumbs("merge");
    let counts = truth::check(&project);
    let told = project.silverd(&["maintain", "--dry-run"]);
    assert!(told.contains("bronze: would merge") && told.contains("0 entries"), "{told}");
    let before: Vec<_> = TABLES
        .map(|table| {
            let path = project.path(table);
            (table, version(&path), live_files(&project, table), python(&path, None))
        })
        .into();
    assert!(before.iter().all(|(table, _, files, _)| *files >= 10 || *table == "quarantine"), "{before:?}");

    let told = project.silverd(&["maintain"]);
    assert!(told.contains("page_view: merged"), "{told}");
    assert_eq!(truth::check(&project), counts);
    holds(&project);
    for (table, old, files, rows) in &before {
        let path = project.path(table);
        let left = live_files(&project, table);
        assert!(left * 4 < *files || *files < 8, "{table}: {files} files became {left}");
        assert_eq!(&python(&path, None), rows, "{table}");
        assert_eq!(&python(&path, Some(*old)), rows, "{table} as it was in version {old}");
    }
    files_are_well_made(&project.path("bronze"));
    a_second_time_nothing_is_left_to_do(&project);

    // Replaced files go, those of the newest version do not.
    for table in TABLES {
        let (there, live) = (on_disk(&project.path(table)).len() as u64, live_files(&project, table) as u64);
        let swept = sweep(&project, table);
        assert_eq!(swept.files, there - live, "{table}");
        assert_eq!(on_disk(&project.path(table)).len() as u64, live, "{table}");
    }
    assert_eq!(truth::check(&project), counts);
    holds(&project);

    // A table that is made anew reads Bronze's merged files.
    std::fs::remove_dir_all(project.path("page_view")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::rows(&project.path("page_view")).len(), counts["page_view"]);
}

fn a_second_time_nothing_is_left_to_do(project: &Project) {
    let versions = TABLES.map(|table| version(&project.path(table)));
    let told = project.silverd(&["maintain"]);
    assert!(told.lines().all(|line| line.contains("merged 0 files") || line.contains("nothing written yet")), "{told}");
    assert_eq!(TABLES.map(|table| version(&project.path(table))), versions);
}

/// Statistics as of any commit's files, rows in order, and no news for whoever follows the log.
fn files_are_well_made(table: &Path) {
    let entries = entries(table);
    let merges = merges(table);
    assert!(!merges.is_empty());
    let columns = |add: &Value| -> BTreeSet<String> {
        let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        stats["minValues"].as_object().unwrap().keys().cloned().collect()
    };
    let plain = columns(&adds(&entries[&1])[0]);
    for merge in merges {
        for action in actions(&entries[&merge]) {
            for kind in ["add", "remove"] {
                if action[kind].is_object() {
                    assert_eq!(action[kind]["dataChange"], false, "{action}");
                }
            }
        }
        let add = &adds(&entries[&merge])[0];
        assert_eq!(columns(add), plain);
        let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        let file = File::open(table.join(add["path"].as_str().unwrap())).unwrap();
        assert_eq!(file.metadata().unwrap().len(), add["size"].as_u64().unwrap());
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(Some(builder.metadata().file_metadata().num_rows()), stats["numRecords"].as_i64());
        let mut places = Vec::new();
        for batch in builder.build().unwrap() {
            let batch = batch.unwrap();
            let partitions = batch.column_by_name("partition").unwrap().as_primitive::<Int32Type>().values().to_vec();
            let offsets = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
            places.extend(partitions.into_iter().zip(offsets));
        }
        assert!(places.is_sorted(), "one row group, by partition and offset");
        let bounds = |at: fn(&(i32, i64)) -> i64| (places.iter().map(at).min(), places.iter().map(at).max());
        for (name, (low, high)) in [("partition", bounds(|p| p.0.into())), ("offset", bounds(|p| p.1))] {
            assert_eq!((stats["minValues"][name].as_i64(), stats["maxValues"][name].as_i64()), (low, high), "{name}");
        }
    }
}

/// A merged file of several row groups is read back in chunks that are smaller, over all its partitions.
#[test]
fn bronze_is_read_back_row_group_by_row_group() {
    let project = Project::new("groups", "interval_ms = 50\nrows_max = 7000\n\n[maintenance]\nenabled = false");
    project.generate(&["--count", "160000", "--seed", "41"]);
    project.silverd(&["run", "--drain"]);
    let count = |table: &str| project.silverd(&["query", "--json", &format!("SELECT count(*) AS n FROM {table}")]);
    let before = count("page_view");
    project.silverd(&["maintain", "bronze"]);
    let path = project.path("bronze");
    let groups = |add: &Value| {
        let file = File::open(path.join(add["path"].as_str().unwrap())).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().metadata().num_row_groups()
    };
    let last = &entries(&path)[merges(&path).last().unwrap()];
    assert!(adds(last).iter().any(|add| groups(add) > 1), "one row group only");
    std::fs::remove_dir_all(project.path("page_view")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert_eq!(count("page_view"), before);
    holds(&project);
}

#[test]
fn a_running_daemon_merges_and_every_row_is_there_once() {
    let asked = Asked { dedup_within_s: Some(600), late_after_s: Some(120) };
    let project = Project::asking("beside", "interval_ms = 20\nrows_max = 500", asked);
    let address = project.broker.address();
    let mut generator = project
        .command(&["generate", "--bootstrap", &address, "--topic", &project.topic, "--eps", "500", "--for", "400s"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = project.command(&["run", "--log", "warn"]).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    let made = |table: &str| project.path(table).join("_delta_log").is_dir();
    let merged = |table: &str| made(table) && !merges(&project.path(table)).is_empty();
    while !["bronze", "page_view", "add_to_cart"].into_iter().all(merged) {
        let ended = daemon.try_wait().unwrap().is_some();
        if ended || Instant::now() > deadline {
            let _ = (daemon.kill(), generator.kill());
            let merges = TABLES.map(|table| (table, made(table).then(|| merges(&project.path(table)).len())));
            panic!("merges in 300 s: {merges:?}; silverd has ended by itself: {ended}");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    terminate(&generator);
    assert!(wait(&mut generator, Duration::from_secs(30)).is_some_and(|status| status.success()));
    terminate(&daemon);
    assert!(wait(&mut daemon, Duration::from_secs(30)).is_some_and(|status| status.success()));
    project.silverd(&["run", "--drain"]);
    println!("{:?}", truth::check(&project));
    holds(&project);
    for table in ["bronze", "page_view"] {
        let path = project.path(table);
        let first = merges(&path)[0];
        assert_eq!(python(&path, Some(first - 1)), python(&path, Some(first)), "{table}, before and after a merge");
    }
}

/// Whenever maintenance is killed, no row is lost, and what it left is found and removed.
#[test]
fn killed_while_it_works_nothing_is_lost() {
    let project = crumbs("killcare");
    let counts = truth::check(&project);
    let original = project.folder.path().join("original");
    let data = project.folder.path().join("data");
    copy(&data, &original);
    let mut cut = 0;
    for kill in 0..24 {
        if kill % 8 == 7 {
            // All over again, since after a while nothing is left to be merged.
            std::fs::remove_dir_all(&data).unwrap();
            copy(&original, &data);
        }
        let mut child = project.command(&["maintain", "--log", "error"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(40 + 17 * (kill % 8) * (kill / 8 + 1)));
        cut += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        project.silverd(&["verify"]);
    }
    assert!(cut >= 4, "only {cut} of 24 were cut off");
    assert_eq!(truth::check(&project), counts);
    project.silverd(&["maintain"]);
    for table in TABLES {
        sweep(&project, table);
        assert_eq!(on_disk(&project.path(table)).len(), live_files(&project, table), "{table}");
    }
    assert_eq!(truth::check(&project), counts);
    holds(&project);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rp").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Without the lease, as on two machines that share a folder: the log's fence alone keeps the two apart.
#[test]
fn two_who_merge_the_same_files_double_no_row() {
    let project = crumbs("twocare");
    let counts = truth::check(&project);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for table in ["bronze", "page_view", "add_to_cart"] {
        let kept = kept(&project, table);
        let both: Vec<Merged> = runtime.block_on(async {
            let merge = || {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let (mut table, files) = kept.open().await.unwrap().unwrap();
                    // Small steps, so that they meet often.
                    let small = Maintenance { file_bytes_max: 64 << 10, ..Maintenance::default() };
                    kept.merge(&mut table, files, &small, Tails::OfAllDays, &at_once()).await.unwrap()
                })
            };
            let (first, second) = tokio::join!(merge(), merge());
            vec![first.unwrap(), second.unwrap()]
        });
        println!("{table}: {both:?}");
        assert!(both.iter().any(|merged| merged.merges > 0), "{table}");
    }
    assert_eq!(truth::check(&project), counts);
    holds(&project);
}

/// A merge that was overtaken is void: the commit says so, and the file that it made is gone.
#[test]
fn a_merge_of_files_that_are_gone_is_void() {
    let project = crumbs("void");
    block(async {
        let kept = kept(&project, "page_view");
        let (mut late, files) = kept.open().await.unwrap().unwrap();
        let (mut overtaken, stale) = kept.open().await.unwrap().unwrap();
        let (mut first, known) = kept.open().await.unwrap().unwrap();
        let config = Maintenance::default();
        kept.merge(&mut first, known, &config, Tails::OfAllDays, &at_once()).await.unwrap();
        let before = on_disk(&project.path("page_view"));
        let merged = kept.merge(&mut overtaken, stale, &config, Tails::OfAllDays, &at_once()).await.unwrap();
        assert_eq!((merged, on_disk(&project.path("page_view"))), (Merged::default(), before));
        let change = Change { removes: files[..2].to_vec(), rewrites: true, ..Change::default() };
        let failure = late.commit(change).await.err().unwrap().to_string();
        assert!(failure.contains("changed the rows that this commit builds on"), "{failure}");
    });
    truth::check(&project);
}

#[test]
fn gold_takes_merged_files_for_no_news() {
    let gold =
        "[gold.daily]\nrefresh = \"1s\"\nsql = \"SELECT event_date, count(*) AS n FROM page_view GROUP BY event_date\"";
    let project = crumbs("careforgold");
    let file = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n{gold}\n")).unwrap();
    project.silverd(&["run", "--drain"]);
    let made = project.folder.path().join("data/gold/daily");
    let rows = || project.silverd(&["query", "--json", "SELECT event_date, n FROM gold.daily ORDER BY 1"]);
    let (before, answer) = (on_disk(&made), rows());
    project.silverd(&["maintain", "page_view"]);
    assert!(!merges(&project.path("page_view")).is_empty());
    project.silverd(&["run", "--drain"]);
    assert_eq!(on_disk(&made), before, "the Gold table was made anew, and no row had changed");
    assert_eq!(rows(), answer);
    project.generate(&["--count", "200", "--seed", "22"]);
    project.silverd(&["run", "--drain"]);
    assert_ne!(rows(), answer, "what is new is news");
}

#[test]
fn orphans_go_and_what_lives_stays() {
    let project = crumbs("orphans");
    let counts = truth::check(&project);
    for table in TABLES {
        on_disk(&project.path(table)).iter().for_each(|file| age(file, 3));
        let day = on_disk(&project.path(table)).first().unwrap().parent().unwrap().to_owned();
        for (name, days) in [
            ("part-old.zstd.parquet", 2),
            ("part-cut.zstd.parquet#1", 2),
            ("part-young.parquet", 0),
            ("part-begun.zstd.parquet#2", 0),
        ] {
            std::fs::write(day.join(name), "orphan").unwrap();
            age(&day.join(name), days);
        }
        std::fs::write(day.join("notes.txt"), "none of ours").unwrap();
        age(&day.join("notes.txt"), 9);
    }
    let told = project.silverd(&["maintain", "--dry-run"]);
    assert_eq!(told.matches("would remove 2 files").count(), TABLES.len(), "{told}");
    let told = project.silverd(&["maintain"]);
    assert_eq!(told.matches("removed 2 files").count(), TABLES.len(), "{told}");
    for table in TABLES {
        let left = on_disk(&project.path(table));
        let has = |name: &str| left.iter().any(|file| file.ends_with(name));
        assert!(has("part-young.parquet") && has("part-begun.zstd.parquet#2") && has("notes.txt"), "{table}");
        assert!(!has("part-old.zstd.parquet") && !has("part-cut.zstd.parquet#1"), "{table}");
        // Merged a moment ago: older versions have these files, old as they are.
        let live = live_files(&project, table);
        assert!(left.len() > live + 3 || table == "quarantine", "{table}");
    }
    assert_eq!(truth::check(&project), counts);
    holds(&project);
}

/// As many tables as a runtime has promised room for, where it used to end with two that waited for each other.
#[test]
fn openings_do_not_wait_for_one_another() {
    let project = crumbs("openings");
    let kept = kept(&project, "bronze");
    let runtime = silverd::low::handle().unwrap();
    let opening = || {
        let kept = kept.clone();
        async move { kept.open().await.unwrap().unwrap().1.len() }
    };
    let all = async { futures::future::join_all((0..48).map(|_| tokio::spawn(opening()))).await };
    let opened = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), all).await });
    let opened = opened.expect("every table is opened in the end");
    let files = live_files(&project, "bronze");
    assert!(opened.into_iter().all(|opened| opened.unwrap() == files));
}

/// When a file was removed is known although no checkpoint says so any more: as long as `retention` wants it, it stays.
#[test]
fn what_no_checkpoint_names_any_more_stays_as_long_as_it_is_wanted() {
    let project = Project::new("marks", "interval_ms = 10\nrows_max = 20\n\n[maintenance]\nenabled = false");
    project.generate(&["--count", "2000", "--seed", "51"]);
    project.silverd(&["run", "--drain"]);
    let path = project.path("bronze");
    let (old, kept) = (version(&path), kept(&project, "bronze"));
    let rows = python(&path, Some(old));
    let replaced = on_disk(&path);
    project.silverd(&["maintain", "bronze"]);
    let at_once_forgotten = Maintenance { retention_ms: 24, ..Maintenance::default() };
    let (mut table, _) = block(kept.open()).unwrap().unwrap();
    block(kept.tell_retention(&mut table, &at_once_forgotten)).unwrap();
    project.generate(&["--count", "5000", "--seed", "52"]);
    project.silverd(&["run", "--drain"]);
    let counts = truth::check(&project);

    let first = replaced.first().unwrap().strip_prefix(&path).unwrap().to_str().unwrap().to_owned();
    let named = block(async {
        let (table, _) = kept.open().await.unwrap().unwrap();
        Files::read(table.store().as_ref()).await.unwrap().keeps(&first.into(), 0)
    });
    assert!(!named, "the last checkpoint names what was merged before it");
    on_disk(&path).iter().for_each(|file| age(file, 3));
    let swept = |retention_ms: u64| {
        let (table, _) = block(kept.open()).unwrap().unwrap();
        let config = Maintenance { retention_ms, ..Maintenance::default() };
        block(kept.sweep(&table, &config, false, &at_once())).unwrap()
    };
    assert_eq!(swept(60 * 60 * 1000).files, 0);
    assert_eq!(python(&path, Some(old)), rows);
    assert_eq!(swept(0).files as usize, replaced.len());
    assert_eq!(truth::check(&project), counts);
    holds(&project);
}

/// A log of some hundred commits loses its first half, and everything that reads logs goes on.
#[test]
fn a_trimmed_log_is_as_good_as_a_whole_one() {
    let project = Project::new("trim", "interval_ms = 10\nrows_max = 20\n\n[maintenance]\nenabled = false");
    project.generate(&["--count", "9000", "--seed", "31"]);
    pipeline::send_odd_ones(&project);
    project.silverd(&["run", "--drain"]);
    let counts = truth::check(&project);
    a_log_without_a_whole_checkpoint_is_not_trimmed(&project, "add_to_cart");
    let mut trimmed = Vec::new();
    for table in ["bronze", "page_view", "add_to_cart"] {
        let path = project.path(table);
        let newest = version(&path);
        assert!(newest > 250, "{table} has {newest} versions");
        entries(&path).range(..=newest - 20).for_each(|(_, entry)| age(entry, 30));
        trimmed.push((table, newest));
    }
    let told = project.silverd(&["maintain"]);
    for (table, newest) in trimmed {
        let first = *entries(&project.path(table)).first_key_value().unwrap().0;
        assert!((200..newest).contains(&first), "{table} begins with {first}: {told}");
        let checkpoint = project.path(table).join(format!("_delta_log/{first:020}.checkpoint.parquet"));
        assert!(checkpoint.is_file(), "{table} begins without a checkpoint");
    }
    assert_eq!(truth::check(&project), counts);
    project.silverd(&["verify"]);
    project.silverd(&["verify", "--deep"]);
    let history = project.silverd(&["plugin", "history", "page_view", "--json"]);
    assert!(history.contains("digest"), "{history}");
    project.generate(&["--count", "500", "--seed", "32"]);
    project.silverd(&["run", "--drain"]);
    project.silverd(&["rebuild", "page_view"]);
    project.silverd(&["maintain"]);
    truth::check(&project);
    project.silverd(&["verify"]);
    project.silverd(&["verify", "--deep"]);
    assert!(python(&project.path("bronze"), None).is_none_or(|(rows, _)| rows == counts["bronze"] as u64 + 500));
}

/// The checkpoints with which the log could begin are cut off, as after a disk that was full; the newest is well.
fn a_log_without_a_whole_checkpoint_is_not_trimmed(project: &Project, table: &str) {
    let path = project.path(table);
    let checkpoint = |version: &u64| path.join(format!("_delta_log/{version:020}.checkpoint.parquet"));
    let mut all: Vec<_> = (0..=version(&path)).filter(|version| checkpoint(version).is_file()).collect();
    let newest = all.pop().unwrap();
    entries(&path).range(..newest).for_each(|(_, entry)| age(entry, 30));
    let cut: Vec<_> = all.iter().map(checkpoint).collect();
    let whole: Vec<_> = cut.iter().map(|path| std::fs::read(path).unwrap()).collect();
    cut.iter().for_each(|path| std::fs::write(path, "PAR1").unwrap());
    let output = project.command(&["maintain", table]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!cut.is_empty() && !output.status.success() && told.contains("checkpoint.parquet"), "{told}");
    assert_eq!(*entries(&path).first_key_value().unwrap().0, 0);
    cut.iter().zip(whole).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
}

/// A crash came between Silver's commit and the quarantine's, and nothing settled it since: the announced file is in no
/// commit, and old, and its announcement stands in an old entry.
#[test]
fn what_was_announced_is_settled_before_anything_goes() {
    let project = crumbs("settle");
    let counts = truth::check(&project);
    let quarantine = project.path("quarantine");
    std::fs::remove_file(entries(&quarantine).last_entry().unwrap().get()).unwrap();
    for table in TABLES {
        on_disk(&project.path(table)).iter().for_each(|file| age(file, 30));
        entries(&project.path(table)).values().for_each(|entry| age(entry, 30));
    }
    assert_ne!(truth::rows(&quarantine).len(), counts["quarantine"]);
    project.silverd(&["maintain", "quarantine"]);
    assert_eq!(truth::check(&project), counts);
    project.silverd(&["maintain"]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::check(&project), counts);
    holds(&project);
}

#[test]
fn without_room_nothing_is_merged_and_it_is_told_once() {
    let project = crumbs("room");
    let file = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("enabled = false", "free_bytes_min = \"1000000GiB\"")).unwrap();
    let output = project.output(&["maintain"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("are free on the disk of") && told.contains("free_bytes_min asks for"), "{told}");
    let output = project.output(&["run", "--for", "6s"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("small files stay as they are until there is more room").count(), 1, "{told}");
    assert!(TABLES.iter().all(|table| merges(&project.path(table)).is_empty()));
    std::fs::write(&file, text).unwrap();
    project.silverd(&["maintain"]);
    assert!(!merges(&project.path("bronze")).is_empty());
    truth::check(&project);
}

#[test]
fn a_correction_is_not_disturbed() {
    let project = crumbs("lease");
    let folder = project.path("page_view");
    let lease = block(Lease::with_others(&folder, "page_view")).unwrap();
    assert!(Lease::alone(&folder).unwrap().is_none());
    let output = project.output(&["maintain", "page_view"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("is at work"), "{told}");
    assert!(merges(&folder).is_empty());
    // Others may correct it, too.
    project.silverd(&["rebuild", "page_view"]);
    drop(lease);
    project.silverd(&["maintain", "page_view"]);
    truth::check(&project);
    holds(&project);
}
