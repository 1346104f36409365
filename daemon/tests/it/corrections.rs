//! Corrections of history: rebuilds of days, of tables, and of the rows of a plugin version, also with the version of an
//! earlier time; replays of the quarantine, also when they are killed.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use chrono::{DateTime, SecondsFormat};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::harness::{
    Project, SILVER, TableOptions, actions, commit_as_other_engine, entries, expected, finding_kinds, root, rows,
    table_report, verify,
};
use super::reload;

/// Days since the epoch.
const FIRST_OF_MARCH_2025: i64 = 20_148;

/// Events of the first three days of March 2025, a hundred an hour.
fn carts() -> impl Iterator<Item = String> {
    (0..7200).map(|at| {
        format!(
            "{{\"event_type\": \"add_to_cart\", \"event_id\": \"cart-{at}\", \"user_id\": \"u\", \"sku\": \"SKU-{:05}\", \
             \"qty\": 1, \"price\": 2.5, \"ts\": \"2025-03-{:02}T{:02}:00:00Z\"}}",
            at % 500 + 1,
            at / 2400 + 1,
            at / 100 % 24
        )
    })
}

/// Lets the plugins use a copy of the products, or one in which every category is `wrong`, except for the products of the
/// plugins' own cases.
fn set_products(project: &Project, right: bool) {
    let csv = std::fs::read_to_string(root().join("data/reference/products.csv")).unwrap();
    let wrong = |line: &str| match line.split(',').next().unwrap() {
        "SKU-00001" | "SKU-00412" => format!("{line}\n"),
        sku => format!("{sku},wrong,x\n"),
    };
    let mut lines = csv.lines();
    let header = lines.next().unwrap();
    let text = if right { csv.clone() } else { format!("{header}\n{}", lines.map(wrong).collect::<String>()) };
    std::fs::write(project.folder.path().join("products.csv"), text).unwrap();
    let shipped = format!("{}/data/reference/products.csv", root().display());
    project.write_pipeline(&project.pipeline().replace(&shipped, "products.csv"));
}

/// The days that have rows with a wrong category.
fn wrong_days(project: &Project, table: &str) -> Vec<i64> {
    let rows = rows(&project.path(table)).into_iter().filter(|row| row["category"] == "wrong");
    let mut days: Vec<i64> = rows.map(|row| row["event_date"].as_i64().unwrap()).collect();
    days.sort_unstable();
    days.dedup();
    days
}

#[test]
fn rebuild_replaces_the_rows_of_some_days_or_all() {
    let project = Project::new("rebuild", "interval = \"100ms\"\nrows_max = 900");
    set_products(&project, false);
    project.send_lines(carts());
    project.generate(&["--count", "3000", "--seed", "4"]);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    let march = [0, 1, 2].map(|day| FIRST_OF_MARCH_2025 + day);
    assert_eq!(wrong_days(&project, "add_to_cart")[..3], march);

    set_products(&project, true);
    let day = ["rebuild", "add_to_cart", "--from", "2025-03-02", "--to", "2025-03-02"];
    let printed = project.silverd(&[&day[..], &["--dry-run"]].concat());
    assert!(printed.contains("would replace 2400 rows by 2400"), "{printed}");
    assert_eq!(wrong_days(&project, "add_to_cart")[..3], march);
    let printed = project.silverd(&day);
    assert!(printed.contains("replaces 2400 rows by 2400"), "{printed}");
    assert_eq!(wrong_days(&project, "add_to_cart")[..2], [march[0], march[2]]);
    project.silverd(&["rebuild", "add_to_cart"]);
    project.silverd(&["rebuild", "order_placed"]);
    assert!(wrong_days(&project, "add_to_cart").is_empty());
    let counts = expected::check(&project);
    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts, "the daemon continues where it was");

    let errors = project.silverd_fails(&["rebuild", "nonsense"], 2);
    assert!(errors.contains("has no [silver.nonsense]") && errors.contains("page_view, add_to_cart"), "{errors}");
}

/// Installs a plugin with one more custom section, so that it has another digest, which is returned.
fn install_version(project: &Project, plugin: &str, name: &str) -> String {
    let built = root().join(format!("plugins/target/wasm32-unknown-unknown/release/{plugin}.wasm"));
    let mut bytes = std::fs::read(built).unwrap();
    bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
    bytes.extend(name.as_bytes());
    std::fs::write(project.folder.path().join(format!("{plugin}.wasm")), &bytes).unwrap();
    silverd::plugin::Digest::of(&bytes).as_str().to_owned()
}

#[test]
fn rebuild_replaces_the_rows_of_a_plugin_version() {
    let project = Project::new("undo", "interval = \"100ms\"\nrows_max = 700");
    project.use_plugin_file("add_to_cart", "add_to_cart.wasm");
    install_version(&project, "add_to_cart", "good");
    project.generate(&["--count", "4000", "--seed", "1"]);
    project.silverd(&["run", "--drain"]);
    set_products(&project, false);
    let bad = install_version(&project, "add_to_cart", "bad");
    project.generate(&["--count", "4000", "--seed", "2"]);
    project.silverd(&["run", "--drain"]);
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad[..12]], 1);
    assert!(errors.contains("still runs version"), "{errors}");
    set_products(&project, true);
    install_version(&project, "add_to_cart", "better");
    project.generate(&["--count", "4000", "--seed", "3"]);
    project.silverd(&["run", "--drain"]);
    assert!(!wrong_days(&project, "add_to_cart").is_empty());

    let printed = project.silverd(&["rebuild", "--written-by", &bad[..12]]);
    assert!(printed.contains("\nadd_to_cart: version"), "{printed}");
    assert!(printed.contains("order_placed: no commit is by version"), "{printed}");
    assert!(wrong_days(&project, "add_to_cart").is_empty());
    // This table had the wrong products, too.
    project.silverd(&["rebuild", "order_placed"]);
    let counts = expected::check(&project);
    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts);
    // Also with the earlier name of the command.
    for args in [["rebuild", "--written-by", "00112233"], ["undo", "--plugin", "00112233"]] {
        let errors = project.silverd_fails(&args, 2);
        assert!(errors.contains("no commit of these tables"), "{errors}");
    }
}

/// A table `hits` whose rows hold the contents of the reference file given.txt.
fn project_with_given(name: &str) -> Project {
    let project = reload::project(name, "[commit]\ninterval = \"100ms\"\n");
    let time = "event_time = \"ts\"\n";
    project.replace_in_pipeline(time, &format!("{time}reference = {{ given = \"given.txt\" }}\n"));
    project
}

fn set_given(project: &Project, given: &str) {
    std::fs::write(project.folder.path().join("given.txt"), given).unwrap();
}

/// Writes rows of these events with this reference file. Returns what `plugin history` says of the version.
fn serve(project: &Project, given: &str, events: Range<u32>) -> Value {
    set_given(project, given);
    reload::send(project, events.map(|number| format!("e{number}")));
    project.silverd(&["run", "--drain"]);
    project.plugin_history("hits").pop().unwrap()
}

/// The version of a span, as `--written-by` takes it, and a time at which it served.
fn version_and_time(span: &Value) -> (String, String) {
    let short = |digest: &Value| digest.as_str().unwrap()[..12].to_owned();
    let time = DateTime::from_timestamp_millis(span["last_at_ms"].as_i64().unwrap()).unwrap();
    let version = format!("{}+{}", short(&span["digest"]), short(&span["given"]));
    (version, time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The number of rows by the reference file that they were made with.
fn rows_by_given(project: &Project) -> Vec<String> {
    let rows = project.query("select given, count(*) as n from hits group by given order by given");
    rows.iter().map(|row| format!("{}={}", row["given"].as_str().unwrap(), row["n"])).collect()
}

/// Whatever the reference files are now.
#[test]
fn rebuild_uses_the_version_that_served_at_an_earlier_time() {
    let project = project_with_given("as-of");
    let first = serve(&project, "first", 0..10);
    let second = serve(&project, "second", 10..20);
    serve(&project, "third", 20..30);
    let all = ["first=10", "second=10", "third=10"];
    assert_eq!(rows_by_given(&project), all);

    let (version, time) = version_and_time(&second);
    let printed = project.silverd(&["rebuild", "hits", "--as-of", &time, "--dry-run"]);
    let served = format!("hits: as of {time}, plugin {version} served: commit {} ", second["last_version"]);
    assert!(printed.contains(&served) && printed.contains("would replace 30 rows by 30"), "{printed}");
    assert_eq!(rows_by_given(&project), all);
    let printed = project.silverd(&["rebuild", "hits", "--as-of", &time]);
    assert!(printed.contains("replaces 30 rows by 30"), "{printed}");
    assert_eq!(rows_by_given(&project), ["second=30"]);
    project.silverd(&["verify", "--deep", "--strict"]);
    let (_, commit) = entries(&project.path("hits")).pop_last().unwrap();
    let info = std::fs::read_to_string(commit).unwrap();
    assert!(info.contains(&format!("\"as_of\":{}", second["last_at_ms"])), "{info}");

    // The daemon continues with the current ones, which also serve a rebuild without a time.
    serve(&project, "third", 30..40);
    assert_eq!(rows_by_given(&project), ["second=30", "third=10"]);
    project.silverd(&["rebuild", "hits"]);
    assert_eq!(rows_by_given(&project), ["third=40"]);
    project.silverd(&["verify", "--deep", "--strict"]);

    let errors = project.silverd_fails(&["rebuild", "hits", "--as-of", "2025-01-31"], 1);
    let (_, first_time) = version_and_time(&project.plugin_history("hits")[0]);
    let since = &first_time[..10];
    assert!(errors.contains("no version that served at 2025-01-31T00:00:00Z") && errors.contains(since), "{errors}");
    let errors = project.silverd_fails(&["rebuild", "hits", "--as-of", "yesterday"], 2);
    assert!(errors.contains("a time such as 2026-11-23T17:30:00Z, or a day such as 2026-11-23"), "{errors}");

    // What it had is gone, and then its file.
    let (_, time) = version_and_time(&first);
    for (folder, digest) in [("given", &first["given"]), ("plugins", &first["digest"])] {
        std::fs::remove_dir_all(project.folder.path().join("data/.silverd").join(folder)).unwrap();
        let errors = project.silverd_fails(&["rebuild", "hits", "--as-of", &time], 1);
        let place = format!("data/.silverd/{folder}");
        assert!(errors.contains(digest.as_str().unwrap()) && errors.contains(&place), "{errors}");
    }
    assert_eq!(rows_by_given(&project), ["third=40"]);
}

#[test]
fn rebuild_replaces_the_rows_of_one_reference_file() {
    let project = project_with_given("undo-given");
    let good = serve(&project, "good", 0..10);
    let bad = serve(&project, "bad", 10..20);
    let (bad, bad_time) = version_and_time(&bad);
    let (_, good_time) = version_and_time(&good);
    // It still serves.
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad], 1);
    assert!(errors.contains(&format!("still runs version {bad}")), "{errors}");
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad, "--as-of", &bad_time], 1);
    assert!(errors.contains("name another time"), "{errors}");
    let printed = project.silverd(&["rebuild", "--written-by", &bad, "--as-of", &good_time, "--dry-run"]);
    assert!(printed.contains("would replace 10 rows by 10"), "{printed}");

    let (better, _) = version_and_time(&serve(&project, "better", 20..30));
    // All that the plugin wrote has the current settings, too.
    let digest = &bad[..12];
    let errors = project.silverd_fails(&["rebuild", "--written-by", digest], 1);
    let other = format!("--written-by {bad}");
    assert!(errors.contains("still runs version") && errors.contains(&other), "{errors}");
    let printed = project.silverd(&["rebuild", "--written-by", &bad]);
    assert!(printed.contains("replaces 10 rows by 10"), "{printed}");
    assert_eq!(rows_by_given(&project), ["better=20", "good=10"]);
    project.silverd(&["verify", "--deep", "--strict"]);
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad], 2);
    assert!(errors.contains("known to be by version"), "{errors}");
    // With what it made again.
    let printed = project.silverd(&["undo", "--plugin", &better, "--as-of", &good_time]);
    assert!(printed.contains("replaces 20 rows by 20"), "{printed}");
    assert_eq!(rows_by_given(&project), ["good=30"]);
    project.silverd(&["verify", "--deep", "--strict"]);
}

/// Replaces the rows of a version with those of another reference file. Returns what is printed.
fn rebuild_written_by(project: &Project, version: &str, given: &str) -> String {
    set_given(project, given);
    project.silverd(&["rebuild", "hits", "--written-by", version])
}

/// Other versions wrote events between the first and the last one of this version.
#[test]
fn rebuild_of_what_a_version_wrote_leaves_the_rows_of_others() {
    let project = project_with_given("undo-exact");
    let (first, _) = version_and_time(&serve(&project, "first", 0..40));
    serve(&project, "second", 40..80);
    serve(&project, "first", 80..120);
    let (third, _) = version_and_time(&serve(&project, "third", 120..160));
    let printed = rebuild_written_by(&project, &first, "third");
    assert!(printed.contains("replaces 80 rows by 80"), "{printed}");
    assert_eq!(rows_by_given(&project), ["second=40", "third=120"]);
    project.silverd(&["verify", "--deep", "--strict"]);

    // The version that made these rows again.
    let printed = rebuild_written_by(&project, &third, "fourth");
    assert!(printed.contains("replaces 120 rows by 120"), "{printed}");
    assert_eq!(rows_by_given(&project), ["fourth=120", "second=40"]);
    project.silverd(&["verify", "--deep", "--strict"]);
    project.silverd(&["rebuild", "hits"]);
    assert_eq!(rows_by_given(&project), ["fourth=160"]);
}

/// A rebuild of a day is by the version that made it, as far as its rows reach.
#[test]
fn rows_of_a_rebuilt_day_are_of_the_version_that_rebuilt_it() {
    let project = project_with_given("undo-days");
    let serve_three_days = |given: &str, events: Range<u32>| {
        set_given(&project, given);
        project.send_lines(events.map(|number| {
            let day = 16 + number % 3;
            format!(r#"{{"event_type": "page_view", "event_id": "e{number}", "ts": "2025-08-{day}T14:50:49Z"}}"#)
        }));
        project.silverd(&["run", "--drain"]);
        version_and_time(&project.plugin_history("hits").pop().unwrap()).0
    };
    let first = serve_three_days("first", 0..30);
    serve_three_days("second", 30..60);
    set_given(&project, "third");
    let printed = project.silverd(&["rebuild", "hits", "--from", "2025-08-17", "--to", "2025-08-17"]);
    assert!(printed.contains("replaces 20 rows by 20"), "{printed}");
    assert_eq!(rows_by_given(&project), ["first=20", "second=20", "third=20"]);
    let (third, _) = version_and_time(&project.plugin_history("hits").pop().unwrap());
    let history = project.silverd(&["plugin", "history", "hits"]);
    assert!(history.contains("  rebuild, 1 commit: 20 events: 20 rows, 0 dropped"), "{history}");
    assert!(!history.contains("  0 events"), "{history}");

    let printed = rebuild_written_by(&project, &first, "fourth");
    assert!(printed.contains("replaces 20 rows by 20"), "{printed}");
    assert_eq!(rows_by_given(&project), ["fourth=20", "second=20", "third=20"]);
    let printed = rebuild_written_by(&project, &third, "fifth");
    assert!(printed.contains("replaces 20 rows by 20"), "{printed}");
    assert_eq!(rows_by_given(&project), ["fifth=20", "fourth=20", "second=20"]);
    project.silverd(&["verify", "--deep"]);
}

#[test]
fn replayed_rows_are_of_the_version_that_replayed_them() {
    let project = project_with_given("undo-replayed");
    set_given(&project, "first rejects-boom");
    reload::send(&project, (0..40).map(|number| format!("{}{number}", if number % 4 == 0 { "boom" } else { "e" })));
    project.silverd(&["run", "--drain"]);
    let (first, _) = version_and_time(&project.plugin_history("hits").pop().unwrap());
    set_given(&project, "second");
    let printed = project.silverd(&["quarantine", "replay"]);
    assert!(printed.contains("hits: 10 of 10 events resolved (10 rows)"), "{printed}");
    let (second, _) = version_and_time(&project.plugin_history("hits").pop().unwrap());
    let history = project.silverd(&["plugin", "history", "hits"]);
    assert!(history.contains("  replay of the quarantine, 1 commit: 10 events: 10 rows, 0 dropped"), "{history}");

    let printed = rebuild_written_by(&project, &first, "third");
    assert!(printed.contains("replaces 30 rows by 30"), "{printed}");
    assert_eq!(rows_by_given(&project), ["second=10", "third=30"]);
    project.silverd(&["verify", "--deep", "--strict"]);
    let printed = rebuild_written_by(&project, &second, "fourth");
    assert!(printed.contains("replaces 10 rows by 10"), "{printed}");
    assert_eq!(rows_by_given(&project), ["fourth=10", "third=30"]);
    project.silverd(&["verify", "--deep", "--strict"]);
}

/// A log that an earlier silverd wrote names only the first and the last event of a correction.
#[test]
fn rows_whose_version_the_log_does_not_name_stay() {
    let project = project_with_given("undo-bounds");
    let (first, _) = version_and_time(&serve(&project, "first", 0..40));
    serve(&project, "second", 40..80);
    serve(&project, "first", 80..120);
    let (third, _) = version_and_time(&serve(&project, "third", 120..160));
    rebuild_written_by(&project, &first, "third");
    let (_, commit) = entries(&project.path("hits")).pop_last().unwrap();
    let without_events = |mut action: Value| {
        if let Some(correction) = action.pointer_mut("/commitInfo/silverd/correction").and_then(Value::as_object_mut) {
            correction.remove("event_ranges").unwrap();
        }
        action.to_string() + "\n"
    };
    let text: String = actions(&commit).into_iter().map(without_events).collect();
    std::fs::write(&commit, text).unwrap();
    let printed = rebuild_written_by(&project, &third, "fourth");
    assert!(printed.contains("hits: the log does not say which version wrote the rows of "), "{printed}");
    assert!(printed.contains("replaces 40 rows by 40"), "{printed}");
    assert_eq!(rows_by_given(&project), ["fourth=40", "second=40", "third=80"]);
}

/// One table that refuses stops none of the others.
#[test]
fn rebuild_of_what_a_version_wrote_treats_every_table() {
    let project = reload::project("undo-tables", "[commit]\ninterval = \"100ms\"\n");
    project.append_to_pipeline(
        "[silver.more]\nplugin = \"hits.wasm\"\nmatch = { field = \"event_type\", equals = \"page_view\" }\n\
         event_time = \"ts\"\n",
    );
    for (label, events) in [("one", 0..20), ("two", 20..40)] {
        reload::install(&project, &reload::version(label));
        reload::send(&project, events.map(|number| format!("e{number}")));
        project.silverd(&["run", "--drain"]);
    }
    let one = silverd::plugin::Digest::of(&reload::version("one")).as_str()[..12].to_owned();
    project.silverd(&["plugin", "deploy", "hits", "--digest", &one]);
    let output = project.output(&["rebuild", "--written-by", &one]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(err.contains("hits: not rebuilt: table hits still runs version"), "{err}");
    assert!(err.contains("1 of 2 tables refused the rebuild, each for the reason above: hits"), "{err}");
    assert!(out.contains("more: version ") && out.contains("replaces 20 rows by 20"), "{out}");
    let by_version = |table: &str| {
        let rows =
            project.query(&format!("select version, count(*) as n from {table} group by version order by version"));
        rows.iter().map(|row| format!("{}={}", row["version"].as_str().unwrap(), row["n"])).collect::<Vec<_>>()
    };
    assert_eq!(
        (by_version("hits"), by_version("more")),
        (vec!["one=20".into(), "two=20".into()], vec!["two=40".into()])
    );
    // All of its rows there are replaced.
    let errors = project.silverd_fails(&["rebuild", "more", "--written-by", &one], 2);
    assert!(errors.contains("known to be by version"), "{errors}");
}

/// Adds the rows of a table's first data file again, with offsets that no event has, as another program does. Returns their day
/// and their number.
fn insert_far_away(project: &Project, table: &str, name: &str) -> (String, usize) {
    let path = project.path(table);
    let entries = entries(&path);
    let mut all = entries.values().flat_map(|entry| actions(entry));
    let mut add = all.find_map(|action| action.get("add").cloned()).unwrap();
    let file = std::fs::File::open(path.join(add["path"].as_str().unwrap())).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(|batch| far_away(&batch.unwrap())).collect();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let day = add["partitionValues"]["event_date"].as_str().unwrap().to_owned();
    add["path"] = json!(format!("event_date={day}/{name}.parquet"));
    add["size"] = json!(bytes.len());
    add["stats"] = json!(json!({ "numRecords": rows }).to_string());
    std::fs::write(path.join(add["path"].as_str().unwrap()), bytes).unwrap();
    commit_as_other_engine(&path, &[json!({ "add": add })]);
    (day, rows)
}

/// The rows of a batch, with offsets that no event has.
fn far_away(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, values)| -> ArrayRef {
        if field.name() != "_offset" {
            return values.clone();
        }
        let offsets = values.as_primitive::<Int64Type>().values().iter();
        Arc::new(Int64Array::from_iter_values(offsets.map(|offset| offset + 1_000_000)))
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

/// What `verify` advises after another program's INSERT, whatever the rows say of their origin.
#[test]
fn rebuild_removes_rows_that_silverd_cannot_have_written() {
    let project = reload::project("foreign-rows", "[commit]\ninterval = \"100ms\"\n");
    reload::send(&project, (0..20).map(|number| format!("e{number}")));
    project.silverd(&["run", "--drain"]);
    let (day, inserted) = insert_far_away(&project, "hits", "one");
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!((code, finding_kinds(&report)), (Some(1), ["hits: foreign-commit".to_owned()].into()), "{report:#}");
    let days = ["rebuild", "hits", "--from", day.as_str(), "--to", day.as_str()];
    let printed = project.silverd(&[&days[..], &["--dry-run"]].concat());
    let events = format!("the rows of {inserted} events would be removed that bronze never had");
    assert!(printed.contains(&events), "{printed}");
    assert_eq!(reload::hits(&project), 20 + inserted);
    let printed = project.silverd(&days);
    let events = format!("the rows of {inserted} events are removed that bronze never had");
    assert!(printed.contains(&events), "{printed}");
    assert_eq!(reload::hits(&project), 20);
    project.silverd(&["verify", "--deep", "--strict"]);

    insert_far_away(&project, "hits", "two");
    let printed = project.silverd(&["rebuild", "hits"]);
    assert!(printed.contains("are removed that bronze never had"), "{printed}");
    assert_eq!(reload::hits(&project), 20);
    project.silverd(&["verify", "--deep", "--strict"]);
}

/// silverd may have written these rows: they are given up only if somebody asks for it.
#[test]
fn rows_whose_events_bronze_has_lost_are_removed_on_request_alone() {
    let project = reload::project("lost-events", "[commit]\ninterval = \"100ms\"\n");
    for events in [0..20, 20..40] {
        reload::send(&project, events.map(|number| format!("e{number}")));
        project.silverd(&["run", "--drain"]);
    }
    let bronze = project.path("bronze");
    let mut all = entries(&bronze).into_values().flat_map(|entry| actions(&entry));
    let add = all.find_map(|action| action.get("add").cloned()).unwrap();
    commit_as_other_engine(
        &bronze,
        &[json!({ "remove": { "path": add["path"], "dataChange": true, "deletionTimestamp": 1 } })],
    );
    let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    let lost = stats["numRecords"].as_u64().unwrap() as usize;

    let errors = project.silverd_fails(&["rebuild", "hits"], 1);
    assert!(errors.contains(&format!("bronze does not have {lost} of the 40 events")), "{errors}");
    assert!(errors.contains("With --remove-lost, the rebuild gives these rows up"), "{errors}");
    assert_eq!(reload::hits(&project), 40);
    let printed = project.silverd(&["rebuild", "hits", "--remove-lost"]);
    assert!(printed.contains(&format!("the rows of {lost} events are removed that bronze does not have")), "{printed}");
    assert_eq!(reload::hits(&project), 40 - lost);
}

/// Adds every data file of a table to its log a second time.
fn add_twice(table: &Path) {
    let all: Vec<Value> = entries(table).values().flat_map(|entry| actions(entry)).collect();
    let path = |action: &Value, kind: &str| Some(action.get(kind)?["path"].as_str()?.to_owned());
    let removed: Vec<String> = all.iter().filter_map(|action| path(action, "remove")).collect();
    let is_live = |action: &&Value| path(action, "add").is_some_and(|path| !removed.contains(&path));
    let twice = all.iter().filter(is_live).enumerate().map(|(number, action)| {
        let path = path(action, "add").unwrap();
        let (folder, _) = path.rsplit_once('/').unwrap();
        let again = format!("{folder}/again-{number}.parquet");
        std::fs::copy(table.join(&path), table.join(&again)).unwrap();
        let mut action = action.clone();
        action["add"]["path"] = json!(again);
        action
    });
    commit_as_other_engine(table, &twice.collect::<Vec<_>>());
}

/// As after progress that was lost unnoticed: every reject and every late event is there a second time.
#[test]
fn full_rebuild_removes_rejects_and_late_events_that_are_there_twice() {
    let options = TableOptions { dedup_within_s: None, late_after_s: Some(60) };
    let project = Project::with_options("doubled", "interval = \"100ms\"\nrows_max = 700", options);
    project.generate(&["--count", "2000", "--seed", "5"]);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    let counts = expected::check(&project);
    let count = |table: &str| rows(&project.path(table)).len();
    for table in ["late", "quarantine"] {
        add_twice(&project.path(table));
        assert_eq!(count(table), 2 * counts[table], "{table}");
    }
    let printed = project.silverd(&["rebuild", "page_view", "--dry-run"]);
    assert!(printed.contains("would be removed that the table late had a second time"), "{printed}");
    assert_eq!(count("late"), 2 * counts["late"]);
    let printed: String = SILVER.map(|table| project.silverd(&["rebuild", table])).concat();
    for table in ["late", "quarantine"] {
        assert!(printed.contains(&format!("are removed that the table {table} had a second time")), "{printed}");
    }
    assert_eq!(expected::check(&project), counts);
    let (report, _) = verify(project.folder.path(), &[]);
    let foreign = ["late", "quarantine"].map(|table| format!("{table}: foreign-commit"));
    assert_eq!(finding_kinds(&report), foreign.into(), "{report:#}");
    // Once is enough.
    let printed = project.silverd(&["rebuild", "page_view"]);
    assert!(!printed.contains("second time"), "{printed}");
}

/// A pipeline with one table, `hits`, whose plugin panics on the events that `fault` selects.
fn set_fault(project: &Project, fault: &str) {
    project.write_pipeline(&format!(
        "[source]\nbrokers = \"{}\"\ntopic = \"{}\"\n\n[commit]\ninterval = \"50ms\"\nrows_max = 500\n\n\
         [silver.hits]\nplugin = \"{}/plugins/fixtures/hostile\"\n\
         match = {{ field = \"event_type\", equals = \"hit\" }}\nevent_time = \"ts\"\nlate_after = \"1d\"\n\
         dedup = {{ by = [\"event_id\"], within = \"1h\" }}\nsettings = {{ fault = \"panic\", {fault} }}\n",
        project.broker.address(),
        project.topic,
        root().display()
    ));
}

const NO_FAULT: &str = "event = \"none\"";

fn hit(number: i64) -> String {
    format!(
        "{{\"event_type\": \"hit\", \"event_id\": \"hit-{number}\", \"number\": {number}, \
         \"ts\": \"2025-03-{:02}T{:02}:00:00Z\"}}",
        number / 100 % 28 + 1,
        number % 24
    )
}

fn hits(project: &Project) -> usize {
    rows(&project.path("hits")).len()
}

#[test]
fn quarantined_events_become_rows_once_the_plugin_accepts_them() {
    let project = Project::new("replay", "interval = \"100ms\"");
    set_fault(&project, "every = 10");
    let malformed = || "{\"event_type\": \"hit\", \"broken\": tru}".to_owned();
    let events = || (0..2000).map(hit).chain([malformed()]);
    project.send_lines(events());
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 1800);
    quarantine_is_listed(&project);

    // The same events again, of which the quarantined ones become rows: their first copies are duplicates then.
    set_fault(&project, NO_FAULT);
    project.send_lines(events());
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 2000);
    let printed = project.silverd(&["quarantine", "replay", "--code", "trap"]);
    assert!(printed.contains("hits: 200 of 200 events resolved (0 rows), 0 rejected again"), "{printed}");
    let printed = project.silverd(&["quarantine", "replay"]);
    assert!(printed.contains("hits: 0 of 2 events resolved (0 rows), 2 rejected again"), "{printed}");

    // Without second copies, the quarantined events become rows, once.
    set_fault(&project, "every = 10");
    project.send_lines((5000..6000).map(hit));
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 2900);
    let late = rows(&project.path("late")).len();
    set_fault(&project, NO_FAULT);
    let printed = project.silverd(&["quarantine", "replay", "--table", "hits", "--code", "trap"]);
    assert!(printed.contains("hits: 100 of 100 events resolved (100 rows), 0 rejected again"), "{printed}");
    let printed = project.silverd(&["quarantine", "replay", "--code", "trap"]);
    assert!(printed.contains("hits: no unresolved events"), "{printed}");
    assert_eq!(hits(&project), 3000);
    assert_eq!(rows(&project.path("late")).len(), late + 100, "a replayed event is late, too");
    let quarantine = rows(&project.path("quarantine"));
    let resolved_as = |resolution: &str| quarantine.iter().filter(|row| row["resolution"] == resolution).count();
    assert_eq!((resolved_as("duplicate"), resolved_as("row")), (200, 100));
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 3000);
}

/// The outcomes in the line of a table are those of the events when they arrived, and add up; those of corrections have numbers
/// of their own.
#[test]
fn totals_add_up_after_a_rebuild_with_new_rejects() {
    let project = reload::project("totals", "[commit]\ninterval = \"100ms\"\n");
    reload::send(
        &project,
        (0..20).map(|number| format!("e{number}")).chain((0..5).map(|number| format!("boom{number}"))),
    );
    project.silverd(&["run", "--drain"]);
    reload::install(&project, &reload::version("two rejects-boom"));
    project.silverd(&["rebuild", "hits"]);
    assert_eq!((reload::hits(&project), rows(&project.path("quarantine")).len()), (20, 5));
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
    let table = table_report(&report, "hits");
    let number = |key: &str| table[key].as_u64().unwrap_or_else(|| panic!("{key} in {table:#}"));
    assert_eq!(number("events"), 25);
    let outcomes = ["with_rows", "dropped", "duplicates", "quarantined"].map(number);
    assert_eq!(outcomes.iter().sum::<u64>(), number("events"), "{table:#}");
    assert_eq!((number("quarantined_by_corrections"), number("rows")), (5, 20));
    let printed = project.silverd(&["verify"]);
    assert!(printed.contains("and sent 5 events to the quarantine and 0 to the late table"), "{printed}");
}

/// 200 events on which the plugin panicked, and a malformed one.
fn quarantine_is_listed(project: &Project) {
    let listed = project.silverd(&["quarantine", "list", "--json", "--limit", "500"]);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.len(), 201);
    let panicked = listed.iter().find(|event| event["code"] == "trap").unwrap();
    let shown = project.silverd(&["quarantine", "show", panicked["id"].as_str().unwrap()]);
    assert!(shown.contains("\"event_type\": \"hit\"") && shown.contains("panicked at"), "{shown}");
    assert!(project.silverd(&["quarantine", "list", "--code", "malformed"]).contains("hits/"));
}

/// Also if a replay is killed between the commit of the rows and the one that marks the events as resolved.
#[test]
fn killed_replays_write_rows_once() {
    let project = Project::new("replay-kill", "interval = \"100ms\"");
    for round in 0..8i64 {
        set_fault(&project, "every = 5");
        project.send_lines((round * 500..(round + 1) * 500).map(hit));
        project.silverd(&["run", "--drain"]);
        set_fault(&project, NO_FAULT);
        // Killed later each time, until a replay ends before it: the kills hit every part of it.
        let mut time = Duration::from_millis(20 + 7 * round as u64);
        loop {
            let mut replay = project.command(&["quarantine", "replay"]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(time);
            let has_ended = replay.try_wait().unwrap().is_some();
            let _ = replay.kill();
            replay.wait().unwrap();
            project.silverd(&["verify"]);
            if has_ended {
                break;
            }
            time = time * 5 / 4;
        }
        assert!(project.silverd(&["quarantine", "replay"]).contains("hits: no unresolved events"));
        assert_eq!(hits(&project) as i64, (round + 1) * 500);
    }
    let quarantine = rows(&project.path("quarantine"));
    assert_eq!(quarantine.len(), 800);
    assert!(quarantine.iter().all(|row| row["resolution"] == "row"));
}

/// A quarantine may be larger than memory: it is replayed in parts, each in a commit of its own.
#[test]
fn large_quarantines_are_replayed_in_parts() {
    let project = reload::project("replay-parts", "[commit]\ninterval = \"200ms\"\n");
    reload::install(&project, &reload::version("one rejects-all"));
    reload::send(&project, (0..250_000).map(|n| format!("e{n}")));
    project.silverd(&["run", "--drain"]);
    assert_eq!(reload::hits(&project), 0);
    reload::install(&project, &reload::version("two rejects-boom"));
    let printed = project.silverd(&["quarantine", "replay"]);
    assert!(printed.contains("hits: 250000 of 250000 events resolved (250000 rows), 0 rejected again"), "{printed}");
    assert_eq!(reload::hits(&project), 250_000);
    let history = project.query("SELECT count(*) AS n FROM quarantine WHERE resolution = 'row'");
    assert_eq!(history[0]["n"], 250_000);
    project.silverd(&["verify", "--deep"]);
    let is_replay = |entry: &PathBuf| std::fs::read_to_string(entry).unwrap().contains("\"replay\"");
    let commits = entries(&project.path("hits")).into_values().filter(is_replay).count();
    assert!(commits > 1, "{commits} commits");
}
