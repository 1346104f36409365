//! `silverd verify --deep`: Silver and the quarantine must have what the plugins derive from Bronze, and rows that
//! differ are reported.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::harness::{
    Project, SILVER, TableCopy, TableOptions, expected, finding_kinds, root, rows, table_report, verify,
};
use super::reload;

/// Verifies a folder without a finding.
#[track_caller]
fn verify_ok(folder: &Path, args: &[&str]) -> Value {
    let (report, code) = verify(folder, &[&["--deep"], args].concat());
    assert_eq!((code, report["findings"].as_array().unwrap().len()), (Some(0), 0), "{report:#}");
    report
}

/// Rewrites the data file of a table's first commit with rows, and corrects its size in the log.
pub(super) fn rewrite(copy: &TableCopy, table: &str, change: impl Fn(RecordBatch) -> RecordBatch) {
    let has_file = |version: &u64| copy.actions(table, *version).iter().any(|action| action.get("add").is_some());
    let version = (1..=copy.last(table)).find(has_file).unwrap();
    let actions = copy.actions(table, version);
    let add = actions.iter().find_map(|action| action.get("add")).unwrap();
    let path = copy.path(table).join(add["path"].as_str().unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap()).unwrap();
    let batches: Vec<_> = reader.build().unwrap().map(|batch| change(batch.unwrap())).collect();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    copy.edit(table, version, |action| {
        if let Some(add) = action.get_mut("add").filter(|action| action["path"] == add["path"]) {
            add["size"] = json!(bytes.len());
        }
    });
    std::fs::write(&path, bytes).unwrap();
}

/// Changes a text in the first row of a batch.
pub(super) fn set_text(batch: RecordBatch, column: &str, text: &str) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, values)| -> ArrayRef {
        if field.name() != column {
            return values.clone();
        }
        let values = values.as_string::<i32>();
        let texts = (0..values.len()).map(|row| if row == 0 { text } else { values.value(row) });
        Arc::new(StringArray::from_iter_values(texts))
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

#[test]
fn all_rows_and_rejects_are_compared() {
    let project = Project::with_commits("deep");
    let counts = expected::check(&project);
    println!("{}", project.silverd(&["verify", "--deep"]));
    let report = verify_ok(project.folder.path(), &[]);
    let compared = |table: &str, what: &str| report["compared"][table][what].as_u64().unwrap() as usize;
    for table in SILVER {
        assert_eq!(compared(table, "rows"), counts[table], "{table}");
        assert_eq!(compared(table, "events"), counts[table] + compared(table, "rejects"), "{table}");
    }
    assert_eq!(SILVER.map(|table| compared(table, "rejects")).iter().sum::<usize>(), counts["quarantine"]);
}

#[test]
fn altered_rows_are_reported() {
    let project = Project::with_commits("altered");
    let copies = || TableCopy::of(project.folder.path());
    let deep = |copy: &TableCopy| {
        assert_eq!(verify(copy.folder(), &[]).1, Some(0), "the logs are unchanged");
        let (report, code) = verify(copy.folder(), &["--deep"]);
        assert_eq!((code, report["findings"].as_array().unwrap().len()), (Some(1), 1), "{report:#}");
        report["findings"][0].clone()
    };

    let copy = copies();
    rewrite(&copy, "page_view", |batch| set_text(batch, "user_id", "somebody else"));
    let finding = deep(&copy);
    let problem = &finding["problem"];
    assert_eq!((&finding["table"], &problem["kind"]), (&json!("page_view"), &json!("content")));
    assert_eq!((&problem["missing"], &problem["unexpected"], &problem["changed"]), (&json!(0), &json!(0), &json!(1)));
    let example = problem["examples"][0].as_str().unwrap();
    assert!(example.contains("offset") && example.contains("found somebody else"), "{example}");
    assert!(example.contains("user_id: expected ") && !example.contains(';'), "{example}");

    let copy = copies();
    rewrite(&copy, "order_placed", |batch| batch.slice(1, batch.num_rows() - 1));
    let finding = deep(&copy);
    assert_eq!((&finding["table"], &finding["problem"]["missing"]), (&json!("order_placed"), &json!(1)));

    let copy = copies();
    rewrite(&copy, "add_to_cart", |batch| {
        let twice = [batch.clone(), batch.slice(0, 2)];
        arrow::compute::concat_batches(&batch.schema(), &twice).unwrap()
    });
    let finding = deep(&copy);
    assert_eq!((&finding["table"], &finding["problem"]["unexpected"]), (&json!("add_to_cart"), &json!(2)));

    let copy = copies();
    rewrite(&copy, "quarantine", |batch| set_text(batch, "code", "timeout"));
    assert_eq!(deep(&copy)["problem"]["other_code"], 1);

    let copy = copies();
    rewrite(&copy, "quarantine", |batch| batch.slice(0, 0));
    let problem = &deep(&copy)["problem"];
    assert_eq!((&problem["kind"], &problem["missing"]), (&json!("rejects"), &json!(1)));
}

/// Also after a rebuild, which may keep the other one of two equal events.
#[test]
fn deduplicated_tables_are_compared() {
    let options = TableOptions { dedup_within_s: Some(60), late_after_s: Some(60) };
    let project = Project::with_options("deep-dedup", "interval = \"200ms\"\nrows_max = 700", options);
    for seed in ["1", "1", "2"] {
        project.generate(&["--count", "1500", "--seed", seed, "--dup-pct", "20"]);
        project.send_odd_events();
        project.silverd(&["run", "--drain"]);
    }
    expected::check(&project);
    let report = verify_ok(project.folder.path(), &[]);
    assert!(table_report(&report, "page_view")["duplicates"].as_u64().unwrap() > 0);
    project.silverd(&["rebuild", "page_view"]);
    project.silverd(&["quarantine", "replay"]);
    let after = verify_ok(project.folder.path(), &[]);
    assert_eq!(after["compared"], report["compared"]);
    let copy = TableCopy::of(project.folder.path());
    rewrite(&copy, "order_placed", |batch| set_text(batch, "user_id", "somebody else"));
    assert_eq!(verify(copy.folder(), &["--deep"]).1, Some(1));
}

/// Rows of earlier versions are compared with the kept plugin. Without it, they are reported as not compared.
#[test]
fn rows_of_a_missing_plugin_are_not_compared() {
    let project = Project::with_commits("deep-plugins");
    let folder = project.folder.path();
    let wasm = silverd::plugin::build::wasm_of(&root().join("plugins/page_view")).unwrap();
    let old = std::fs::read(wasm).unwrap();
    // One more custom section: the same plugin with another digest.
    let new = [&old[..], &[0, 5, 4, b'n', b'o', b't', b'e']].concat();
    std::fs::write(folder.join("new.wasm"), new).unwrap();
    project.use_plugin_file("page_view", "new.wasm");
    project.generate(&["--count", "500", "--seed", "4"]);
    project.silverd(&["run", "--drain"]);

    // silverd keeps every plugin that it has loaded.
    let report = verify_ok(folder, &["--strict"]);
    let all = report["compared"]["page_view"]["rows"].as_u64().unwrap();
    let digest = silverd::plugin::Digest::of(&old);
    std::fs::remove_file(folder.join(format!("data/.silverd/plugins/{}.wasm", digest.as_str()))).unwrap();

    let (report, code) = verify(folder, &["--deep"]);
    assert_eq!((code, finding_kinds(&report)), (Some(0), ["page_view: not-compared".to_owned()].into()), "{report:#}");
    assert_eq!(verify(folder, &["--deep", "--strict"]).1, Some(1));
    let some = report["compared"]["page_view"]["rows"].as_u64().unwrap();
    assert!(0 < some && some < all, "only the rows of the new plugin are compared: {some} of {all}");

    project.silverd(&["rebuild", "page_view"]);
    verify_ok(folder, &["--strict"]);
}

/// What wrote the rows is kept: whether there is a newer build, and whether it loads, is of no account.
#[test]
fn kept_versions_are_compared_without_a_current_one() {
    let project = reload::project("deep-broken", "[commit]\ninterval = \"100ms\"\n");
    let folder = project.folder.path();
    reload::send(&project, (0..20).map(|number| format!("e{number}")));
    project.silverd(&["run", "--drain"]);
    reload::install(&project, b"\0asm no more");
    assert_eq!(verify_ok(folder, &["--strict"])["compared"]["hits"]["rows"], 20);
    std::fs::remove_file(folder.join("hits.wasm")).unwrap();
    assert_eq!(verify_ok(folder, &["--strict"])["compared"]["hits"]["rows"], 20);
    std::fs::remove_dir_all(folder.join("data/.silverd/plugins")).unwrap();
    let (report, code) = verify(folder, &["--deep"]);
    assert_eq!((code, finding_kinds(&report)), (Some(0), ["hits: not-compared".to_owned()].into()), "{report:#}");
    assert_eq!(report["findings"][0]["problem"]["reason"], "plugin-missing");
}

/// Rows may differ that were made from what another decoder read.
#[test]
fn rows_of_another_decoder_are_not_compared() {
    const DECODER: &str = "/commitInfo/silverd/plugin/decoder";
    let project = reload::project("deep-decoder", "[commit]\ninterval = \"100ms\"\n");
    reload::send(&project, (0..20).map(|number| format!("e{number}")));
    project.silverd(&["run", "--drain"]);
    let copy = TableCopy::of(project.folder.path());
    let names_it =
        |version: &u64| copy.actions("hits", *version).iter().any(|action| action.pointer(DECODER).is_some());
    let versions: Vec<u64> = (0..=copy.last("hits")).filter(names_it).collect();
    assert!(!versions.is_empty());
    for version in versions {
        copy.edit("hits", version, |action| {
            if let Some(decoder) = action.pointer_mut(DECODER) {
                assert_eq!(*decoder, silverd_core::input::DECODER_VERSION);
                *decoder = json!(silverd_core::input::DECODER_VERSION + 1);
            }
        });
    }
    let (report, code) = verify(copy.folder(), &["--deep"]);
    assert_eq!((code, finding_kinds(&report)), (Some(0), ["hits: not-compared".to_owned()].into()), "{report:#}");
    assert_eq!(report["findings"][0]["problem"]["reason"], "other-decoder");
    assert_eq!(verify(copy.folder(), &["--deep", "--strict"]).1, Some(1));
}

/// The commit of a replay names its events, and the version that made their rows.
#[test]
fn rows_of_replayed_rejects_are_compared() {
    let project = reload::project("deep-replay", "[commit]\ninterval = \"100ms\"\n");
    reload::install(&project, &reload::version("one rejects-all"));
    reload::send(&project, (0..20).map(|number| format!("e{number}")));
    project.silverd(&["run", "--drain"]);
    reload::install(&project, &reload::version("two rejects-boom"));
    project.silverd(&["quarantine", "replay"]);
    assert_eq!(reload::hits(&project), 20);
    let report = verify_ok(project.folder.path(), &["--strict"]);
    assert_eq!(report["compared"]["hits"]["rows"], 20);
    let copy = TableCopy::of(project.folder.path());
    rewrite(&copy, "hits", |batch| set_text(batch, "event_id", "somebody else"));
    let (report, code) = verify(copy.folder(), &["--deep"]);
    assert_eq!((code, finding_kinds(&report)), (Some(1), ["hits: content".to_owned()].into()), "{report:#}");
    assert_eq!(report["findings"][0]["problem"]["changed"], 1);
    // The commits of earlier versions of silverd do not name the events: it is not known which version made which row.
    let copy = TableCopy::of(project.folder.path());
    const EVENTS: &str = "/commitInfo/silverd/correction/event_ranges";
    let names_events =
        |version: &u64| copy.actions("hits", *version).iter().any(|action| action.pointer(EVENTS).is_some());
    let replay = (0..=copy.last("hits")).find(names_events).unwrap();
    copy.edit("hits", replay, |action| {
        if let Some(correction) = action.pointer_mut("/commitInfo/silverd/correction") {
            correction.as_object_mut().unwrap().remove("event_ranges");
        }
    });
    let (report, code) = verify(copy.folder(), &["--deep"]);
    assert_eq!((code, finding_kinds(&report)), (Some(0), ["hits: not-compared".to_owned()].into()), "{report:#}");
    let problem = &report["findings"][0]["problem"];
    assert_eq!((&problem["reason"], &problem["rows"]), (&json!("replayed"), &json!(20)), "{report:#}");
    assert_eq!(verify(copy.folder(), &["--deep", "--strict"]).1, Some(1));
}

/// The data file that a table's first commit with rows added.
fn first_file(copy: &TableCopy, table: &str) -> std::path::PathBuf {
    let actions = (1..=copy.last(table)).flat_map(|version| copy.actions(table, version));
    let path = actions.filter_map(|action| Some(action.get("add")?["path"].as_str()?.to_owned())).next();
    copy.path(table).join(path.unwrap())
}

/// Files that are missing or cut off are found without reading any; what is damaged inside, by a deep verification.
#[test]
fn missing_and_damaged_files_are_named() {
    let project = Project::with_commits("files");
    for (table, other) in [("bronze", "page_view"), ("page_view", "bronze"), ("quarantine", "bronze")] {
        let copy = TableCopy::of(project.folder.path());
        let file = first_file(&copy, table);
        let bytes = std::fs::read(&file).unwrap();
        for (change, kind) in [(None, "file-missing"), (Some(0), "file-size"), (Some(bytes.len() / 2), "file-size")] {
            match change {
                None => std::fs::remove_file(&file).unwrap(),
                Some(length) => std::fs::write(&file, &bytes[..length]).unwrap(),
            }
            let (report, code) = verify(copy.folder(), &[]);
            assert_eq!(code, Some(1), "{report:#}");
            assert_eq!(finding_kinds(&report), [format!("{table}: {kind}")].into(), "{report:#}");
            let found = report["findings"][0]["found"].as_str().unwrap();
            assert!(found.contains(file.file_name().unwrap().to_str().unwrap()), "{found}");
        }
        std::fs::write(&file, &bytes).unwrap();
        let (report, code) = verify(copy.folder(), &[]);
        assert_eq!((code, table_report(&report, other)["result"].as_str()), (Some(0), Some("ok")), "{report:#}");
    }
    for table in ["bronze", "page_view"] {
        let copy = TableCopy::of(project.folder.path());
        let file = first_file(&copy, table);
        let mut bytes = std::fs::read(&file).unwrap();
        // The pages are in the middle: the footer stays readable.
        let middle = 4..bytes.len() / 2;
        bytes[middle].fill(0xa5);
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(verify(copy.folder(), &[]).1, Some(0), "no log knows of it");
        let (report, code) = verify(copy.folder(), &["--deep"]);
        assert_eq!(code, Some(1), "{report:#}");
        assert!(finding_kinds(&report).contains(&format!("{table}: file-damaged")), "{report:#}");
    }
}

/// What happens to a data file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Missing,
    Empty,
    CutOff,
    /// Some bytes of its pages are others. The footer stays readable.
    Pages,
}

impl Damage {
    const ALL: [Self; 4] = [Self::Missing, Self::Empty, Self::CutOff, Self::Pages];

    fn inflict(self, file: &Path) -> &'static str {
        let mut bytes = std::fs::read(file).unwrap();
        match self {
            Self::Missing => {
                std::fs::remove_file(file).unwrap();
                return "file-missing";
            }
            Self::Empty => bytes.clear(),
            Self::CutOff => bytes.truncate(bytes.len() / 2),
            Self::Pages => {
                let middle = 4..bytes.len() / 2;
                bytes[middle].fill(0xa5);
            }
        }
        std::fs::write(file, &bytes).unwrap();
        if matches!(self, Self::Pages) { "file-damaged" } else { "file-size" }
    }
}

/// The partitions and offsets of a file's rows.
fn positions(file: &Path, prefix: &str) -> Vec<(i64, i64)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap()).unwrap();
    let mut positions = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let column = |name: &str| {
            let column = batch.column_by_name(&format!("{prefix}{name}")).unwrap();
            arrow::compute::cast(column, &DataType::Int64).unwrap()
        };
        let (partitions, offsets) = (column("partition"), column("offset"));
        let values = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().to_vec();
        positions.extend(values(&partitions).into_iter().zip(values(&offsets)));
    }
    assert!(!positions.is_empty());
    positions
}

/// The only error of a report, which must name the file, its day, and all offsets of its rows.
#[track_caller]
fn affected_file<'r>(report: &'r Value, table: &str, file: &Path, rows: &[(i64, i64)]) -> &'r Value {
    let errors = report["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "error");
    let errors: Vec<_> = errors.collect();
    let [error] = errors[..] else { panic!("one error: {report:#}") };
    assert_eq!(error["table"], table, "{error:#}");
    let (problem, found) = (&error["problem"], error["found"].as_str().unwrap());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(problem["file"].as_str().unwrap().ends_with(name) && found.contains(name), "{error:#}");
    let day = problem["day"].as_str().unwrap();
    assert_eq!(file.parent().unwrap().file_name().unwrap().to_str(), Some(&*format!("event_date={day}")));
    assert!(found.contains(day), "{found}");
    let covers = |(partition, offset): &(i64, i64)| {
        let is_in = |range: &Value| (range["start"].as_i64().unwrap()..range["end"].as_i64().unwrap()).contains(offset);
        let is_of = |range: &&Value| range["partition"].as_str().unwrap().ends_with(&format!(":{partition}"));
        problem["offsets"].as_array().unwrap().iter().filter(is_of).any(is_in)
    };
    assert!(rows.iter().all(covers), "{rows:?}: {error:#}");
    error
}

/// Whatever the damage, the report says what is in the file, and the command that it names makes the rows again.
#[test]
fn damaged_files_of_silver_are_rebuilt_by_the_named_command() {
    let plain = Project::with_commits("damaged");
    let options = TableOptions { dedup_within_s: Some(60), late_after_s: None };
    let deduplicated = Project::with_options("damaged-dedup", "interval = \"200ms\"\nrows_max = 700", options);
    deduplicated.generate(&["--count", "3000", "--seed", "1", "--dup-pct", "20"]);
    deduplicated.silverd(&["run", "--drain"]);
    for (project, damage) in Damage::ALL.into_iter().flat_map(|damage| [(&plain, damage), (&deduplicated, damage)]) {
        let counts = expected::check(project);
        let copy = TableCopy::of(project.folder.path());
        let file = first_file(&copy, "page_view");
        let rows_of_file = positions(&file, "_");
        let kind = damage.inflict(&file);
        let (report, code) = verify(copy.folder(), &["--deep"]);
        let error = affected_file(&report, "page_view", &file, &rows_of_file);
        assert_eq!((code, error["problem"]["kind"].as_str()), (Some(1), Some(kind)), "{damage:?}");
        let day = error["problem"]["day"].as_str().unwrap();
        let help = error["help"].as_str().unwrap();
        assert!(help.contains(&format!("silverd rebuild page_view --from {day} --to {day}")), "{help}");
        let mut rebuild = std::process::Command::new(env!("CARGO_BIN_EXE_silverd"));
        let args = ["rebuild", "page_view", "--from", day, "--to", day];
        let output = rebuild.current_dir(copy.folder()).args(args).output().unwrap();
        assert!(output.status.success(), "{damage:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(rows(&copy.path("page_view")).len(), counts["page_view"], "{damage:?}");
        let (report, code) = verify(copy.folder(), &["--deep"]);
        assert_eq!(code, Some(0), "{damage:?}: {report:#}");
    }
}

/// The rows of Bronze cannot be made again: the report says which offsets to look for in Kafka. No Silver table is
/// compared then, and none is blamed.
#[test]
fn damaged_files_of_bronze_are_reported_with_what_is_lost() {
    let project = Project::with_commits("damaged-bronze");
    // A file of several commits, whose offsets are in the statistics alone.
    let compacted = TableCopy::of(project.folder.path());
    let mut maintain = std::process::Command::new(env!("CARGO_BIN_EXE_silverd"));
    assert!(maintain.current_dir(compacted.folder()).args(["maintain", "bronze"]).status().unwrap().success());
    for (tables, damage) in
        Damage::ALL.into_iter().flat_map(|damage| [(project.folder.path(), damage), (compacted.folder(), damage)])
    {
        let copy = TableCopy::of(tables);
        let file = last_file(&copy, "bronze");
        let rows_of_file = positions(&file, "");
        let kind = damage.inflict(&file);
        let (report, code) = verify(copy.folder(), &["--deep"]);
        let error = affected_file(&report, "bronze", &file, &rows_of_file);
        assert_eq!((code, error["problem"]["kind"].as_str()), (Some(1), Some(kind)), "{damage:?}");
        let help = error["help"].as_str().unwrap();
        assert!(help.contains("Kafka may still have"), "{help}");
        let not_compared: BTreeSet<_> = SILVER.iter().map(|table| format!("{table}: not-compared")).collect();
        assert!(finding_kinds(&report).is_superset(&not_compared), "{damage:?}: {report:#}");
    }
}

/// The data file that a table's last commit with rows added: after a compaction, the compacted one.
fn last_file(copy: &TableCopy, table: &str) -> std::path::PathBuf {
    let actions = (1..=copy.last(table)).flat_map(|version| copy.actions(table, version));
    let path = actions.filter_map(|action| Some(action.get("add")?["path"].as_str()?.to_owned())).next_back();
    copy.path(table).join(path.unwrap())
}
