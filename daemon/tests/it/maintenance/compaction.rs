//! Compaction: small files of a day become one file with the same rows.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{
    TABLES, actions, adds, compactions, data_files, entries, live_files, newest_version, project_with_small_files,
    vacuum, verify_ok,
};
use crate::harness::{Daemon, Project, expected, python, rows};

#[test]
fn maintain_by_hand_keeps_all_rows() {
    let project = project_with_small_files("compact");
    let counts = expected::check(&project);
    let printed = project.silverd(&["maintain", "--dry-run"]);
    assert!(printed.contains("bronze: would compact") && printed.contains("0 log entries"), "{printed}");
    let before: Vec<_> = TABLES
        .map(|table| {
            let path = project.path(table);
            (table, newest_version(&path), live_files(&project, table), python::rows_and_digest(&path, None))
        })
        .into();
    assert!(before.iter().all(|(table, _, files, _)| *files >= 10 || *table == "quarantine"), "{before:?}");

    let printed = project.silverd(&["maintain"]);
    assert!(printed.contains("page_view: compacted"), "{printed}");
    assert_eq!(expected::check(&project), counts);
    verify_ok(&project);
    for (table, old, files, rows) in &before {
        let path = project.path(table);
        let left = live_files(&project, table);
        assert!(left * 4 < *files || *files < 8, "{table}: {files} files became {left}");
        assert_eq!(&python::rows_and_digest(&path, None), rows, "{table}");
        assert_eq!(&python::rows_and_digest(&path, Some(*old)), rows, "{table} at version {old}");
    }
    compacted_files_are_well_formed(&project.path("bronze"));
    second_run_changes_nothing(&project);

    // Replaced files are removed, those of the newest version are kept.
    for table in TABLES {
        let (all, live) = (data_files(&project.path(table)).len() as u64, live_files(&project, table) as u64);
        let vacuumed = vacuum(&project, table);
        assert_eq!(vacuumed.files, all - live, "{table}");
        assert_eq!(data_files(&project.path(table)).len() as u64, live, "{table}");
    }
    assert_eq!(expected::check(&project), counts);
    verify_ok(&project);

    // A table that is created again reads Bronze's compacted files.
    std::fs::remove_dir_all(project.path("page_view")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("page_view")).len(), counts["page_view"]);
}

fn second_run_changes_nothing(project: &Project) {
    let versions = TABLES.map(|table| newest_version(&project.path(table)));
    let printed = project.silverd(&["maintain"]);
    assert!(
        printed.lines().all(|line| line.contains("compacted 0 files") || line.contains("nothing was written yet")),
        "{printed}"
    );
    assert_eq!(TABLES.map(|table| newest_version(&project.path(table))), versions);
}

/// Statistics as in any other commit, sorted rows, and no data change for readers of the log.
fn compacted_files_are_well_formed(table: &Path) {
    let entries = entries(table);
    let versions = compactions(table);
    assert!(!versions.is_empty());
    let columns = |add: &Value| -> BTreeSet<String> {
        let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        stats["minValues"].as_object().unwrap().keys().cloned().collect()
    };
    let plain = columns(&adds(&entries[&1])[0]);
    for version in versions {
        for action in actions(&entries[&version]) {
            for kind in ["add", "remove"] {
                if action[kind].is_object() {
                    assert_eq!(action[kind]["dataChange"], false, "{action}");
                }
            }
        }
        let add = &adds(&entries[&version])[0];
        assert_eq!(columns(add), plain);
        let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        let file = File::open(table.join(add["path"].as_str().unwrap())).unwrap();
        assert_eq!(file.metadata().unwrap().len(), add["size"].as_u64().unwrap());
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(Some(builder.metadata().file_metadata().num_rows()), stats["numRecords"].as_i64());
        let mut positions = Vec::new();
        for batch in builder.build().unwrap() {
            let batch = batch.unwrap();
            let partitions = batch.column_by_name("partition").unwrap().as_primitive::<Int32Type>().values().to_vec();
            let offsets = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
            positions.extend(partitions.into_iter().zip(offsets));
        }
        assert!(positions.is_sorted(), "one row group, by partition and offset");
        let bounds = |at: fn(&(i32, i64)) -> i64| (positions.iter().map(at).min(), positions.iter().map(at).max());
        for (name, (low, high)) in [("partition", bounds(|p| p.0.into())), ("offset", bounds(|p| p.1))] {
            assert_eq!((stats["minValues"][name].as_i64(), stats["maxValues"][name].as_i64()), (low, high), "{name}");
        }
    }
}

/// A compacted file of several row groups is read back in smaller chunks, over all its partitions.
#[test]
fn bronze_is_read_row_group_by_row_group() {
    let project = Project::new("groups", "interval = \"50ms\"\nrows_max = 7000\n\n[maintenance]\nenabled = false");
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
    let last = &entries(&path)[compactions(&path).last().unwrap()];
    assert!(adds(last).iter().any(|add| groups(add) > 1), "one row group only");
    std::fs::remove_dir_all(project.path("page_view")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert_eq!(count("page_view"), before);
    verify_ok(&project);
}

#[test]
fn compaction_refreshes_no_gold_table() {
    let gold =
        "[gold.daily]\nrefresh = \"1s\"\nsql = \"SELECT event_date, count(*) AS n FROM page_view GROUP BY event_date\"";
    let project = project_with_small_files("compactgold");
    project.append_to_pipeline(gold);
    project.silverd(&["run", "--drain"]);
    let gold_table = project.folder.path().join("data/gold/daily");
    let rows = || project.silverd(&["query", "--json", "SELECT event_date, n FROM gold.daily ORDER BY 1"]);
    let (before, answer) = (data_files(&gold_table), rows());
    project.silverd(&["maintain", "page_view"]);
    assert!(!compactions(&project.path("page_view")).is_empty());
    project.silverd(&["run", "--drain"]);
    assert_eq!(data_files(&gold_table), before, "the Gold table was computed again although no row had changed");
    assert_eq!(rows(), answer);
    project.generate(&["--count", "200", "--seed", "22"]);
    project.silverd(&["run", "--drain"]);
    assert_ne!(rows(), answer, "new rows refresh the Gold table");
}

/// The files that a killed maintenance leaves are found and removed.
#[test]
fn killed_maintenance_loses_no_row() {
    let project = project_with_small_files("killed");
    let counts = expected::check(&project);
    let original = project.folder.path().join("original");
    let data = project.folder.path().join("data");
    copy(&data, &original);
    let mut cut = 0;
    for kill in 0..24 {
        if kill % 8 == 7 {
            // Start again from the original, since nothing is left to be compacted.
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
    assert!(cut >= 4, "only {cut} of 24 were killed while they ran");
    assert_eq!(expected::check(&project), counts);
    project.silverd(&["maintain"]);
    for table in TABLES {
        vacuum(&project, table);
        assert_eq!(data_files(&project.path(table)).len(), live_files(&project, table), "{table}");
    }
    assert_eq!(expected::check(&project), counts);
    verify_ok(&project);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rp").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn low_disk_space_pauses_compaction_and_is_reported_once() {
    let project = project_with_small_files("diskspace");
    let text = project.pipeline();
    project.replace_in_pipeline("enabled = false", "free_bytes_min = \"1000000GiB\"");
    project.replace_in_pipeline("[http]\nlisten = \"off\"\n", "");
    let errors = project.silverd_fails(&["maintain"], 1);
    assert!(errors.contains("are free on the disk of") && errors.contains("free_bytes_min requires"), "{errors}");
    let mut daemon = Daemon::start_with(&project, &["run", "--listen", "127.0.0.1:0"], &[]);
    daemon.until("a check of every table", |daemon| {
        let status = daemon.json("/api/status");
        let tables = status["maintenance"].as_array().unwrap();
        tables.len() > TABLES.len() && tables.iter().all(|table| table["state"] != "waiting")
    });
    let message = "small files are not compacted until there is more space";
    assert_eq!(daemon.count_logged(message), 1, "{}", daemon.log());
    daemon.stop();
    assert!(TABLES.iter().all(|table| compactions(&project.path(table)).is_empty()));
    project.write_pipeline(&text);
    project.silverd(&["maintain"]);
    assert!(!compactions(&project.path("bronze")).is_empty());
    expected::check(&project);
}
