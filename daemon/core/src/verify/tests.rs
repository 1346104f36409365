//! Logs in the words of Delta, cut and spoilt at will.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::account::Counts;

/// A table's log as lines of JSON, one vector for each version.
type Log = Vec<Vec<Value>>;

const APP: [&str; 2] = ["silverd:c:t:0", "silverd:c:t:1"];
const SIDE_APP: &str = "silverd-quarantine:silver-id";

fn created(id: &str) -> Vec<Value> {
    vec![json!({ "metaData": { "id": id } }), json!({ "protocol": { "minReaderVersion": 1 } })]
}

fn add(path: &str, rows: u64, holds: Option<[(i64, i64); 2]>) -> Value {
    let stats = match holds {
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

/// What a commit covers of the two partitions.
type Cut = [(i64, i64); 2];

fn ranges(cut: Cut) -> Value {
    let covered = cut.iter().enumerate().filter(|(_, (start, end))| start < end);
    covered.map(|(at, (start, end))| (APP[at]["silverd:".len()..].to_owned(), json!([start, end]))).collect()
}

fn progress(cut: Cut) -> Vec<Value> {
    cut.iter().enumerate().filter(|(_, (start, end))| start < end).map(|(at, (_, end))| txn(APP[at], *end)).collect()
}

fn holds(cut: Cut) -> Option<[(i64, i64); 2]> {
    let covered: Vec<_> = cut.iter().enumerate().filter(|(_, (start, end))| start < end).collect();
    let (first, last) = (covered.first()?.0 as i64, covered.last()?.0 as i64);
    let start = covered.iter().map(|(_, range)| range.0).min()?;
    let end = covered.iter().map(|(_, range)| range.1).max()?;
    Some([(first, last), (start, end - 1)])
}

fn events(cut: Cut) -> u64 {
    cut.iter().map(|(start, end)| (end - start) as u64).sum()
}

/// Fates that are the offsets' own: of ten, one is dropped, one rejected, one a duplicate, and one gives two rows.
fn fates(cut: Cut) -> Counts {
    let mut counts = Counts::default();
    for offset in cut.iter().flat_map(|(start, end)| *start..*end) {
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

struct Logs {
    bronze: Log,
    silver: Log,
    quarantine: Log,
}

/// The logs of tables that took the same offsets in other cuts.
fn logs(bronze: &[Cut], silver: &[Cut]) -> Logs {
    let mut logs =
        Logs { bronze: vec![created("b")], silver: vec![created("silver-id")], quarantine: vec![created("q")] };
    for cut in bronze {
        let mut entry = progress(*cut);
        entry.push(info(json!({ "ranges": ranges(*cut), "events": events(*cut) })));
        entry.push(add(&format!("b-{}", logs.bronze.len()), events(*cut), holds(*cut)));
        logs.bronze.push(entry);
    }
    for cut in silver {
        let (counts, mut entry) = (fates(*cut), progress(*cut));
        let mut said = json!({ "ranges": ranges(*cut), "counts": counts, "rejects": null,
            "plugin": { "interface": "i", "digest": "d" } });
        if counts.rejected > 0 {
            let (number, path) = (logs.quarantine.len() as i64, format!("q-{}", logs.quarantine.len()));
            entry.push(txn("silverd-rejects", number));
            said["rejects"] = json!({ "path": path, "rows": counts.rejected, "size": 1 });
            logs.quarantine.push(vec![
                txn(SIDE_APP, number),
                info(json!({ "table": "page_view", "rejected": counts.rejected })),
                add(&path, counts.rejected, None),
            ]);
        }
        entry.push(info(said));
        if counts.rows > 0 {
            entry.push(add(&format!("s-{}", logs.silver.len()), counts.rows, holds(*cut)));
        }
        logs.silver.push(entry);
    }
    logs
}

fn entries(log: &Log) -> Vec<Entry> {
    let text = |entry: &Vec<Value>| entry.iter().map(|line| format!("{line}\n")).collect::<String>();
    log.iter().enumerate().map(|(at, entry)| Entry::parse(at as u64, text(entry).as_bytes()).expect("JSON")).collect()
}

fn verify_entries(bronze: &[Entry], silver: &[Entry], quarantine: &[Entry]) -> Vec<Finding> {
    let (mut b, mut s, mut q) = (Bronze::new("bronze"), Silver::new("page_view"), Side::new(&SideKind::QUARANTINE));
    silver.iter().for_each(|entry| s.take(entry));
    quarantine.iter().for_each(|entry| q.take(entry));
    bronze.iter().for_each(|entry| b.take(entry));
    b.finish();
    s.finish(&b);
    q.settle(s.id(), s.announcements(&SideKind::QUARANTINE), false);
    q.finish(Some(&[s.id().to_owned()]));
    [b.findings().list.clone(), s.findings().list.clone(), q.findings().list.clone()].concat()
}

fn verify(logs: &Logs) -> Vec<Finding> {
    verify_entries(&entries(&logs.bronze), &entries(&logs.silver), &entries(&logs.quarantine))
}

/// Cuts `total` offsets of each partition into commits, at random.
fn cuts(steps: &[(u8, u8)]) -> Vec<Cut> {
    let mut next = (0, 0);
    let mut cuts = Vec::new();
    for (first, second) in steps {
        let end = (next.0 + i64::from(*first), next.1 + i64::from(*second));
        if end != next {
            cuts.push([(next.0, end.0), (next.1, end.1)]);
        }
        next = end;
    }
    cuts
}

/// The same offsets, cut elsewhere: each new commit takes what two old ones took, or half of one.
fn recut(cuts: &[Cut], merge: &[bool]) -> Vec<Cut> {
    let mut again: Vec<Cut> = Vec::new();
    for (at, cut) in cuts.iter().enumerate() {
        match again.last_mut() {
            Some(last) if merge[at % merge.len()] => {
                for partition in 0..2 {
                    last[partition].1 = cut[partition].1;
                }
            }
            _ => again.push(*cut),
        }
    }
    again
}

/// The places (JSON pointers) of all numbers that must not be other than they are.
fn numbers(value: &Value, place: String, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(place),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| numbers(item, format!("{place}/{at}"), found));
        }
        Value::Object(fields) => {
            let counted = fields.iter().filter(|(name, _)| *name != "size" && *name != "add");
            counted.for_each(|(name, item)| numbers(item, format!("{place}/{name}"), found));
        }
        _ => {}
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..40, 0u8..40), 3..12).prop_filter("some commits", |steps| cuts(steps).len() >= 3)
}

proptest! {
    #[test]
    fn any_cut_verifies(steps in steps(), merge in prop::collection::vec(any::<bool>(), 1..6), behind in 0usize..3) {
        let bronze = cuts(&steps);
        let mut silver = recut(&bronze, &merge);
        silver.truncate(silver.len().saturating_sub(behind));
        prop_assert_eq!(verify(&logs(&bronze, &silver)), []);
    }

    #[test]
    fn any_number_that_is_changed_is_found(
        steps in steps(),
        table in 0usize..3,
        at in any::<prop::sample::Index>(),
        which in any::<prop::sample::Index>(),
        by in prop::sample::select(vec![-3i64, -1, 1, 7]),
    ) {
        let cut = cuts(&steps);
        let mut logs = logs(&cut, &cut);
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
    fn a_commit_that_is_dropped_or_doubled_is_found(
        steps in steps(), table in 0usize..3, at in any::<prop::sample::Index>(), double in any::<bool>(),
    ) {
        let cut = cuts(&steps);
        let logs = logs(&cut, &cut);
        let mut all = [entries(&logs.bronze), entries(&logs.silver), entries(&logs.quarantine)];
        let entries = &mut all[table];
        if entries.len() > 2 {
            // A last commit that is gone was never there; of Bronze, Silver misses it.
            let last = usize::from(table != 0 && !double);
            let at = 1 + at.index(entries.len() - 1 - last);
            if double {
                entries.insert(at, entries[at].clone());
            } else {
                entries.remove(at);
                // Not only its version is missing.
            }
            for (version, entry) in entries.iter_mut().enumerate() {
                entry.version = version as u64;
            }
            let [bronze, silver, quarantine] = all;
            prop_assert_ne!(verify_entries(&bronze, &silver, &quarantine), []);
        }
    }
}

fn simple() -> Logs {
    let cut = [[(0, 20), (0, 10)], [(20, 40), (10, 10)], [(40, 45), (10, 30)]];
    logs(&cut, &cut)
}

#[track_caller]
fn check(spoil: impl FnOnce(&mut Logs), expected: &[&str]) {
    let mut logs = simple();
    spoil(&mut logs);
    let told: Vec<_> = verify(&logs)
        .into_iter()
        .map(|finding| {
            let told = finding.problem.tell();
            assert!(!told.expected.is_empty() && !told.help.is_empty(), "{finding:?}");
            format!("{}{}: {}; expected {}", finding.table, finding.place, told.found, told.expected)
        })
        .collect();
    assert_eq!(told, expected);
}

fn of_info(log: &mut Log, version: usize) -> &mut Value {
    log[version].iter_mut().find_map(|line| line.get_mut("commitInfo")).expect("a commit's info")
}

#[test]
fn what_does_not_hold_is_told() {
    check(|_| {}, &[]);
    check(
        |logs| of_info(&mut logs.silver, 2)["silverd"]["counts"]["dropped"] = json!(3),
        &[
            "page_view, version 2: 20 events; 14 with rows (16 rows, 0 late), 3 dropped, 2 duplicates, 2 rejected; expected \
           events = with rows + dropped + duplicates + rejected; rows of each event with rows; late ones among them",
        ],
    );
    check(
        |logs| of_info(&mut logs.silver, 2)["silverd"]["ranges"]["c:t:0"] = json!([22, 40]),
        &[
            "page_view, version 2, c:t:0, offsets 20..22: offsets that no commit covers; expected a range that begins at 20",
            "page_view, version 2: the commit counts 20 events; expected at most 18, the offsets that it covers",
            "page_view, version 2, offsets 20..40: file s-2 has rows of these offsets; expected rows of the commit's own ranges",
        ],
    );
    check(
        |logs| of_info(&mut logs.silver, 2)["silverd"]["ranges"]["c:t:0"] = json!([18, 40]),
        &[
            "page_view, version 2, c:t:0, offsets 18..20: offsets that an earlier commit has covered; expected a range that \
           begins at 20",
        ],
    );
    check(
        |logs| of_info(&mut logs.bronze, 1)["silverd"]["events"] = json!(29),
        &["bronze, version 1: the commit counts 29 events; expected 30, the rows of its files"],
    );
    check(
        |logs| logs.silver.push(vec![json!({ "remove": { "path": "s-1", "dataChange": true } })]),
        &[
            "page_view, version 4: a commit that is none of silverd's added 0 rows and removed 24; expected rows that silverd \
           alone adds and removes (a compaction must say dataChange = false)",
        ],
    );
    check(
        |logs| drop(logs.quarantine.pop()),
        &[
            "quarantine: 3 rows of the announcements 3 to 3 are not in the quarantine table; expected every announced file in \
           a commit of it",
        ],
    );
    check(
        |logs| drop(logs.bronze.pop()),
        &[
            "page_view, c:t:0, offsets 40..45: the table has come to 45; expected at most 40, where Bronze ends",
            "page_view, c:t:1, offsets 10..30: the table has come to 30; expected at most 10, where Bronze ends",
        ],
    );
}

#[test]
fn a_compaction_changes_no_rows() {
    let old = |path: &str| json!({ "remove": { "path": path, "dataChange": false } });
    let new = |rows| {
        let stats = json!({ "numRecords": rows }).to_string();
        json!({ "add": { "path": "compacted", "stats": stats, "dataChange": false } })
    };
    check(|logs| logs.silver.push(vec![old("s-1"), old("s-2"), new(40)]), &[]);
    check(
        |logs| logs.silver.push(vec![old("s-1"), old("s-2"), new(39)]),
        &[
            "page_view, version 4: a commit that is none of silverd's added 39 rows and removed 40; expected rows that silverd \
           alone adds and removes (a compaction must say dataChange = false)",
        ],
    );
}

#[test]
fn a_correction_adds_up() {
    let correction = |kept: u64, rows: u64| {
        let counts = Counts { events: 30, with_rows: 20, rows: 20, dropped: 10, ..Counts::default() };
        let said = json!({ "correction": { "kind": "rebuild", "ranges": { "c:t:0": [0, 20] }, "counts": counts,
            "removed": 24, "kept": kept }, "plugin": { "interface": "i", "digest": "d" } });
        vec![
            info(said),
            txn("silverd-corrections", 1),
            json!({ "remove": { "path": "s-1", "dataChange": true } }),
            add("corrected", rows, Some([(0, 1), (0, 19)])),
        ]
    };
    check(|logs| logs.silver.push(correction(4, 24)), &[]);
    check(
        |logs| logs.silver.push(correction(4, 25)),
        &[
            "page_view, version 4: the correction added 25 rows and removed 24; expected 20 that it made + 4 that it kept \
           added, 24 removed",
        ],
    );
}

#[test]
fn a_log_that_was_cleaned_is_proven_from_its_checkpoint_on() {
    let logs = simple();
    let (bronze, silver, quarantine) = (entries(&logs.bronze), entries(&logs.silver), entries(&logs.quarantine));
    let begin = |skew: i64| {
        let mut state = State::at(2);
        state.file("s-1", Some("{\"numRecords\": 24}"));
        state.file("s-2", Some("{\"numRecords\": 16}"));
        state.txn(APP[0], 40 + skew);
        state.txn(APP[1], 10);
        state.txn("silverd-rejects", 2);
        state.table_id = Some("silver-id".to_owned());
        state
    };
    for (skew, expected) in [(0, 0), (-1, 1)] {
        let (mut b, mut s, mut q) = (Bronze::new("bronze"), Silver::new("page_view"), Side::new(&SideKind::QUARANTINE));
        s.begin(begin(skew));
        silver[3..].iter().for_each(|entry| s.take(entry));
        quarantine.iter().for_each(|entry| q.take(entry));
        bronze.iter().for_each(|entry| b.take(entry));
        s.finish(&b);
        q.settle("silver-id", s.announcements(&SideKind::QUARANTINE), false);
        q.finish(Some(&["silver-id".to_owned()]));
        assert_eq!(s.findings().errors, expected, "{:?}", s.findings());
        assert_eq!(q.findings().list, []);
        assert_eq!((s.proven_from(), s.version(), s.lag(&b)), (Some(3), 3, 0));
    }
}

#[test]
fn a_checkpoint_must_say_what_the_entries_say() {
    let silver = entries(&simple().silver);
    let state = |rows: u64, offset: i64| {
        let mut state = State::at(1);
        state.file("s-1", Some(&format!("{{\"numRecords\": {rows}}}")));
        state.txn(APP[0], offset);
        state.txn(APP[1], 10);
        state.txn("silverd-rejects", 1);
        state
    };
    for (checkpoint, expected) in [(state(24, 20), 0), (state(23, 20), 1), (state(24, 21), 1)] {
        let mut table = Silver::new("page_view");
        silver[..2].iter().for_each(|entry| table.take(entry));
        table.compare(&checkpoint);
        assert_eq!(table.findings().errors, expected, "{:?}", table.findings());
    }
}

#[test]
fn a_quarantine_that_waits_is_no_loss() {
    let logs = simple();
    let mut silver = Silver::new("page_view");
    entries(&logs.silver).iter().for_each(|entry| silver.take(entry));
    let announced = silver.announcements(&SideKind::QUARANTINE);
    for (kept, waits, errors, notices) in [(4, false, 0, 0), (3, true, 0, 1), (3, false, 1, 0), (2, true, 1, 1)] {
        let mut side = Side::new(&SideKind::QUARANTINE);
        entries(&logs.quarantine)[..kept].iter().for_each(|entry| side.take(entry));
        assert_eq!(side.has_all("silver-id", announced), kept == 4);
        side.settle("silver-id", announced, waits);
        side.finish(None);
        assert_eq!((side.findings().errors, side.findings().notices), (errors, notices));
    }
}
