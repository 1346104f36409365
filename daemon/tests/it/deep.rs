//! `silverd verify --deep`: what the plugin makes of Bronze is what stands in Silver and in the quarantine, and where it is
//! not, the rows are told.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::harness::{Asked, Project, root};
use super::pipeline::send_odd_ones;
use super::truth;
use super::verify::{Copy, filled, kinds, verify};

#[track_caller]
fn holds(folder: &Path, args: &[&str]) -> Value {
    let (report, code) = verify(folder, &[&["--deep"], args].concat());
    assert_eq!((code, report["findings"].as_array().unwrap().len()), (Some(0), 0), "{report:#}");
    report
}

/// Makes a data file of a table's first commit with rows anew, and tells the log its size.
fn rewrite(copy: &Copy, table: &str, change: impl Fn(RecordBatch) -> RecordBatch) {
    let of_file = |version: &u64| copy.read(table, *version).iter().any(|action| action.get("add").is_some());
    let version = (1..=copy.last(table)).find(of_file).unwrap();
    let actions = copy.read(table, version);
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

/// The batch with another text in its first row.
fn with(batch: RecordBatch, column: &str, text: &str) -> RecordBatch {
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
fn rows_are_what_the_plugin_makes_of_bronze() {
    let project = filled("deep");
    let counts = truth::check(&project);
    println!("{}", project.silverd(&["verify", "--deep"]));
    let report = holds(project.folder.path(), &[]);
    let compared = |table: &str, what: &str| report["compared"][table][what].as_u64().unwrap() as usize;
    for table in truth::SILVER {
        assert_eq!(compared(table, "rows"), counts[table], "{table}");
        assert_eq!(compared(table, "events"), counts[table] + compared(table, "rejects"), "{table}");
    }
    assert_eq!(truth::SILVER.map(|table| compared(table, "rejects")).iter().sum::<usize>(), counts["quarantine"]);
}

#[test]
fn rows_that_were_altered_are_shown() {
    let project = filled("altered");
    let spoilt = || Copy::of(project.folder.path());
    let deep = |copy: &Copy| {
        assert_eq!(verify(copy.0.path(), &[]).1, Some(0), "the logs tell nothing of it");
        let (report, code) = verify(copy.0.path(), &["--deep"]);
        assert_eq!((code, report["findings"].as_array().unwrap().len()), (Some(1), 1), "{report:#}");
        report["findings"][0].clone()
    };

    let copy = spoilt();
    rewrite(&copy, "page_view", |batch| with(batch, "user_id", "somebody else"));
    let finding = deep(&copy);
    let problem = &finding["problem"];
    assert_eq!((&finding["table"], &problem["kind"]), (&json!("page_view"), &json!("content")));
    assert_eq!((&problem["missing"], &problem["unexpected"], &problem["changed"]), (&json!(0), &json!(0), &json!(1)));
    let example = problem["examples"][0].as_str().unwrap();
    assert!(example.contains("offset") && example.contains("found somebody else"), "{example}");
    assert!(example.contains("user_id: expected ") && !example.contains(';'), "{example}");

    let copy = spoilt();
    rewrite(&copy, "order_placed", |batch| batch.slice(1, batch.num_rows() - 1));
    let finding = deep(&copy);
    assert_eq!((&finding["table"], &finding["problem"]["missing"]), (&json!("order_placed"), &json!(1)));

    let copy = spoilt();
    rewrite(&copy, "add_to_cart", |batch| {
        let twice = [batch.clone(), batch.slice(0, 2)];
        arrow::compute::concat_batches(&batch.schema(), &twice).unwrap()
    });
    let finding = deep(&copy);
    assert_eq!((&finding["table"], &finding["problem"]["unexpected"]), (&json!("add_to_cart"), &json!(2)));

    let copy = spoilt();
    rewrite(&copy, "quarantine", |batch| with(batch, "code", "timeout"));
    assert_eq!(deep(&copy)["problem"]["other_code"], 1);

    let copy = spoilt();
    rewrite(&copy, "quarantine", |batch| batch.slice(0, 0));
    let problem = &deep(&copy)["problem"];
    assert_eq!((&problem["kind"], &problem["missing"]), (&json!("rejects"), &json!(1)));
}

/// Duplicates are left out again by the same rule, in the same order; and after a rebuild the rows are the same, from
/// whichever of two equal events.
#[test]
fn tables_without_duplicates_are_compared() {
    let asked = Asked { dedup_within_s: Some(60), late_after_s: Some(60) };
    let project = Project::asking("deep-dedup", "interval_ms = 200\nrows_max = 700", asked);
    for seed in ["1", "1", "2"] {
        project.generate(&["--count", "1500", "--seed", seed, "--dup-pct", "20"]);
        send_odd_ones(&project);
        project.silverd(&["run", "--drain"]);
    }
    truth::check(&project);
    let report = holds(project.folder.path(), &[]);
    let row = report["tables"].as_array().unwrap().iter().find(|row| row["table"] == "page_view").unwrap();
    assert!(row["duplicates"].as_u64().unwrap() > 0, "{row}");
    project.silverd(&["rebuild", "page_view"]);
    project.silverd(&["quarantine", "replay"]);
    let after = holds(project.folder.path(), &[]);
    assert_eq!(after["compared"], report["compared"]);
    let copy = Copy::of(project.folder.path());
    rewrite(&copy, "order_placed", |batch| with(batch, "user_id", "somebody else"));
    assert_eq!(verify(copy.0.path(), &["--deep"]).1, Some(1));
}

/// Rows of a plugin that is not here are told, and not taken for wrong; where it was kept, it judges again.
#[test]
fn another_plugins_rows_are_told() {
    let project = filled("deep-plugins");
    let folder = project.folder.path();
    let wasm = silverd::transform::build::wasm_of(&root().join("plugins/page_view")).unwrap();
    let old = std::fs::read(wasm).unwrap();
    // A custom section more: the same plugin, of another digest.
    let new = [&old[..], &[0, 5, 4, b'n', b'o', b't', b'e']].concat();
    std::fs::write(folder.join("new.wasm"), new).unwrap();
    let pipeline = folder.join("pipeline.toml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, text.replace(&format!("{}/plugins/page_view", root().display()), "new.wasm")).unwrap();
    project.generate(&["--count", "500", "--seed", "4"]);
    project.silverd(&["run", "--drain"]);

    // silverd keeps the plugins that it has loaded.
    let report = holds(folder, &["--strict"]);
    let all = report["compared"]["page_view"]["rows"].as_u64().unwrap();
    let digest = silverd::transform::Digest::of(&old);
    std::fs::remove_file(folder.join(format!("data/.silverd/plugins/{}.wasm", digest.as_str()))).unwrap();

    let (report, code) = verify(folder, &["--deep"]);
    assert_eq!((code, kinds(&report)), (Some(0), ["page_view: not-compared".to_owned()].into()), "{report:#}");
    assert_eq!(verify(folder, &["--deep", "--strict"]).1, Some(1));
    let some = report["compared"]["page_view"]["rows"].as_u64().unwrap();
    assert!(0 < some && some < all, "what the new plugin made is compared: {some} of {all}");

    project.silverd(&["rebuild", "page_view"]);
    holds(folder, &["--strict"]);
}
