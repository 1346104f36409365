//! What a power cut leaves where nothing was synchronized: a newest entry of a log without its end, without a byte, or full of
//! zeros.

use std::fs;
use std::path::{Path, PathBuf};

use super::harness::{PARTITIONS, Project, entries, expected, finding_kinds, verify};

const TABLES: [&str; 4] = ["bronze", "page_view", "quarantine", "order_placed"];

fn drained(name: &str) -> Project {
    let project = Project::new(name, "interval = \"100ms\"\nrows_max = 700");
    project.broker.create_topic(&project.topic, PARTITIONS);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    // The newest commits of the Silver tables reject nothing. Otherwise the quarantine could have the rejects of a commit that
    // is torn here, which no power cut leaves: Silver's commit was on the disk before.
    project.generate(&["--count", "2000", "--seed", "5"]);
    project.silverd(&["run", "--drain"]);
    project
}

/// The newest entry, and the one before.
fn newest(table: &Path) -> (PathBuf, Vec<u8>) {
    let entry = entries(table).into_values().next_back().unwrap();
    let bytes = fs::read(&entry).unwrap();
    (entry, bytes)
}

/// The newest commit of each table is torn; its events are read again, and the tables are whole.
fn goes_on_after(name: &str, tear: impl Fn(&[u8]) -> Vec<u8>) {
    let project = drained(name);
    let counts = expected::check(&project);
    for table in TABLES {
        let (entry, bytes) = newest(&project.path(table));
        fs::write(&entry, tear(&bytes)).unwrap();
    }
    // Readers leave the entry where it is.
    let rows = project.query("SELECT count(*) AS n FROM page_view")[0]["n"].as_u64().unwrap() as usize;
    assert!(rows < counts["page_view"], "{rows}");
    let (entry, _) = newest(&project.path("page_view"));
    let output = project.output(&["run", "--drain"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert_eq!(log.matches("moved the damaged").count(), TABLES.len(), "{log}");
    assert!(project.path("page_view").join("_damaged").join(entry.file_name().unwrap()).is_file());
    assert_eq!(expected::check(&project), counts);
    project.generate(&["--count", "500", "--seed", "6"]);
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!((code, finding_kinds(&report)), (Some(0), [].into()), "{report:#}");
}

#[test]
fn an_entry_that_is_cut_off() {
    goes_on_after("entry-cut-off", |bytes| bytes[..bytes.len() / 2].to_vec());
}

#[test]
fn an_entry_of_zeros() {
    goes_on_after("entry-of-zeros", |bytes| vec![0; bytes.len()]);
}

#[test]
fn an_entry_whose_end_is_zeros() {
    goes_on_after("entry-end-of-zeros", |bytes| {
        let mut torn = bytes.to_vec();
        let half = torn.len() / 2;
        torn[half..].fill(0);
        torn
    });
}

/// Nothing was in the tables yet: they are created again.
#[test]
fn the_entry_that_creates_a_table() {
    let project = Project::new("entry-of-creation", "interval = \"100ms\"\nrows_max = 700");
    project.generate(&["--count", "2000", "--seed", "5"]);
    project.send_odd_events();
    for (table, left) in TABLES.into_iter().zip(["", "\0\0\0\0", "{\"protocol\":{\"minReader", ""]) {
        let log = project.path(table).join("_delta_log");
        fs::create_dir_all(&log).unwrap();
        fs::write(log.join("00000000000000000000.json"), left).unwrap();
    }
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    for table in TABLES {
        assert!(project.path(table).join("_damaged/00000000000000000000.json").is_file(), "{table}");
    }
}
