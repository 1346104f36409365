//! `silverd verify`: clean tables hold, and each kind of tampering is found and told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::harness::Project;
use super::pipeline::send_odd_ones;
use super::truth;

/// A project whose tables have some commits each, with rejects.
pub fn filled(name: &str) -> Project {
    let project = Project::new(name, "interval_ms = 200\nrows_max = 1000");
    for seed in ["1", "2", "3"] {
        project.generate(&["--count", "1500", "--seed", seed]);
        send_odd_ones(&project);
        project.silverd(&["run", "--drain"]);
    }
    project
}

/// What `verify --json` says, and how it ends, in a folder.
pub fn verify(folder: &Path, args: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silverd"));
    let output = command.current_dir(folder).args(["verify", "--json"]).args(args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|failure| panic!("{failure}: {told}"));
    (report, output.status.code())
}

pub fn kinds(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            for text in ["found", "expected", "help"] {
                assert!(finding[text].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
            }
            format!("{}: {}", finding["table"].as_str().unwrap(), finding["problem"]["kind"].as_str().unwrap())
        })
        .collect()
}

/// A copy of a project's tables that may be spoilt.
pub struct Copy(pub tempfile::TempDir);

impl Copy {
    pub fn of(folder: &Path) -> Self {
        let copy = tempfile::tempdir().unwrap();
        let status = Command::new("cp").arg("-r").arg(folder.join(".")).arg(copy.path()).status().unwrap();
        assert!(status.success());
        Self(copy)
    }

    pub fn path(&self, table: &str) -> PathBuf {
        let path = match table {
            "bronze" => "data/bronze/events".to_owned(),
            "quarantine" => "data/quarantine".to_owned(),
            silver => format!("data/silver/{silver}"),
        };
        self.0.path().join(path)
    }

    pub fn entry(&self, table: &str, version: u64) -> PathBuf {
        self.path(table).join(format!("_delta_log/{version:020}.json"))
    }

    pub fn last(&self, table: &str) -> u64 {
        (0..).find(|version| !self.entry(table, version + 1).exists()).unwrap()
    }

    pub fn read(&self, table: &str, version: u64) -> Vec<Value> {
        let text = std::fs::read_to_string(self.entry(table, version)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn write(&self, table: &str, version: u64, actions: &[Value]) {
        let text: String = actions.iter().map(|action| format!("{action}\n")).collect();
        std::fs::write(self.entry(table, version), text).unwrap();
    }

    /// Changes what an entry says.
    pub fn edit(&self, table: &str, version: u64, edit: impl Fn(&mut Value)) {
        let mut actions = self.read(table, version);
        let before = actions.clone();
        actions.iter_mut().for_each(edit);
        assert_ne!(actions, before, "nothing was changed in version {version} of {table}");
        self.write(table, version, &actions);
    }

    #[track_caller]
    fn check(&self, expected: &[&str], code: i32) -> Value {
        let (report, ended) = verify(self.0.path(), &[]);
        assert_eq!(kinds(&report), expected.iter().map(|kind| (*kind).to_owned()).collect(), "{report:#}");
        assert_eq!((ended, report["holds"].as_bool()), (Some(code), Some(code == 0)));
        report
    }
}

fn silverd_info(action: &mut Value, edit: impl FnOnce(&mut Value)) {
    if let Some(info) = action.get_mut("commitInfo").and_then(|info| info.get_mut("silverd")) {
        edit(info);
    }
}

pub fn add_to(number: &mut Value, by: i64) {
    *number = json!(number.as_i64().unwrap() + by);
}

#[test]
fn clean_tables_hold() {
    let project = filled("verified");
    let counts = truth::check(&project);
    let text = project.silverd(&["verify"]);
    println!("{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with("  holds")).count(), 5, "{text}");
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!((code, kinds(&report)), (Some(0), BTreeSet::new()), "{report:#}");
    let rows = |table: &str| {
        let row = report["tables"].as_array().unwrap().iter().find(|row| row["table"] == table).unwrap();
        row["rows"].as_u64().unwrap() as usize
    };
    for (table, count) in &counts {
        assert_eq!(rows(table), *count, "{table}");
    }
    let (report, code) = verify(project.folder.path(), &["page_view"]);
    assert_eq!((code, report["tables"].as_array().unwrap().len()), (Some(0), 3));
    let output = project.output(&["verify", "page_views"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no [silver.page_views]"));
}

#[test]
fn tables_that_are_not_there_yet_hold() {
    let project = Project::new("unwritten", "interval_ms = 200");
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["tables"][0]["verdict"], "nothing written yet");
    assert!(!project.folder.path().join("data").exists(), "verify makes no folder");
}

#[test]
fn tampering_is_found() {
    let project = filled("tampered");
    let spoilt = || Copy::of(project.folder.path());
    spoilt().check(&[], 0);

    let copy = spoilt();
    copy.edit("page_view", 2, |action| silverd_info(action, |info| add_to(&mut info["counts"]["dropped"], 1)));
    copy.check(&["page_view: not-conserved"], 1);

    let copy = spoilt();
    copy.edit("page_view", 2, |action| silverd_info(action, |info| add_to(&mut info["counts"]["rows"], 1)));
    copy.check(&["page_view: rows"], 1);

    for (by, kind) in [(-1, "page_view: overlap"), (1, "page_view: gap")] {
        let copy = spoilt();
        let last = copy.last("page_view");
        copy.edit("page_view", last, |action| {
            silverd_info(action, |info| {
                let (_, range) = info["ranges"].as_object_mut().unwrap().iter_mut().next().unwrap();
                add_to(&mut range[0], by);
            });
        });
        let (report, ended) = verify(copy.0.path(), &[]);
        // A row of the offset that the range lost is outside of it, too; not every offset has one.
        let kinds: Vec<String> = kinds(&report).into_iter().filter(|kind| kind != "page_view: outside").collect();
        assert_eq!((ended, &kinds[..]), (Some(1), &[kind.to_owned()][..]), "{report:#}");
        assert_eq!(report["findings"][0]["version"], last);
        assert_eq!(report["findings"][0]["offsets"].as_array().unwrap().len(), 2);
    }

    let copy = spoilt();
    copy.edit("bronze", 1, |action| silverd_info(action, |info| add_to(&mut info["events"], -1)));
    copy.check(&["bronze: events"], 1);

    let copy = spoilt();
    copy.edit("add_to_cart", 1, |action| {
        let Some(txn) = action.get_mut("txn").filter(|txn| txn["appId"] != "silverd-rejects") else { return };
        add_to(&mut txn["version"], 1);
    });
    copy.check(&["add_to_cart: progress"], 1);

    let copy = spoilt();
    let last = copy.last("bronze");
    std::fs::remove_file(copy.entry("bronze", last)).unwrap();
    let (report, code) = verify(copy.0.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(kinds(&report).contains("page_view: ahead-of-bronze"), "{report:#}");
}

#[test]
fn what_is_removed_is_found() {
    let project = filled("removed-from");
    let spoilt = || Copy::of(project.folder.path());

    let copy = spoilt();
    std::fs::remove_file(copy.entry("order_placed", 2)).unwrap();
    let (report, code) = verify(copy.0.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(kinds(&report).contains("order_placed: lost-entries"), "{report:#}");

    // By another hand: a file of rows is removed from the table.
    let copy = spoilt();
    let (last, actions) = (copy.last("page_view"), copy.read("page_view", 1));
    let add = actions.iter().find_map(|action| action.get("add")).unwrap();
    let remove = json!({ "remove": { "path": add["path"], "dataChange": true, "deletionTimestamp": 1 } });
    copy.write("page_view", last + 1, &[remove]);
    let report = copy.check(&["page_view: stranger"], 1);
    assert_eq!(report["findings"][0]["version"], last + 1);

    // A commit of the quarantine: its file waits for the next start, unless it is gone, too.
    let copy = spoilt();
    let last = copy.last("quarantine");
    let actions = copy.read("quarantine", last);
    std::fs::remove_file(copy.entry("quarantine", last)).unwrap();
    copy.check(&["quarantine: pending"], 0);
    let file = actions.iter().find_map(|action| action.get("add")).unwrap()["path"].as_str().unwrap();
    std::fs::remove_file(copy.path("quarantine").join(file)).unwrap();
    copy.check(&["quarantine: unsettled"], 1);

    let copy = spoilt();
    std::fs::remove_dir_all(copy.path("quarantine")).unwrap();
    copy.check(&["quarantine: unsettled"], 1);
}

/// Log clean-up leaves a checkpoint, and takes the entries before it.
#[test]
fn a_cleaned_log_is_proven_from_its_checkpoint_on() {
    let project = filled("cleaned");
    let spoilt = || Copy::of(project.folder.path());
    let copy = spoilt();
    checkpoint(&copy.path("page_view"));
    let last = copy.last("page_view");
    project.generate(&["--count", "1000", "--seed", "9"]);
    let moved =
        Command::new(env!("CARGO_BIN_EXE_silverd")).current_dir(copy.0.path()).args(["run", "--drain"]).output();
    assert!(moved.unwrap().status.success());
    assert!(copy.last("page_view") > last);
    copy.check(&[], 0);

    copy.edit("page_view", 1, |action| {
        let Some(add) = action.get_mut("add") else { return };
        let mut stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        add_to(&mut stats["numRecords"], 1);
        add["stats"] = json!(stats.to_string());
    });
    copy.check(&["page_view: rows", "page_view: checkpoint"], 1);

    for version in 0..=last {
        std::fs::remove_file(copy.entry("page_view", version)).unwrap();
    }
    let report = copy.check(&[], 0);
    let row = report["tables"].as_array().unwrap().iter().find(|row| row["table"] == "page_view").unwrap();
    assert_eq!(row["proven_from"], last + 1);
    let newest = report["tables"][1]["version"].as_u64().unwrap();
    copy.edit("page_view", newest, |action| silverd_info(action, |info| add_to(&mut info["counts"]["dropped"], 1)));
    copy.check(&["page_view: not-conserved"], 1);
}

fn checkpoint(table: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = url::Url::from_directory_path(table.canonicalize().unwrap()).unwrap();
        let mut table = deltalake_core::DeltaTableBuilder::from_url(url).unwrap().build().unwrap();
        table.load().await.unwrap();
        deltalake_core::checkpoints::create_checkpoint(&table, None).await.unwrap();
    });
}
