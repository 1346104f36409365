//! `silverd repair`: a damaged data file of Bronze costs at most its own events, and silverd goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use silverd::source::EmbeddedBroker;

use super::harness::tables::{LogPosition, Row, position};
use super::harness::{
    Broker, Daemon, PARTITIONS, Project, SILVER, actions, entries, expected, finding_kinds, rows, table_report, verify,
};

/// What happens to a data file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Missing,
    Empty,
    CutOff,
    Zeros,
    /// Some bytes of its pages are others. The footer stays readable.
    Pages,
}

impl Damage {
    const ALL: [Self; 5] = [Self::Missing, Self::Empty, Self::CutOff, Self::Zeros, Self::Pages];

    fn inflict(self, file: &Path) {
        let mut bytes = std::fs::read(file).unwrap();
        match self {
            Self::Missing => return std::fs::remove_file(file).unwrap(),
            Self::Empty => bytes.clear(),
            Self::CutOff => bytes.truncate(bytes.len() / 2),
            Self::Zeros => bytes.fill(0),
            Self::Pages => {
                let middle = 4..bytes.len() / 2;
                bytes[middle].fill(0xa5);
            }
        }
        std::fs::write(file, &bytes).unwrap();
    }
}

/// The live data files of a table, in the order in which they were added.
fn live_files(table: &Path) -> Vec<PathBuf> {
    let mut live = Vec::new();
    for action in entries(table).values().flat_map(|entry| actions(entry)) {
        let path = |name: &str| action.get(name).map(|action| table.join(action["path"].as_str().unwrap()));
        if let Some(removed) = path("remove") {
            live.retain(|file| *file != removed);
        }
        live.extend(path("add"));
    }
    live
}

/// The rows of a table, by their positions.
fn by_position(table: &Path, prefix: &str) -> BTreeMap<LogPosition, Row> {
    let all = rows(table);
    let count = all.len();
    let by_position: BTreeMap<_, _> = all.into_iter().map(|row| (position(&row, prefix), row)).collect();
    assert_eq!(by_position.len(), count, "an event is there twice");
    by_position
}

/// What silverd wrote into the info of Bronze's newest commit, and its operation.
fn newest_commit(project: &Project) -> (String, Value) {
    let entry = entries(&project.path("bronze")).into_values().next_back().unwrap();
    let info = actions(&entry).into_iter().find_map(|action| action.get("commitInfo").cloned()).unwrap();
    (info["operation"].as_str().unwrap().to_owned(), info["silverd"].clone())
}

/// Verifies the folder without an error, and returns the kinds of the findings.
#[track_caller]
fn verify_ok(project: &Project, args: &[&str]) -> (Value, BTreeSet<String>) {
    let (report, code) = verify(project.folder.path(), args);
    assert_eq!(code, Some(0), "{report:#}");
    let kinds = finding_kinds(&report);
    (report, kinds)
}

/// Lets the table page_view be filled again from Bronze, in another folder.
fn fill_again(project: &Project) -> PathBuf {
    project.replace_in_pipeline("data/silver/page_view", "data/silver/again");
    project.folder.path().join("data/silver/again")
}

#[test]
fn records_that_kafka_still_has_are_read_again() {
    let project = Project::with_commits("repair");
    let bronze = project.path("bronze");
    let counts = expected::check(&project);
    let before = by_position(&bronze, "");
    for (at, damage) in Damage::ALL.into_iter().enumerate() {
        let files = live_files(&bronze);
        let file = files[at % files.len()].clone();
        damage.inflict(&file);
        let log = entries(&bronze).len();
        let shown = project.silverd(&["repair", "--dry-run"]);
        assert!(shown.contains("would be read again from Kafka") && shown.contains("nothing was changed"), "{shown}");
        assert_eq!(live_files(&bronze), files, "{damage:?}");
        assert_eq!((entries(&bronze).len(), bronze.join("_damaged").exists()), (log, at > 1), "{damage:?}");

        let shown = project.silverd(&["repair"]);
        assert!(shown.contains(file.file_name().unwrap().to_str().unwrap()), "{shown}");
        assert!(shown.contains("bronze: 0 events are recorded as lost\n"), "{shown}");
        assert!(by_position(&bronze, "") == before, "{damage:?}: the records are not those from before");
        let (operation, info) = newest_commit(&project);
        assert_eq!((operation.as_str(), &info["repair"]["lost_events"]), ("REPAIR", &Value::from(0)), "{info:#}");
        let moved = bronze.join("_damaged").join(file.file_name().unwrap());
        assert_eq!((file.exists(), moved.exists()), (false, damage != Damage::Missing), "{damage:?}");
        assert_eq!(verify_ok(&project, &["--deep"]).1, BTreeSet::new(), "{damage:?}");
        assert_eq!(expected::check(&project), counts);
    }
    // A file that has the records of several commits.
    project.silverd(&["maintain", "bronze"]);
    let file = live_files(&bronze).into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    Damage::CutOff.inflict(&file);
    project.silverd(&["repair", "bronze"]);
    assert!(by_position(&bronze, "") == before);
    assert_eq!(verify_ok(&project, &["--deep"]).1, BTreeSet::new());
    assert!(project.silverd(&["repair"]).contains("bronze: no file is damaged"));
    // Maintenance and the pipeline go on.
    project.silverd(&["maintain"]);
    project.generate(&["--count", "500", "--seed", "9"]);
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    assert_eq!(verify_ok(&project, &["--deep"]).1, BTreeSet::new());
}

/// Several damaged files with records of the same offsets are repaired in one commit.
#[test]
fn all_damaged_files_are_repaired_at_once() {
    let project = Project::with_commits("repair-all");
    let bronze = project.path("bronze");
    let before = by_position(&bronze, "");
    for (at, file) in live_files(&bronze).iter().enumerate() {
        Damage::ALL[at % Damage::ALL.len()].inflict(file);
    }
    let log = entries(&bronze).len();
    project.silverd(&["repair"]);
    assert_eq!(entries(&bronze).len(), log + 1);
    assert!(by_position(&bronze, "") == before);
    assert_eq!(verify_ok(&project, &["--deep"]).1, BTreeSet::new());
}

/// A table that has to read a damaged file stops alone, says what helps, and goes on after it.
#[test]
fn a_table_behind_a_damaged_file_goes_on_after_the_repair() {
    let project = Project::with_commits("repair-behind");
    let page_views = rows(&project.path("page_view")).len();
    Damage::Zeros.inflict(&live_files(&project.path("bronze"))[0]);
    let again = fill_again(&project);
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("`silverd repair bronze`"), "{errors}");

    let mut daemon = Daemon::start(&project);
    daemon.until_logged("`silverd repair bronze`", 1);
    let others = rows(&project.path("add_to_cart")).len();
    project.generate(&["--count", "500", "--seed", "9"]);
    daemon.until("rows of the other tables", |_| rows(&project.path("add_to_cart")).len() > others);
    project.silverd(&["repair", "bronze"]);
    daemon.until("the rows of the table", |_| again.join("_delta_log").is_dir() && rows(&again).len() >= page_views);
    daemon.stop();
    project.silverd(&["run", "--drain"]);
    let (report, kinds) = verify_ok(&project, &["--deep"]);
    assert!(kinds.iter().all(|kind| kind == "quarantine: former-table"), "{report:#}");
}

/// What is before the first offset of a partition is lost: it is recorded, and reported as a notice from then on. Tables go on
/// without it.
#[test]
fn what_kafka_has_deleted_is_recorded_as_lost() {
    let project = Project::with_commits("repair-deleted");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker deletes no records");
        return;
    }
    const DELETED: i64 = 100;
    let bronze = project.path("bronze");
    let before = by_position(&bronze, "");
    let is_lost = |(partition, offset): &LogPosition| *partition == 0 && *offset < DELETED;
    let lost = before.keys().filter(|position| is_lost(position)).count();
    assert_eq!(lost, DELETED as usize);
    let page_views = by_position(&project.path("page_view"), "_");
    live_files(&bronze).iter().for_each(|file| Damage::CutOff.inflict(file));
    project.broker.delete_records(&project.topic, 0, DELETED);
    let shown = project.silverd(&["repair", "bronze"]);
    assert!(shown.contains(&format!("bronze: {DELETED} events are recorded as lost (")), "{shown}");
    let after = by_position(&bronze, "");
    assert_eq!(after.len() + lost, before.len());
    assert!(after.iter().all(|(position, row)| before[position] == *row));

    let again = fill_again(&project);
    for args in [&[] as &[&str], &["--deep"]] {
        let (report, kinds) = verify_ok(&project, args);
        assert!(kinds.contains("bronze: known-lost"), "{report:#}");
        let findings = report["findings"].as_array().unwrap();
        let problem = &findings.iter().find(|finding| finding["table"] == "bronze").unwrap()["problem"];
        assert_eq!(problem["events"], DELETED, "{report:#}");
        let offsets = problem["offsets"].as_array().unwrap();
        assert_eq!(offsets.len(), 1, "{report:#}");
        assert!(offsets[0]["start"] == 0 && offsets[0]["end"] == DELETED, "{report:#}");
        assert_eq!(table_report(&report, "bronze")["result"], "ok, 1 notice");
    }
    project.silverd(&["run", "--drain"]);
    let left: BTreeSet<_> = page_views.keys().filter(|position| !is_lost(position)).copied().collect();
    assert_eq!(by_position(&again, "_").into_keys().collect::<BTreeSet<_>>(), left);
    let (report, _) = verify_ok(&project, &["--deep"]);
    assert_eq!(table_report(&report, "page_view")["lag"], 0, "{report:#}");
    assert!(project.silverd(&["repair", "bronze"]).contains("bronze: no file is damaged"));
}

/// Another cluster is no reason to give records up, unless somebody says so.
#[test]
fn records_of_another_cluster_are_given_up_on_request_only() {
    let mut project = Project::with_commits("repair-cluster");
    let bronze = project.path("bronze");
    let before = by_position(&bronze, "");
    let page_views = rows(&project.path("page_view")).len();
    let address = project.broker.address();
    project.broker = Broker::Embedded(EmbeddedBroker::start(&project.topic, PARTITIONS).unwrap());
    project.replace_in_pipeline(&address, &project.broker.address());
    live_files(&bronze).iter().for_each(|file| Damage::CutOff.inflict(file));
    let log = entries(&bronze).len();
    let errors = project.silverd_fails(&["repair"], 1);
    assert!(errors.contains("is the cluster") && errors.contains("--accept-loss"), "{errors}");
    assert_eq!(entries(&bronze).len(), log);

    let shown = project.silverd(&["repair", "--accept-loss", "bronze"]);
    assert!(shown.contains(&format!("bronze: {} events are recorded as lost (", before.len())), "{shown}");
    assert_eq!(rows(&bronze).len(), 0);
    for args in [&[] as &[&str], &["--deep"]] {
        assert_eq!(verify_ok(&project, args).1, BTreeSet::from(["bronze: known-lost".to_owned()]));
    }
    assert_eq!(rows(&project.path("page_view")).len(), page_views);
    // Tables that are filled from the start pass the lost offsets, and have what comes later.
    let again = fill_again(&project);
    project.generate(&["--count", "500", "--seed", "9"]);
    project.silverd(&["run", "--drain"]);
    let (report, kinds) = verify_ok(&project, &["--deep"]);
    assert!(kinds.contains("bronze: known-lost"), "{report:#}");
    assert_eq!(rows(&bronze).len(), 500);
    assert!(!rows(&again).is_empty());
    for table in SILVER {
        assert_eq!(table_report(&report, table)["lag"], 0, "{table}: {report:#}");
    }
}

/// The rows of other tables are made of Bronze's records: the command for that is named.
#[test]
fn damaged_files_of_other_tables_are_named_with_what_helps() {
    let project = Project::with_commits("repair-others");
    let counts = expected::check(&project);
    Damage::Zeros.inflict(&live_files(&project.path("page_view"))[0]);
    let output = project.output(&["repair"]);
    let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{shown}{errors}");
    assert!(errors.contains("1 damaged file is left"), "{errors}");
    assert!(
        shown.contains("bronze: no file is damaged") && shown.contains("add_to_cart: no file is damaged"),
        "{shown}"
    );
    let command = shown.split('`').find(|text| text.starts_with("silverd rebuild page_view --from ")).unwrap();
    project.silverd(&command.split(' ').skip(1).collect::<Vec<_>>());
    assert_eq!(rows(&project.path("page_view")).len(), counts["page_view"]);
    project.silverd(&["repair"]);
}

/// A damaged file of the state folder costs what it held, and is set aside.
#[test]
fn damaged_files_of_the_state_folder_end_nothing() {
    let project = Project::with_commits("repair-state");
    let state = project.folder.path().join("data/.silverd");
    for name in ["page_view.json", "page_view.rejected.json", "page_view.rebuild.json"] {
        std::fs::write(state.join("held").join(name), [0; 20]).unwrap();
    }
    let mut damaged = Vec::new();
    for (folder, damage) in [("plugins", Damage::Zeros), ("given", Damage::Empty), ("compiled", Damage::CutOff)] {
        for file in std::fs::read_dir(state.join(folder)).unwrap() {
            let file = file.unwrap().path();
            damage.inflict(&file);
            damaged.push(file);
        }
    }
    assert!(damaged.len() >= 3, "{damaged:?}");
    project.generate(&["--count", "500", "--seed", "9"]);
    let output = project.output(&["run", "--drain"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    for name in ["page_view.json", "page_view.rejected.json", "page_view.rebuild.json"] {
        assert!(log.contains(&format!("{name} is damaged")), "{name}: {log}");
        assert!(state.join("held").join(format!("{name}.damaged")).is_file(), "{name}");
    }
    expected::check(&project);
    assert_eq!(verify_ok(&project, &["--deep", "--strict"]).1, BTreeSet::new());
}
