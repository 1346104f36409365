//! The gallery of hostile plugins, from end to end by the real binary: for each way to misbehave, exactly the chosen events
//! end in the quarantine, with the right code and what the guest said of it; every other event is in Silver, in order; and
//! Bronze is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::harness::{Project, root};
use super::truth::{self, Place};

const EVENTS: u64 = 20_000;
const LIMITS: &str = "[limits]\ntransform_ms_max = 500\nbatch_rows_max = 1000\nmemory_bytes_max = \"32MiB\"\n\
                      output_bytes_max = \"1MiB\"\nlog_lines_per_second = 20\n";

/// A table whose plugin commits one fault.
struct Exhibit {
    fault: &'static str,
    /// One event of so many.
    every: u64,
    code: &'static str,
    /// What the reason holds, in this order.
    reason: &'static [&'static str],
}

const fn exhibit(fault: &'static str, every: u64, code: &'static str, reason: &'static [&'static str]) -> Exhibit {
    Exhibit { fault, every, code, reason }
}

const GALLERY: [Exhibit; 9] = [
    exhibit(
        "panic",
        10_000,
        "trap",
        &["panicked at fixtures/hostile/src/faults.rs:", "index out of bounds: the len is 2", " in ", "third"],
    ),
    exhibit("loop", 10_000, "timeout", &["limits.transform_ms_max"]),
    exhibit("memory", 5_000, "memory", &["limits.memory_bytes_max allows 33554432"]),
    exhibit("output", 5_000, "invalid-output", &["limits.output_bytes_max, 1048576 bytes"]),
    exhibit("stack", 5_000, "trap", &["call stack exhausted in ", "descend < "]),
    exhibit("counts", 700, "invalid-output", &["it gave 1 rows and 0 row-events"]),
    exhibit("indices", 700, "invalid-output", &["it named event 4294967295 of a batch of 1"]),
    exhibit("log-flood", 20_000, "timeout", &["limits.transform_ms_max"]),
    exhibit("late-trap", 3_000, "trap", &["panicked at fixtures/hostile/src/faults.rs:", "all 1 rows in vain"]),
];

impl Exhibit {
    fn table(&self) -> String {
        self.fault.replace('-', "_")
    }

    fn section(&self) -> String {
        let (root, table) = (root().display(), self.table());
        format!(
            "[silver.{table}]\nplugin = \"{root}/plugins/fixtures/hostile\"\n\
             match = {{ field = \"event_type\", equals = \"hit\" }}\nevent_date = \"ts\"\n\
             settings = {{ fault = \"{}\", every = {} }}\n\n",
            self.fault, self.every
        )
    }

    fn chooses(&self, event: &Value) -> bool {
        event["number"].as_u64().unwrap() % self.every == self.every - 1
    }

    /// Holds the table and its rejects against the topic's events.
    fn check(&self, project: &Project, events: &BTreeMap<Place, Value>, quarantine: &[serde_json::Map<String, Value>]) {
        let table = self.table();
        let chosen = || events.iter().filter(|(_, event)| self.chooses(event)).map(|(place, _)| *place);
        let found = truth::rows(&project.path(&table));
        let rows: BTreeSet<Place> = found.iter().map(|row| truth::place(row, "_")).collect();
        assert_eq!(found.len(), rows.len(), "{table} has an event twice");
        let innocent: BTreeSet<Place> =
            events.iter().filter(|(_, event)| !self.chooses(event)).map(|(place, _)| *place).collect();
        assert!(rows == innocent, "{table} has {} rows of {} innocent events", rows.len(), innocent.len());
        assert!(found.iter().all(|row| row["event_id"] == events[&truth::place(row, "_")]["event_id"]), "{table}");
        in_order(&table, &project.path(&table));

        let rejects: Vec<_> = quarantine.iter().filter(|row| row["table"] == table).collect();
        let places: BTreeSet<Place> = rejects.iter().map(|row| truth::place(row, "")).collect();
        assert_eq!(places, chosen().collect(), "rejects of {table}");
        assert_eq!(rejects.len(), (EVENTS / self.every) as usize, "rejects of {table}");
        for reject in rejects {
            assert_eq!(reject["code"], self.code, "{table}: {reject:?}");
            let mut rest = reject["reason"].as_str().unwrap();
            for part in self.reason {
                let at = rest.find(part).unwrap_or_else(|| panic!("{table}: no {part:?} in {:?}", reject["reason"]));
                rest = &rest[at + part.len()..];
            }
        }
    }
}

/// Within each file, a partition's events stand as they stand in Kafka.
fn in_order(table: &str, path: &Path) {
    let days = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    for day in days.filter(|path| path.is_dir() && !path.ends_with("_delta_log")) {
        for file in std::fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path()) {
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file).unwrap()).unwrap();
            let mut last = BTreeMap::new();
            for batch in reader.build().unwrap().map(Result::unwrap) {
                let partitions = batch.column_by_name("_partition").unwrap().as_primitive::<Int32Type>().clone();
                let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
                for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
                    let before = last.insert(*partition, *offset);
                    assert!(before.is_none_or(|before| before < *offset), "{table}: {}", file.display());
                }
            }
        }
    }
}

#[test]
fn each_hostile_plugin_costs_the_events_that_it_fails_on_and_nothing_else() {
    let tables: String = GALLERY.iter().map(Exhibit::section).collect();
    let project = Project::with("gallery", &format!("[commit]\ninterval_ms = 200\n\n{LIMITS}\n{tables}"));
    project.build_plugins();
    let lines = (0..EVENTS).fold(String::new(), |mut lines, number| {
        let (minute, second) = (number / 60 % 60, number % 60);
        let _ = writeln!(
            lines,
            r#"{{"event_type": "hit", "event_id": "h-{number:05}", "number": {number}, "ts": "2025-08-16T14:{minute:02}:{second:02}Z"}}"#
        );
        lines
    });
    let file = project.folder.path().join("events.jsonl");
    std::fs::write(&file, lines).unwrap();
    project.generate(&["--file", file.to_str().unwrap()]);

    let output = project.output(&["run", "--drain"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");

    let topic = truth::topic(&project);
    let bronze = truth::rows(&project.path("bronze"));
    let stored: BTreeMap<_, _> = bronze.iter().map(|row| (truth::place(row, ""), truth::produced(row))).collect();
    assert_eq!(bronze.len(), EVENTS as usize);
    assert!(stored == topic, "bronze holds every byte of the topic");

    let events: BTreeMap<Place, Value> = topic
        .iter()
        .map(|(place, record)| (*place, serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()))
        .collect();
    let quarantine = truth::rows(&project.path("quarantine"));
    for reject in &quarantine {
        assert_eq!(Some(&truth::produced(reject)), topic.get(&truth::place(reject, "")), "the bytes are kept");
    }
    for exhibit in &GALLERY {
        exhibit.check(&project, &events, &quarantine);
    }
    check_log(&told);
}

/// A flood of log lines is told in part, under its plugin's name, and forges nothing.
fn check_log(told: &str) {
    let flood: Vec<&str> = told.lines().filter(|line| line.contains("never enough of event h-19999")).collect();
    // About ten calls of 100 to 500 ms flood the log.
    assert!((1..=200).contains(&flood.len()), "{} lines of the flood were told", flood.len());
    for line in flood {
        assert!(line.contains("INFO") && line.contains("\\u{1b}[2J\\nERROR forged"), "{line}");
        assert!(line.contains("table=log_flood") && line.contains("fixture:hostile/hits@0.1.0"), "{line}");
        assert!(line.contains(" digest="), "{line}");
    }
    assert!(!told.contains("\u{1b}[2J") && !told.lines().any(|line| line.starts_with("ERROR")), "{told}");
    assert!(told.contains("more lines were not told: limits.log_lines_per_second is 20"), "{told}");
}
