//! Many plugin versions one after the other, under load.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::{digest, hits, install, project, rows_by_version, verify_ok, version};
use crate::harness::guest::{self, ALLOCATOR, REALLOC};
use crate::harness::{Daemon, Generator, Project, root, rounds};

const SWAPPED: &str = "the plugin was swapped";
const FIRST_ROWS: &str = "committed the first rows of the new plugin version";

/// Plugins that must be rejected, with a part of the reason.
fn bad_versions() -> Vec<(&'static str, Vec<u8>)> {
    let good = version("two");
    let no_world = guest::component(&guest::core(&format!("{ALLOCATOR} {REALLOC}")));
    let other_columns = silverd::plugin::build::wasm_of(&root().join("plugins/page_view")).unwrap();
    vec![
        ("parse it: unexpected end-of-file", good[..good.len() / 2].to_vec()),
        ("exports no interface with a `transform`", no_world),
        ("its rows do not fit the table", std::fs::read(other_columns).unwrap()),
        ("this version never starts", version("bad-start")),
        ("and max_new_rejects allows 10.0 %", version("rejects-all")),
    ]
}

/// Many swaps, with bad versions in between.
#[test]
fn versions_are_swapped_under_load() {
    let project = project("swaps", "[commit]\ninterval = \"200ms\"\n");
    let eps = if project.broker.is_kafka() { 20_000 } else { 2_000 };
    let swaps = rounds(&project, 50);
    let mut daemon = Daemon::start(&project);
    let generator = Generator::start(&project, eps);
    daemon.until("the first rows", |_| hits(&project) > 0);
    let (good, bad) = ([version("two"), version("one")], bad_versions());
    let mut rng = StdRng::seed_from_u64(7);
    let mut labels: BTreeMap<String, String> =
        [(digest(&good[0]), "two".to_owned()), (digest(&good[1]), "one".to_owned())].into();
    for swap in 0..swaps {
        if swap % 10 == 5 {
            // A version that was never compiled before.
            let label = format!("new-{swap}");
            let wasm = version(&label);
            labels.insert(digest(&wasm), label);
            install(&project, &wasm);
        } else {
            install(&project, &good[swap % 2]);
        }
        daemon.until_logged(SWAPPED, swap + 1);
        // Sometimes the next version arrives before the table has any row of this one.
        if rng.random_bool(0.8) {
            daemon.until("its first rows", |daemon| {
                daemon.log_lines().iter().rev().find_map(swap_message).is_some_and(|message| message == FIRST_ROWS)
            });
        }
        if swap % (swaps / 10) == 3 % (swaps / 10) {
            let (reason, wasm) = &bad[swap / (swaps / 10) % bad.len()];
            let before = daemon.count_logged(reason);
            install(&project, wasm);
            daemon.until_logged(reason, before + 1);
        }
    }
    drop(generator);
    let log = daemon.stop();
    print_times(&log, swaps, eps);

    project.silverd(&["run", "--drain"]);
    verify_ok(&project, &["--deep"]);
    let mut rows = BTreeMap::<String, u64>::new();
    for span in contiguous_spans(&project) {
        let label = labels.get(span["digest"].as_str().unwrap()).expect("a good version");
        *rows.entry(label.clone()).or_default() += span["counts"]["rows"].as_u64().unwrap();
    }
    rows.retain(|_, rows| *rows > 0);
    assert_eq!(rows_by_version(&project), rows, "rows and commits name the same versions");
}

/// The message of a log line, if it is about a swap.
fn swap_message(line: &Value) -> Option<&str> {
    let message = line["fields"]["message"].as_str()?;
    [FIRST_ROWS, SWAPPED].contains(&message).then_some(message)
}

fn print_times(log: &[Value], swaps: usize, eps: u64) {
    let field = |message: &str, name: &str| {
        let lines = log.iter().filter(|line| line["fields"]["message"] == message);
        let mut found: Vec<u64> = lines.filter_map(|line| line["fields"][name].as_u64()).collect();
        found.sort_unstable();
        found
    };
    let (pause, saved) = (field(SWAPPED, "pause_us"), field(FIRST_ROWS, "since_saved_ms"));
    assert_eq!(pause.len(), swaps);
    println!(
        "{swaps} swaps at {eps} events/s: pause {} µs at the median, {} µs at most; from the save to the first rows {} ms at \
         the median, {} ms at most",
        pause[swaps / 2],
        pause[swaps - 1],
        saved[saved.len() / 2],
        saved[saved.len() - 1]
    );
}

/// The plugin history of the table: in every partition, each span starts where the one before it ended.
#[track_caller]
fn contiguous_spans(project: &Project) -> Vec<Value> {
    let spans: Vec<Value> = serde_json::from_str(&project.silverd(&["plugin", "history", "hits", "--json"])).unwrap();
    let mut ends = BTreeMap::<String, i64>::new();
    for span in &spans {
        for (partition, range) in span["ranges"].as_object().unwrap() {
            let (start, end) = (range[0].as_i64().unwrap(), range[1].as_i64().unwrap());
            let before = ends.insert(partition.clone(), end).unwrap_or(start);
            assert_eq!(before, start, "{partition} in {span}");
        }
    }
    spans
}
