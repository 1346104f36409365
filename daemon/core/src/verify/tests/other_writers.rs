//! What other writers do to a table, and how a rebuild mends it.

use serde_json::{Value, json};

use super::*;

/// What another writer adds, in a file of a day.
fn foreign(path: &str, day: &str) -> Vec<Value> {
    let mut add = add(path, 5, None);
    add["add"]["partitionValues"] = json!({ "event_date": day });
    vec![add]
}

/// A rebuild that removes these files of five rows each, and adds none.
fn rebuild(number: i64, days: Option<(i32, i32)>, files: &[&str]) -> Vec<Value> {
    let mut correction = json!({ "kind": "rebuild", "ranges": { "c:t:0": [0, 20] }, "counts": Counts::default(),
        "removed": 5 * files.len(), "kept": 0 });
    if let Some((first, last)) = days {
        correction["days"] = json!([first, last]);
    }
    let plugin = json!({ "interface": "i", "digest": "d" });
    let removed = files.iter().map(|path| json!({ "remove": { "path": path, "dataChange": true } }));
    let commit = [info(json!({ "correction": correction, "plugin": plugin })), txn("silverd-corrections", number)];
    commit.into_iter().chain(removed).collect()
}

/// Days since the epoch.
const MARCH_2_2025: i32 = 20_149;

#[test]
fn a_foreign_commit_is_a_notice_once_its_days_are_rebuilt() {
    const EXPECTED: &str = "expected only silverd adds and removes rows (a compaction must set dataChange = false)";
    let pending = format!("page_view, version 4: a commit of another writer added 5 rows and removed 0; {EXPECTED}");
    let rebuilt = |version: u64| {
        format!(
            "page_view, version 4: a commit of another writer added 5 rows and removed 0; the rebuild in version \
             {version} has replaced the rows of its days; {EXPECTED}"
        )
    };
    let both = || [foreign("x", "2025-03-02"), foreign("y", "2025-03-04")].concat();
    let two_days = |found: &str| found.replace("added 5", "added 10");
    let day = |day: i32| Some((MARCH_2_2025 + day, MARCH_2_2025 + day));
    let folder = "event_date=2025-03-02/x";
    let cases: [(Vec<Vec<Value>>, String); 8] = [
        (vec![foreign("x", "2025-03-02")], pending.clone()),
        (vec![foreign("x", "2025-03-02"), rebuild(1, day(0), &["x"])], rebuilt(5)),
        (vec![foreign("x", "2025-03-02"), rebuild(1, None, &["x"])], rebuilt(5)),
        (vec![foreign("x", "2025-03-02"), rebuild(1, day(1), &[])], pending.clone()),
        // Computed before the foreign commit.
        (vec![foreign("x", "2025-03-02"), rebuild(1, day(0), &[])], pending.clone()),
        (vec![both(), rebuild(1, day(0), &["x"])], two_days(&pending)),
        (vec![both(), rebuild(1, day(0), &["x"]), rebuild(2, day(2), &["y"])], two_days(&rebuilt(6))),
        // The day is in the name of the folder, too.
        (vec![vec![add(folder, 5, None)], rebuild(1, day(0), &[folder])], rebuilt(5)),
    ];
    for (commits, expected) in cases {
        check(|logs| logs.silver.extend(commits), &[&expected]);
    }
    let mut undo = rebuild(1, None, &["x"]);
    undo[0]["commitInfo"]["silverd"]["correction"]["kind"] = json!("undo");
    check(|logs| logs.silver.extend([foreign("x", "2025-03-02"), undo]), &[&pending]);
}

#[test]
fn another_time_zone_is_a_notice_with_a_way_out() {
    let wanted = crate::zone::Zone::parse("Europe/Berlin").expect("a zone");
    let problem = Problem::OtherTimeZone { has: "UTC".to_owned(), wanted };
    let Explanation { found, expected, help, .. } = problem.explain();
    assert_eq!(problem.severity(), Severity::Notice);
    assert!(found.contains("UTC") && expected.contains("Europe/Berlin"), "{found}; {expected}");
    assert!(help.contains("`silverd rebuild TABLE`"), "{help}");
    assert_eq!(json!(problem), json!({ "kind": "other-time-zone", "has": "UTC", "wanted": "Europe/Berlin" }));
}

#[test]
fn the_help_for_a_foreign_commit_names_its_days() {
    let days = Some(["2025-03-02".to_owned(), "2025-03-04".to_owned()]);
    let problem = |days, rebuilt_in| Problem::ForeignCommit { added: 1, removed: 0, days, rebuilt_in };
    let help = problem(days.clone(), None).explain().help;
    assert!(help.contains("`silverd rebuild TABLE --from 2025-03-02 --to 2025-03-04`"), "{help}");
    assert!(problem(None, None).explain().help.contains("`silverd rebuild TABLE`"));
    let rebuilt = problem(days, Some(7));
    assert_eq!(rebuilt.severity(), Severity::Notice);
    assert!(rebuilt.explain().help.starts_with("nothing: "));
}

/// The log starts with a checkpoint that has none of the application ids.
#[test]
fn progress_that_the_log_has_lost_is_set_again_by_a_rebuild() {
    let logs = simple();
    let correction = |end: i64| {
        let counts = Counts { events: 70, with_rows: 49, rows: 49, dropped: 14, rejected: 7, ..Counts::default() };
        let correction = json!({ "kind": "rebuild", "ranges": { "c:t:0": [0, 40], "c:t:1": [0, 10] }, "counts": counts,
            "removed": 40, "kept": 0, "progress": true });
        let removed = ["s-1", "s-2"].map(|path| json!({ "remove": { "path": path, "dataChange": true } }));
        let mut commit = vec![
            info(json!({ "correction": correction, "plugin": { "interface": "i", "digest": "d" } })),
            txn("silverd-corrections", 1),
            txn(APP[0], 40),
            txn(APP[1], end),
            txn("silverd-rejects", 2),
            add("rebuilt", 49, Some([(0, 1), (0, 39)])),
        ];
        commit.extend(removed);
        commit
    };
    let verify = |correction: Vec<Value>| {
        let (mut b, mut s, mut q) = verifiers();
        let mut checkpoint = TableState::at(2);
        checkpoint.add_file("s-1", Some("{\"numRecords\": 24}"));
        checkpoint.add_file("s-2", Some("{\"numRecords\": 16}"));
        checkpoint.table_id = Some("silver-id".to_owned());
        s.start_at(checkpoint);
        // The rest of the log comes one version later.
        let mut log = logs.silver.clone();
        log.insert(3, correction);
        entries(&log)[3..].iter().for_each(|entry| s.apply(entry));
        entries(&logs.quarantine).iter().for_each(|entry| q.apply(entry));
        entries(&logs.bronze).iter().for_each(|entry| b.apply(entry));
        s.finish(&b);
        q.check_announcements("silver-id", s.announcements(&SideOutputKind::QUARANTINE), false);
        q.finish(Some(&["silver-id".to_owned()]));
        assert_eq!((s.lag(&b, |_| true), &q.findings().list[..]), (0, &[][..]));
        let spans: Vec<_> = s.attribution().iter().map(|(log, range, _)| format!("{log} {range}")).collect();
        assert_eq!(spans, ["c:t:0 0..45", "c:t:1 0..30"]);
        s.findings().list.clone()
    };
    assert_eq!(verify(correction(10)), []);
    let found = verify(correction(9));
    assert!(matches!(found[..], [Finding { problem: Problem::TxnMismatch { .. }, .. }]), "{found:?}");
}

/// Another engine's checkpoint has left them out.
#[test]
fn progress_that_is_set_again_from_older_commits_must_be_the_same() {
    let again = |ids: Vec<Value>| [ids, vec![info(json!({ "maintenance": { "restored": 2 } }))]].concat();
    check(|logs| logs.silver.push(again(vec![txn(APP[0], 45), txn("silverd-rejects", 3)])), &[]);
    check(|logs| logs.bronze.push(again(vec![txn(APP[0], 45), txn(APP[1], 30)])), &[]);
    check(|logs| logs.quarantine.push(again(vec![txn(SIDE_APP, 3), txn(UNROUTED_APP[0], 45)])), &[]);
    check(
        |logs| logs.bronze.push(again(vec![txn(APP[0], 44)])),
        &["bronze, version 4: `silverd:c:t:0` is set to 44; expected 45, the end of the commit's range"],
    );
    // A log that starts with such a checkpoint.
    let logs = simple();
    let mut bronze = BronzeVerifier::new("bronze");
    bronze.start_at(TableState::at(3));
    let mut log = logs.bronze;
    log.push(again(vec![txn(APP[0], 45), txn(APP[1], 30)]));
    entries(&log)[4..].iter().for_each(|entry| bronze.apply(entry));
    bronze.finish();
    assert_eq!((&bronze.findings().list[..], bronze.next().len()), (&[][..], 2));
}
