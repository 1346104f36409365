//! Verification of generated Delta logs, valid and damaged.

mod other_writers;

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::counts::Counts;
use crate::offsets::Ranges;

/// A table's log as lines of JSON, one vector for each version.
type Log = Vec<Vec<Value>>;

const APP: [&str; 2] = ["silverd:c:t:0", "silverd:c:t:1"];
const SIDE_APP: &str = "silverd-quarantine:silver-id";
const UNROUTED_APP: [&str; 2] = ["silverd-unrouted:c:t:0", "silverd-unrouted:c:t:1"];

fn created(id: &str) -> Vec<Value> {
    vec![json!({ "metaData": { "id": id } }), json!({ "protocol": { "minReaderVersion": 1 } })]
}

fn add(path: &str, rows: u64, bounds: Option<[(i64, i64); 2]>) -> Value {
    let stats = match bounds {
        Some([partitions, offsets]) => json!({
            "numRecords": rows,
            "minValues": { "_partition": partitions.0, "_offset": offsets.0, "event_id": "a" },
            "maxValues": { "_partition": partitions.1, "_offset": offsets.1, "ts": "2025-01-01T00:00:00Z" },
        }),
        None => json!({ "numRecords": rows }),
    };
    json!({ "add": { "path": path, "stats": stats.to_string(), "dataChange": true, "size": 1 } })
}

fn info(info: Value) -> Value {
    json!({ "commitInfo": { "operation": "WRITE", "silverd": info } })
}

fn txn(id: &str, version: i64) -> Value {
    json!({ "txn": { "appId": id, "version": version } })
}

/// The offsets that a commit covers, of two partitions.
type Commit = [(i64, i64); 2];

fn ranges(commit: Commit) -> Value {
    let covered = commit.iter().enumerate().filter(|(_, (start, end))| start < end);
    covered.map(|(at, (start, end))| (APP[at]["silverd:".len()..].to_owned(), json!([start, end]))).collect()
}

fn progress(ids: [&str; 2], commit: Commit) -> Vec<Value> {
    commit.iter().enumerate().filter(|(_, (start, end))| start < end).map(|(at, (_, end))| txn(ids[at], *end)).collect()
}

fn bounds(commit: Commit) -> Option<[(i64, i64); 2]> {
    let covered: Vec<_> = commit.iter().enumerate().filter(|(_, (start, end))| start < end).collect();
    let (first, last) = (covered.first()?.0 as i64, covered.last()?.0 as i64);
    let start = covered.iter().map(|(_, range)| range.0).min()?;
    let end = covered.iter().map(|(_, range)| range.1).max()?;
    Some([(first, last), (start, end - 1)])
}

fn events(commit: Commit) -> u64 {
    commit.iter().map(|(start, end)| (end - start) as u64).sum()
}

/// Outcomes that depend on the offset: of ten, one is dropped, one rejected, one a duplicate, and one has two rows.
fn outcomes(commit: Commit) -> Counts {
    let mut counts = Counts::default();
    for offset in commit.iter().flat_map(|(start, end)| *start..*end) {
        counts.events += 1;
        match offset % 10 {
            0 => counts.dropped += 1,
            3 => counts.rejected += 1,
            6 => counts.duplicates += 1,
            other => {
                counts.with_rows += 1;
                counts.rows += 1 + u64::from(other == 9);
            }
        }
    }
    counts
}

/// The events that no table takes: one of eleven offsets.
fn unrouted(commit: Commit) -> u64 {
    commit.iter().flat_map(|(start, end)| *start..*end).filter(|offset| offset % 11 == 5).count() as u64
}

/// The quarantine's commits of unrouted events, after the one that switched them on.
fn unrouted_log(commits: &[Commit], start: Value) -> Log {
    let mut switch = vec![txn("silverd-unrouted", 1)];
    let txns = start.as_object().expect("offsets").iter();
    switch.extend(txns.map(|(log, next)| txn(&format!("silverd-unrouted:{log}"), next.as_i64().expect("an offset"))));
    switch.push(info(json!({ "table": "unrouted", "rejected": 0, "switched": "on", "start": start })));
    let mut log = vec![switch];
    for commit in commits {
        let (mut entry, rejected) = (progress(UNROUTED_APP, *commit), unrouted(*commit));
        let ranges = ranges(*commit);
        entry.push(info(json!({ "table": "unrouted", "rejected": rejected, "ranges": ranges, "routing": "r" })));
        entry.extend((rejected > 0).then(|| add(&format!("u-{}", log.len()), rejected, bounds(*commit))));
        log.push(entry);
    }
    log
}

struct Logs {
    bronze: Log,
    silver: Log,
    quarantine: Log,
}

/// The logs of tables whose commits cover the same offsets with different boundaries.
fn logs(bronze: &[Commit], silver: &[Commit]) -> Logs {
    let mut logs =
        Logs { bronze: vec![created("b")], silver: vec![created("silver-id")], quarantine: vec![created("q")] };
    for commit in bronze {
        let mut entry = progress(APP, *commit);
        entry.push(info(json!({ "ranges": ranges(*commit), "events": events(*commit) })));
        entry.push(add(&format!("b-{}", logs.bronze.len()), events(*commit), bounds(*commit)));
        logs.bronze.push(entry);
    }
    for commit in silver {
        let (counts, mut entry) = (outcomes(*commit), progress(APP, *commit));
        let mut silverd_info = json!({ "ranges": ranges(*commit), "counts": counts, "rejects": null,
            "plugin": { "interface": "i", "digest": "d" } });
        if counts.rejected > 0 {
            let (number, path) = (logs.quarantine.len() as i64, format!("q-{}", logs.quarantine.len()));
            entry.push(txn("silverd-rejects", number));
            silverd_info["rejects"] = json!({ "path": path, "rows": counts.rejected, "size": 1 });
            logs.quarantine.push(vec![
                txn(SIDE_APP, number),
                info(json!({ "table": "page_view", "rejected": counts.rejected })),
                add(&path, counts.rejected, None),
            ]);
        }
        entry.push(info(silverd_info));
        if counts.rows > 0 {
            entry.push(add(&format!("s-{}", logs.silver.len()), counts.rows, bounds(*commit)));
        }
        logs.silver.push(entry);
    }
    logs.quarantine.extend(unrouted_log(bronze, json!({})));
    logs
}

fn entries(log: &Log) -> Vec<Entry> {
    let text = |entry: &Vec<Value>| entry.iter().map(|line| format!("{line}\n")).collect::<String>();
    log.iter().enumerate().map(|(at, entry)| Entry::parse(at as u64, text(entry).as_bytes()).expect("JSON")).collect()
}

fn verifiers() -> (BronzeVerifier, SilverVerifier, SideOutputVerifier) {
    let quarantine = SideOutputVerifier::new(&SideOutputKind::QUARANTINE);
    (BronzeVerifier::new("bronze"), SilverVerifier::new("page_view"), quarantine)
}

fn verify_entries(bronze: &[Entry], silver: &[Entry], quarantine: &[Entry]) -> Vec<Finding> {
    let (mut b, mut s, mut q) = verifiers();
    silver.iter().for_each(|entry| s.apply(entry));
    quarantine.iter().for_each(|entry| q.apply(entry));
    bronze.iter().for_each(|entry| b.apply(entry));
    b.finish();
    s.finish(&b);
    q.check_announcements(s.id(), s.announcements(&SideOutputKind::QUARANTINE), false);
    q.check_unrouted(&b);
    q.finish(Some(&[s.id().to_owned()]));
    [b.findings().list.clone(), s.findings().list.clone(), q.findings().list.clone()].concat()
}

/// The kinds of the findings in logs that begin with checkpoints without application ids; that of Bronze is its newest
/// version.
fn kinds_without_ids(is_reported: bool) -> BTreeSet<String> {
    let commits: [Commit; 3] = [[(0, 20), (0, 10)], [(20, 45), (10, 30)], [(45, 60), (30, 50)]];
    let logs = logs(&commits, &commits);
    let (mut b, mut s, mut q) = verifiers();
    if is_reported {
        b.report_lost_progress(3, 2, FileOwner::Bronze);
        s.report_lost_progress(3, 3, FileOwner::Silver("page_view".to_owned()));
        q.report_lost_progress(7, 1, FileOwner::SideOutput);
    }
    let checkpoint = |version: u64, id: &str| TableState { table_id: Some(id.to_owned()), ..TableState::at(version) };
    b.start_at(checkpoint(3, "b"));
    s.start_at(checkpoint(1, "silver-id"));
    q.start_at(checkpoint(1, "q"));
    entries(&logs.silver).iter().skip(2).for_each(|entry| s.apply(entry));
    entries(&logs.quarantine).iter().skip(2).for_each(|entry| q.apply(entry));
    b.finish();
    s.finish(&b);
    q.check_announcements(s.id(), s.announcements(&SideOutputKind::QUARANTINE), false);
    q.check_unrouted(&b);
    q.finish(Some(&[s.id().to_owned()]));
    let findings = [b.findings(), s.findings(), q.findings()].into_iter().flat_map(|findings| &findings.list);
    let kind = |finding: &Finding| serde_json::to_value(&finding.problem).expect("JSON")["kind"].to_string();
    findings.map(kind).collect()
}

#[test]
fn what_follows_from_lost_progress_is_no_finding_of_its_own() {
    let unreported = kinds_without_ids(false);
    for kind in ["\"ahead-of-bronze\"", "\"sequence-number\"", "\"not-published\""] {
        assert!(unreported.contains(kind), "{kind}: {unreported:?}");
    }
    assert_eq!(kinds_without_ids(true), BTreeSet::from(["\"lost-progress\"".to_owned()]));
}

#[test]
fn lost_progress_has_its_way_out() {
    let help = |owner: FileOwner| Problem::LostProgress { lost: 3, owner }.explain().help;
    assert!(help(FileOwner::Silver("views".to_owned())).starts_with("`silverd rebuild views`, without days, "));
    assert!(help(FileOwner::SideOutput).contains("move the table's folder away"));
    assert!(help(FileOwner::Bronze).starts_with("start silverd"));
}

fn verify(logs: &Logs) -> Vec<Finding> {
    verify_entries(&entries(&logs.bronze), &entries(&logs.silver), &entries(&logs.quarantine))
}

/// Commits of this many offsets of each partition.
fn commits(steps: &[(u8, u8)]) -> Vec<Commit> {
    let mut next = (0, 0);
    let mut commits = Vec::new();
    for (first, second) in steps {
        let end = (next.0 + i64::from(*first), next.1 + i64::from(*second));
        if end != next {
            commits.push([(next.0, end.0), (next.1, end.1)]);
        }
        next = end;
    }
    commits
}

/// The same offsets in other commits: some commits are merged with the one before.
fn merged(commits: &[Commit], merge: &[bool]) -> Vec<Commit> {
    let mut merged: Vec<Commit> = Vec::new();
    for (at, commit) in commits.iter().enumerate() {
        match merged.last_mut() {
            Some(last) if merge[at % merge.len()] => {
                for partition in 0..2 {
                    last[partition].1 = commit[partition].1;
                }
            }
            _ => merged.push(*commit),
        }
    }
    merged
}

/// The JSON pointers of all numbers that verification must check.
fn numbers(value: &Value, pointer: String, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(pointer),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| numbers(item, format!("{pointer}/{at}"), found));
        }
        Value::Object(fields) => {
            let counted = fields.iter().filter(|(name, _)| *name != "size" && *name != "add");
            counted.for_each(|(name, item)| numbers(item, format!("{pointer}/{name}"), found));
        }
        _ => {}
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..40, 0u8..40), 3..12).prop_filter("some commits", |steps| commits(steps).len() >= 3)
}

proptest! {
    #[test]
    fn any_valid_logs_have_no_findings(
        steps in steps(), merge in prop::collection::vec(any::<bool>(), 1..6), behind in 0usize..3,
    ) {
        let bronze = commits(&steps);
        let mut silver = merged(&bronze, &merge);
        silver.truncate(silver.len().saturating_sub(behind));
        prop_assert_eq!(verify(&logs(&bronze, &silver)), []);
    }

    #[test]
    fn a_changed_number_is_found(
        steps in steps(),
        table in 0usize..3,
        at in any::<prop::sample::Index>(),
        which in any::<prop::sample::Index>(),
        by in prop::sample::select(vec![-3i64, -1, 1, 7]),
    ) {
        let commits = commits(&steps);
        let mut logs = logs(&commits, &commits);
        let log = [&mut logs.bronze, &mut logs.silver, &mut logs.quarantine][table].as_mut_slice();
        let mut found = Vec::new();
        if log.len() > 1 {
            let entry = json!(log[1 + at.index(log.len() - 1)]);
            numbers(&entry, String::new(), &mut found);
            let mut entry = entry;
            let number = entry.pointer_mut(&found[which.index(found.len())]).expect("a number");
            *number = json!(number.as_i64().expect("a whole number") + by);
            log[1 + at.index(log.len() - 1)] = serde_json::from_value(entry).expect("lines");
            prop_assert_ne!(verify(&logs), [], "{:?}", logs.silver);
        }
    }

    #[test]
    fn a_lost_or_repeated_commit_is_found(
        steps in steps(), table in 0usize..3, at in any::<prop::sample::Index>(), repeat in any::<bool>(),
    ) {
        let commits = commits(&steps);
        let logs = logs(&commits, &commits);
        let mut all = [entries(&logs.bronze), entries(&logs.silver), entries(&logs.quarantine)];
        let entries = &mut all[table];
        if entries.len() > 2 {
            // A lost last commit cannot be noticed, except in Bronze: Silver is ahead of it then. The quarantine's is one
            // of unrouted events.
            let last = usize::from(table != 0 && !repeat);
            let at = 1 + at.index(entries.len() - 1 - last);
            if repeat {
                entries.insert(at, entries[at].clone());
            } else {
                entries.remove(at);
            }
            // Renumber the versions, so that there is no missing entry.
            for (version, entry) in entries.iter_mut().enumerate() {
                entry.version = version as u64;
            }
            let [bronze, silver, quarantine] = all;
            prop_assert_ne!(verify_entries(&bronze, &silver, &quarantine), []);
        }
    }
}

fn simple() -> Logs {
    let commits = [[(0, 20), (0, 10)], [(20, 40), (10, 10)], [(40, 45), (10, 30)]];
    logs(&commits, &commits)
}

#[track_caller]
fn check(damage: impl FnOnce(&mut Logs), expected: &[&str]) {
    let mut logs = simple();
    damage(&mut logs);
    let found: Vec<_> = verify(&logs)
        .into_iter()
        .map(|finding| {
            let Explanation { found, expected, help, .. } = finding.problem.explain();
            assert!(!expected.is_empty() && !help.is_empty(), "{finding:?}");
            format!("{}{}: {found}; expected {expected}", finding.table, finding.position)
        })
        .collect();
    assert_eq!(found, expected);
}

/// A repair of Bronze: the file of the first commit, with 30 events, is replaced, and the first events of a partition are lost.
fn repair(events: u64, lost: i64) -> Vec<Value> {
    let repair = json!({ "files": ["b-1"], "events": events, "removed": 30, "lost_events": lost });
    let mut commit = vec![
        info(json!({ "repair": repair })),
        json!({ "remove": { "path": "b-1", "dataChange": true } }),
        add("again", 30 - lost.unsigned_abs(), bounds([(lost, 20), (0, 10)])),
    ];
    if lost > 0 {
        commit.extend([txn("silverd-lost:c:t:0:0", lost), txn("silverd-lost-events", lost)]);
    }
    commit
}

const LOST: &str = "bronze: 4 events are lost: a data file was damaged, and `silverd repair` did not find them in Kafka any more \
                    (c:t:0 offsets 0..4); expected every record that Bronze has read";

#[test]
fn what_a_repair_has_lost_is_a_notice() {
    check(|logs| logs.bronze.push(repair(30, 0)), &[]);
    check(|logs| logs.bronze.push(repair(26, 4)), &[LOST]);
    let wrong = "bronze, version 4: the correction added 30 rows and removed 30; expected 29 added (29 new and 0 kept rows), 30 \
                 removed";
    check(|logs| logs.bronze.push(repair(29, 0)), &[wrong]);
}

/// A checkpoint keeps what was lost, also when the entry of the repair is gone.
#[test]
fn what_was_lost_is_known_after_the_log_was_cleaned_up() {
    let mut checkpoint = TableState::at(9);
    checkpoint.add_file("b", Some(r#"{"numRecords":71}"#));
    for (id, version) in [(APP[0], 45), (APP[1], 30), ("silverd-lost:c:t:0:0", 4), ("silverd-lost-events", 4)] {
        checkpoint.set_txn(id, version);
    }
    let mut bronze = BronzeVerifier::new("bronze");
    bronze.start_at(checkpoint);
    bronze.finish();
    assert_eq!((bronze.events(), bronze.rows(), bronze.lost().count()), (75, 71, 1));
    assert_eq!((bronze.findings().errors, bronze.findings().notices), (0, 1));
}

fn commit_info(log: &mut Log, version: usize) -> &mut Value {
    log[version].iter_mut().find_map(|line| line.get_mut("commitInfo")).expect("a commit's info")
}

#[test]
fn findings_are_explained() {
    check(|_| {}, &[]);
    check(
        |logs| commit_info(&mut logs.silver, 2)["silverd"]["counts"]["dropped"] = json!(3),
        &["page_view, version 2: 20 events; 14 with rows (16 rows, 0 late), 3 dropped, 2 duplicates, 2 rejected; \
             expected events = with rows + dropped + duplicates + rejected; rows ≥ with rows; late ≤ with rows"],
    );
    check(
        |logs| commit_info(&mut logs.silver, 2)["silverd"]["ranges"]["c:t:0"] = json!([22, 40]),
        &[
            "page_view, version 2, c:t:0, offsets 20..22: offsets that no commit covers; expected a range that starts \
             at 20",
            "page_view, version 2: the commit counts 20 events; expected at most 18, the offsets that it covers",
            "page_view, version 2, offsets 20..40: file s-2 has rows of these offsets; expected only rows of the \
             commit's ranges",
        ],
    );
    check(
        |logs| commit_info(&mut logs.silver, 2)["silverd"]["ranges"]["c:t:0"] = json!([18, 40]),
        &["page_view, version 2, c:t:0, offsets 18..20: offsets that an earlier commit covers; expected a range that \
             starts at 20"],
    );
    check(
        |logs| commit_info(&mut logs.bronze, 1)["silverd"]["events"] = json!(29),
        &["bronze, version 1: the commit counts 29 events; expected 30, the rows of its files"],
    );
    check(
        |logs| commit_info(&mut logs.silver, 1)["silverd"]["counts"]["rows"] = json!(25),
        &["page_view, version 1: the commit counts 25 rows; expected 24, the rows of its files"],
    );
    check(
        |logs| logs.silver.push(vec![json!({ "remove": { "path": "s-1", "dataChange": true } })]),
        &["page_view, version 4: a commit of another writer added 0 rows and removed 24; expected only silverd adds \
             and removes rows (a compaction must set dataChange = false)"],
    );
    check(
        |logs| drop(logs.quarantine.remove(3)),
        &["quarantine: 3 rows of the announcements 3 to 3 are not in the quarantine table; expected every announced \
             file is in a commit of that table"],
    );
    check(
        |logs| drop(logs.bronze.pop()),
        &[
            "page_view, c:t:0, offsets 40..45: the table's offsets end at 45; expected at most 40, the end of Bronze",
            "page_view, c:t:1, offsets 10..30: the table's offsets end at 30; expected at most 10, the end of Bronze",
            "quarantine, c:t:0, offsets 40..45: the table's offsets end at 45; expected at most 40, the end of Bronze",
            "quarantine, c:t:1, offsets 10..30: the table's offsets end at 30; expected at most 10, the end of Bronze",
        ],
    );
}

#[test]
fn a_missing_entry_is_found() {
    let logs = simple();
    let (bronze, mut silver, quarantine) = (entries(&logs.bronze), entries(&logs.silver), entries(&logs.quarantine));
    silver.remove(2);
    let found = verify_entries(&bronze, &silver, &quarantine);
    assert_eq!(found[0].problem, Problem::LostEntries { first: 2, last: 2 }, "{found:?}");
}

#[test]
fn a_compaction_must_not_change_rows() {
    let old = |path: &str| json!({ "remove": { "path": path, "dataChange": false } });
    let new = |rows| {
        let stats = json!({ "numRecords": rows }).to_string();
        json!({ "add": { "path": "compacted", "stats": stats, "dataChange": false } })
    };
    check(|logs| logs.silver.push(vec![old("s-1"), old("s-2"), new(40)]), &[]);
    check(
        |logs| logs.silver.push(vec![old("s-1"), old("s-2"), new(39)]),
        &["page_view, version 4: a commit of another writer added 39 rows and removed 40; expected only silverd adds \
             and removes rows (a compaction must set dataChange = false)"],
    );
}

#[test]
fn the_rows_of_a_correction_must_add_up() {
    let correction = |kept: u64, rows: u64| {
        let counts = Counts { events: 30, with_rows: 20, rows: 20, dropped: 10, ..Counts::default() };
        let correction = json!({ "correction": { "kind": "rebuild", "ranges": { "c:t:0": [0, 20] }, "counts": counts,
            "removed": 24, "kept": kept }, "plugin": { "interface": "i", "digest": "d" } });
        vec![
            info(correction),
            txn("silverd-corrections", 1),
            json!({ "remove": { "path": "s-1", "dataChange": true } }),
            add("corrected", rows, Some([(0, 1), (0, 19)])),
        ]
    };
    check(|logs| logs.silver.push(correction(4, 24)), &[]);
    check(
        |logs| logs.silver.push(correction(4, 25)),
        &["page_view, version 4: the correction added 25 rows and removed 24; expected 24 added (20 new and 4 kept \
             rows), 24 removed"],
    );
}

#[test]
fn a_cleaned_log_is_verified_from_its_checkpoint() {
    let logs = simple();
    let (bronze, silver, quarantine) = (entries(&logs.bronze), entries(&logs.silver), entries(&logs.quarantine));
    let checkpoint = |skew: i64| {
        let mut state = TableState::at(2);
        state.add_file("s-1", Some("{\"numRecords\": 24}"));
        state.add_file("s-2", Some("{\"numRecords\": 16}"));
        state.set_txn(APP[0], 40 + skew);
        state.set_txn(APP[1], 10);
        state.set_txn("silverd-rejects", 2);
        state.table_id = Some("silver-id".to_owned());
        state
    };
    for (skew, expected) in [(0, 0), (-1, 1)] {
        let (mut b, mut s, mut q) = verifiers();
        s.start_at(checkpoint(skew));
        silver[3..].iter().for_each(|entry| s.apply(entry));
        quarantine.iter().for_each(|entry| q.apply(entry));
        bronze.iter().for_each(|entry| b.apply(entry));
        s.finish(&b);
        q.check_announcements("silver-id", s.announcements(&SideOutputKind::QUARANTINE), false);
        q.finish(Some(&["silver-id".to_owned()]));
        assert_eq!(s.findings().errors, expected, "{:?}", s.findings());
        assert_eq!(q.findings().list, []);
        assert_eq!((s.checked_from(), s.version(), s.lag(&b, |_| true)), (Some(3), 3, 0));
    }
}

#[test]
fn a_checkpoint_must_agree_with_the_entries() {
    let silver = entries(&simple().silver);
    let state = |rows: u64, offset: i64| {
        let mut state = TableState::at(1);
        state.add_file("s-1", Some(&format!("{{\"numRecords\": {rows}}}")));
        state.set_txn(APP[0], offset);
        state.set_txn(APP[1], 10);
        state.set_txn("silverd-rejects", 1);
        state
    };
    for (checkpoint, expected) in [(state(24, 20), 0), (state(23, 20), 1), (state(24, 21), 1)] {
        let mut table = SilverVerifier::new("page_view");
        silver[..2].iter().for_each(|entry| table.apply(entry));
        table.check_checkpoint(&checkpoint);
        assert_eq!(table.findings().errors, expected, "{:?}", table.findings());
    }
}

#[test]
fn a_checkpoint_may_leave_out_ids_that_are_set_again() {
    let logs = simple();
    let silver = entries(&logs.silver);
    let mut checkpoint = TableState::at(1);
    checkpoint.add_file("s-1", Some("{\"numRecords\": 24}"));
    checkpoint.set_txn(APP[1], 10);
    checkpoint.set_txn("silverd-rejects", 1);
    for (later, expected) in [(&silver[2..2], 1), (&silver[2..], 0)] {
        let (mut b, mut s, _) = verifiers();
        entries(&logs.bronze).iter().for_each(|entry| b.apply(entry));
        silver[..2].iter().for_each(|entry| s.apply(entry));
        s.check_checkpoint(&checkpoint);
        later.iter().for_each(|entry| s.apply(entry));
        s.finish(&b);
        let application_ids =
            s.findings().list.iter().filter(|found| matches!(found.problem, Problem::Checkpoint { .. }));
        assert_eq!(application_ids.count(), expected, "{:?}", s.findings());
    }
}

#[test]
fn a_pending_announcement_is_a_notice() {
    let logs = simple();
    let mut silver = SilverVerifier::new("page_view");
    entries(&logs.silver).iter().for_each(|entry| silver.apply(entry));
    let announcements = silver.announcements(&SideOutputKind::QUARANTINE);
    for (kept, is_pending, errors, notices) in [(4, false, 0, 0), (3, true, 0, 1), (3, false, 1, 0), (2, true, 1, 1)] {
        let mut side = SideOutputVerifier::new(&SideOutputKind::QUARANTINE);
        entries(&logs.quarantine)[..kept].iter().for_each(|entry| side.apply(entry));
        assert_eq!(side.has_all("silver-id", announcements), kept == 4);
        side.check_announcements("silver-id", announcements, is_pending);
        side.finish(None);
        assert_eq!((side.findings().errors, side.findings().notices), (errors, notices));
    }
}

#[test]
fn the_quarantine_has_the_unrouted_events_of_each_offset_once() {
    // Behind the rejects of Silver, in the versions 1 to 3.
    let commit = 5;
    check(
        |logs| commit_info(&mut logs.quarantine, commit)["silverd"]["rejected"] = json!(4),
        &["quarantine, version 5: the commit counts 4 rows; expected 3, the rows of its files"],
    );
    check(
        |logs| drop(logs.quarantine.remove(commit)),
        &[
            "quarantine, version 5, c:t:0, offsets 0..20: offsets that no commit covers; expected a range that starts at \
             0",
            "quarantine, version 6, c:t:1, offsets 0..10: offsets that no commit covers; expected a range that starts at \
             0",
        ],
    );
    let again = |logs: &mut Logs| {
        let entry = logs.quarantine[commit + 1].clone();
        logs.quarantine.push(entry.into_iter().filter(|line| line.get("add").is_none()).collect());
    };
    check(
        |logs| {
            again(logs);
            commit_info(&mut logs.quarantine, 8)["silverd"]["rejected"] = json!(0);
        },
        &[
            "quarantine, version 8, c:t:0, offsets 20..40: offsets that an earlier commit covers; expected a range that \
             starts at 45",
        ],
    );
    check(
        |logs| logs.quarantine[commit].retain(|line| line["txn"]["appId"] != UNROUTED_APP[1]),
        &[
            "quarantine, version 5, c:t:1, offsets 0..10: `silverd-unrouted:c:t:1` is set to none; expected 10, the end \
             of the commit's range",
        ],
    );
    check(
        |logs| drop(logs.quarantine.remove(commit - 1)),
        &["quarantine, version 4: `silverd-unrouted` is set to none; expected 1"],
    );
}

#[test]
fn unrouted_events_can_be_switched_off_and_on() {
    let off = |number: i64| {
        vec![txn("silverd-unrouted", number), info(json!({ "table": "unrouted", "rejected": 0, "switched": "off" }))]
    };
    let on = |number: i64, start: i64| {
        vec![
            txn("silverd-unrouted", number),
            txn(UNROUTED_APP[0], start),
            info(json!({ "table": "unrouted", "rejected": 0, "switched": "on", "start": { "c:t:0": start } })),
        ]
    };
    // The second commit of three is not in the quarantine, except for its offsets in the other partition.
    let replace_second = |logs: &mut Logs, entries: Vec<Vec<Value>>| drop(logs.quarantine.splice(6..7, entries));
    check(|logs| replace_second(logs, vec![off(2), on(3, 40)]), &[]);
    check(
        |logs| replace_second(logs, vec![on(2, 40)]),
        &["quarantine, version 6: `silverd-unrouted` is set to 2; expected 3"],
    );
    check(
        |logs| replace_second(logs, vec![off(2), on(3, 19)]),
        &[
            "quarantine, version 7, c:t:0, offsets 19..20: offsets that an earlier commit covers; expected a range that \
             starts at 20",
            "quarantine, version 8, c:t:0, offsets 19..40: offsets that no commit covers; expected a range that starts \
             at 19",
        ],
    );
    check(
        |logs| {
            replace_second(logs, vec![off(2), on(3, 40)]);
            logs.quarantine[7].retain(|line| line["txn"]["appId"] != UNROUTED_APP[0]);
        },
        &[
            "quarantine, version 7, c:t:0: `silverd-unrouted:c:t:0` is set to none; expected 40, the end of the commit's \
             range",
        ],
    );
}

#[test]
fn offsets_of_unrouted_events_are_known_by_routing() {
    let mut quarantine = SideOutputVerifier::new(&SideOutputKind::QUARANTINE);
    let mut logs = simple();
    commit_info(&mut logs.quarantine, 6)["silverd"]["routing"] = json!("another");
    entries(&logs.quarantine).iter().for_each(|entry| quarantine.apply(entry));
    let offsets = |routing: &str| {
        let shown = |ranges: &Ranges| ranges.iter().map(|(log, range)| format!("{log} {range}, ")).collect::<String>();
        quarantine.unrouted_offsets(routing).iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(offsets("r"), ["c:t:0 0..20, c:t:1 0..30, ", "c:t:0 40..45, "]);
    assert_eq!(offsets("another"), ["c:t:0 20..40, "]);
    assert_eq!(offsets("none"), [""; 0]);
    assert_eq!(quarantine.unrouted_events(), 7);
}
