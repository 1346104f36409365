//! `silverd verify`: it finds nothing in tables as silverd writes them, and finds every kind of tampering.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Project, TableCopy, block_on, expected, finding_kinds, rows, table_report, verify};

/// Verifies a copy, which has exactly these kinds of findings.
#[track_caller]
fn check(copy: &TableCopy, expected: &[&str], code: i32) -> Value {
    let (report, exit_code) = verify(copy.folder(), &[]);
    assert_eq!(finding_kinds(&report), expected.iter().map(|kind| (*kind).to_owned()).collect(), "{report:#}");
    assert_eq!((exit_code, report["ok"].as_bool()), (Some(code), Some(code == 0)));
    report
}

/// Changes what silverd wrote into a commit's info.
fn edit_info(copy: &TableCopy, table: &str, version: u64, edit: impl Fn(&mut Value)) {
    copy.edit(table, version, |action| {
        if let Some(info) = action.get_mut("commitInfo").and_then(|info| info.get_mut("silverd")) {
            edit(info);
        }
    });
}

fn add_to(number: &mut Value, by: i64) {
    *number = json!(number.as_i64().unwrap() + by);
}

#[test]
fn untouched_tables_have_no_findings() {
    let project = Project::with_commits("verified");
    let counts = expected::check(&project);
    let text = project.silverd(&["verify"]);
    println!("{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with("  ok")).count(), 5, "{text}");
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!((code, finding_kinds(&report)), (Some(0), BTreeSet::new()), "{report:#}");
    for (table, count) in &counts {
        assert_eq!(table_report(&report, table)["rows"], *count, "{table}");
    }
    let (report, code) = verify(project.folder.path(), &["page_view"]);
    assert_eq!((code, report["tables"].as_array().unwrap().len()), (Some(0), 3));
    let errors = project.silverd_fails(&["verify", "page_views"], 2);
    assert!(errors.contains("no [silver.page_views]"), "{errors}");
}

#[test]
fn missing_tables_have_no_findings() {
    let project = Project::new("unwritten", "interval = \"200ms\"");
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["tables"][0]["result"], "nothing written yet");
    assert!(!project.folder.path().join("data").exists(), "verify creates no folder");
}

#[test]
fn changed_commits_are_found() {
    let project = Project::with_commits("tampered");
    let copies = || TableCopy::of(project.folder.path());
    check(&copies(), &[], 0);

    let copy = copies();
    edit_info(&copy, "page_view", 2, |info| add_to(&mut info["counts"]["dropped"], 1));
    check(&copy, &["page_view: not-conserved"], 1);

    let copy = copies();
    edit_info(&copy, "page_view", 2, |info| add_to(&mut info["counts"]["rows"], 1));
    check(&copy, &["page_view: rows"], 1);

    for (by, kind) in [(-1, "page_view: overlap"), (1, "page_view: gap")] {
        let copy = copies();
        let last = copy.last("page_view");
        edit_info(&copy, "page_view", last, |info| {
            let (_, range) = info["ranges"].as_object_mut().unwrap().iter_mut().next().unwrap();
            add_to(&mut range[0], by);
        });
        let (report, code) = verify(copy.folder(), &[]);
        // If the offset that was cut off the range has a row, that row is outside the range.
        let mut kinds = finding_kinds(&report);
        kinds.remove("page_view: outside-ranges");
        assert_eq!((code, kinds), (Some(1), [kind.to_owned()].into()), "{report:#}");
        assert_eq!(report["findings"][0]["version"], last);
        assert_eq!(report["findings"][0]["offsets"].as_array().unwrap().len(), 2);
    }

    let copy = copies();
    edit_info(&copy, "bronze", 1, |info| add_to(&mut info["events"], -1));
    check(&copy, &["bronze: events"], 1);

    let copy = copies();
    copy.edit("add_to_cart", 1, |action| {
        let Some(txn) = action.get_mut("txn").filter(|txn| txn["appId"] != "silverd-rejects") else { return };
        add_to(&mut txn["version"], 1);
    });
    check(&copy, &["add_to_cart: txn-mismatch"], 1);

    let copy = copies();
    let last = copy.last("bronze");
    std::fs::remove_file(copy.entry("bronze", last)).unwrap();
    let (report, code) = verify(copy.folder(), &[]);
    assert_eq!(code, Some(1));
    assert!(finding_kinds(&report).contains("page_view: ahead-of-bronze"), "{report:#}");
}

#[test]
fn removed_commits_and_files_are_found() {
    let project = Project::with_commits("removed-from");
    let copies = || TableCopy::of(project.folder.path());

    let copy = copies();
    std::fs::remove_file(copy.entry("order_placed", 2)).unwrap();
    let (report, code) = verify(copy.folder(), &[]);
    assert_eq!(code, Some(1));
    assert!(finding_kinds(&report).contains("order_placed: lost-entries"), "{report:#}");

    // Another writer removes a data file from the table.
    let copy = copies();
    let (last, actions) = (copy.last("page_view"), copy.actions("page_view", 1));
    let add = actions.iter().find_map(|action| action.get("add")).unwrap();
    let remove = json!({ "remove": { "path": add["path"], "dataChange": true, "deletionTimestamp": 1 } });
    copy.write_actions("page_view", last + 1, &[remove]);
    let report = check(&copy, &["page_view: foreign-commit"], 1);
    assert_eq!(report["findings"][0]["version"], last + 1);

    // A commit of the quarantine is lost: the next start publishes its file, if that exists.
    let copy = copies();
    let last = copy.last("quarantine");
    let actions = copy.actions("quarantine", last);
    std::fs::remove_file(copy.entry("quarantine", last)).unwrap();
    check(&copy, &["quarantine: pending"], 0);
    let file = actions.iter().find_map(|action| action.get("add")).unwrap()["path"].as_str().unwrap();
    std::fs::remove_file(copy.path("quarantine").join(file)).unwrap();
    check(&copy, &["quarantine: not-published"], 1);

    let copy = copies();
    std::fs::remove_dir_all(copy.path("quarantine")).unwrap();
    check(&copy, &["quarantine: not-published"], 1);
}

/// A rebuild of a day, in a copy.
#[track_caller]
fn rebuild(copy: &TableCopy, table: &str, day: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silverd"));
    let output =
        command.current_dir(copy.folder()).args(["rebuild", table, "--from", day, "--to", day]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What another writer did to the rows of a day is an error until a rebuild has made them again.
#[test]
fn what_another_writer_changed_is_a_notice_after_a_rebuild() {
    let project = Project::with_commits("foreign");
    let counts = expected::check(&project);
    for adds in [true, false] {
        let copy = TableCopy::of(project.folder.path());
        let (table, last) = (copy.path("page_view"), copy.last("page_view"));
        let actions: Vec<Value> = (1..=last).flat_map(|version| copy.actions("page_view", version)).collect();
        let mut add = actions.iter().find_map(|action| action.get("add")).unwrap().clone();
        let (path, day) = (add["path"].as_str().unwrap().to_owned(), add["partitionValues"]["event_date"].clone());
        let day = day.as_str().unwrap();
        let action = match adds {
            // The rows of a file, a second time.
            true => {
                let (folder, _) = path.rsplit_once('/').unwrap();
                let twice = format!("{folder}/from-elsewhere.parquet");
                std::fs::copy(table.join(&path), table.join(&twice)).unwrap();
                add["path"] = json!(twice);
                json!({ "add": add })
            }
            false => json!({ "remove": { "path": path, "dataChange": true, "deletionTimestamp": 1 } }),
        };
        copy.write_actions("page_view", last + 1, &[action]);
        let report = check(&copy, &["page_view: foreign-commit"], 1);
        let finding = &report["findings"][0];
        assert_eq!((&finding["version"], finding["severity"].as_str()), (&json!(last + 1), Some("error")));
        let help = finding["help"].as_str().unwrap();
        assert!(help.contains(&format!("silverd rebuild TABLE --from {day} --to {day}")), "{help}");

        rebuild(&copy, "page_view", day);
        assert_eq!(rows(&table).len(), counts["page_view"]);
        let report = check(&copy, &["page_view: foreign-commit"], 0);
        let finding = &report["findings"][0];
        assert_eq!((&finding["version"], finding["severity"].as_str()), (&json!(last + 1), Some("notice")));
        let (report, code) = verify(copy.folder(), &["--deep", "--strict"]);
        assert_eq!(code, Some(0), "{report:#}");
    }
}

/// Log cleanup removes the entries before a checkpoint.
#[test]
fn cleaned_up_log_is_verified_from_its_checkpoint() {
    let project = Project::with_commits("cleaned");
    let copy = TableCopy::of(project.folder.path());
    checkpoint(&copy.path("page_view"));
    let last = copy.last("page_view");
    project.generate(&["--count", "1000", "--seed", "9"]);
    let output =
        Command::new(env!("CARGO_BIN_EXE_silverd")).current_dir(copy.folder()).args(["run", "--drain"]).output();
    assert!(output.unwrap().status.success());
    assert!(copy.last("page_view") > last);
    check(&copy, &[], 0);

    copy.edit("page_view", 1, |action| {
        let Some(add) = action.get_mut("add") else { return };
        let mut stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        add_to(&mut stats["numRecords"], 1);
        add["stats"] = json!(stats.to_string());
    });
    check(&copy, &["page_view: rows", "page_view: checkpoint"], 1);

    for version in 0..=last {
        std::fs::remove_file(copy.entry("page_view", version)).unwrap();
    }
    let report = check(&copy, &[], 0);
    let page_view = table_report(&report, "page_view");
    assert_eq!(page_view["checked_from"], last + 1);
    let newest = page_view["version"].as_u64().unwrap();
    edit_info(&copy, "page_view", newest, |info| add_to(&mut info["counts"]["dropped"], 1));
    check(&copy, &["page_view: not-conserved"], 1);
}

pub(super) fn checkpoint(table: &Path) {
    block_on(async {
        let url = url::Url::from_directory_path(table.canonicalize().unwrap()).unwrap();
        let mut table = deltalake_core::DeltaTableBuilder::from_url(url).unwrap().build().unwrap();
        table.load().await.unwrap();
        deltalake_core::checkpoints::create_checkpoint(&table, None).await.unwrap();
    });
}
