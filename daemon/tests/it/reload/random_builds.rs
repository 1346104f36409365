//! Random sequences of builds, good and bad, with restarts and kills: the version that serves is always the newest good
//! one, and no event is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{hits, install, project, send, verify_ok, version};
use crate::harness::{Daemon, seed};

const STEPS: usize = 16;
/// Events of a step. Every tenth is one on which bad versions fail.
const EVENTS: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Good,
    /// It panics in `configure`.
    NeverStarts,
    RejectsAll,
    /// It traps on some live events, and on those in Bronze.
    Traps,
    Rejects,
    /// A core module that is no plugin.
    Garbage,
    /// A good build that served before.
    EarlierGood,
    /// A bad build again.
    EarlierBad,
}

const BUILDS: [Build; 8] = [
    Build::Good,
    Build::NeverStarts,
    Build::RejectsAll,
    Build::Traps,
    Build::Rejects,
    Build::Garbage,
    Build::EarlierGood,
    Build::EarlierBad,
];

#[test]
fn newest_good_version_serves_after_any_sequence_of_builds() {
    let mut rng = StdRng::seed_from_u64(seed());
    let project = project("random-builds", "[commit]\ninterval = \"50ms\"\n[reload]\nmax_new_rejects = \"5%\"\n");
    let mut daemon = Daemon::start(&project);
    send(&project, (0..EVENTS).map(|n| format!("first{n}")));
    daemon.until("the first rows", |_| hits(&project) == EVENTS);
    let (mut serving, mut good, mut bad) = ("one".to_owned(), vec!["one".to_owned()], Vec::<String>::new());
    let mut sent = EVENTS;
    let mut expected = BTreeMap::<String, usize>::new();
    let mut steps = Vec::new();
    for step in 0..STEPS {
        let build = BUILDS[rng.random_range(0..BUILDS.len())];
        let label = match build {
            Build::Good => format!("good{step}"),
            Build::NeverStarts => format!("n{step} bad-start"),
            Build::RejectsAll => format!("r{step} rejects-all"),
            Build::Traps => format!("t{step} traps-on-boom"),
            Build::Rejects => format!("j{step} rejects-boom"),
            Build::Garbage => String::new(),
            Build::EarlierGood => good[rng.random_range(0..good.len())].clone(),
            Build::EarlierBad => match bad.is_empty() {
                true => continue,
                false => bad[rng.random_range(0..bad.len())].clone(),
            },
        };
        steps.push(format!("{build:?} {label}"));
        let rejected = daemon.count_logged("the new build was rejected");
        match build {
            Build::Garbage => install(&project, b"\0asm no more"),
            _ => install(&project, &version(&label)),
        }
        match build {
            Build::Good | Build::EarlierGood => serving = label.clone(),
            Build::Garbage | Build::EarlierBad => {}
            _ => bad.push(label.clone()),
        }
        if build == Build::Good {
            good.push(label.clone());
        }
        // A bad build is rejected, at once or on live events; whatever is sent meanwhile gets a row in the end.
        if matches!(build, Build::Garbage | Build::NeverStarts | Build::RejectsAll) {
            daemon.until(&format!("{steps:?}: rejected"), |daemon| {
                daemon.count_logged("the new build was rejected") > rejected
            });
        }
        // At times it dies in the middle.
        if rng.random_bool(0.3) {
            daemon = match rng.random_bool(0.5) {
                true => {
                    daemon.kill();
                    Daemon::start(&project)
                }
                false => {
                    daemon.stop();
                    Daemon::start(&project)
                }
            };
            steps.push("restarted".to_owned());
        }
        let id = |n: usize| if n.is_multiple_of(10) { format!("boom{n}") } else { format!("e{n}") };
        send(&project, (sent..sent + EVENTS).map(id));
        sent += EVENTS;
        daemon.until_within(Duration::from_secs(120), &format!("{steps:?}: all rows"), |_| hits(&project) == sent);
        // Until what a failed version wrote is rebuilt, and the version that should serve does.
        let probe = format!("probe{step}-");
        let mut probes = 0;
        daemon.until_within(Duration::from_secs(120), &format!("{steps:?}: rows of {serving}"), |_| {
            send(&project, [format!("{probe}{probes}")]);
            probes += 1;
            sent += 1;
            let versions = versions(&project);
            let newest =
                versions.iter().rev().find(|(id, _)| id.starts_with(&probe)).map(|(_, version)| version.clone());
            newest.as_ref() == Some(&serving) && versions.iter().all(|(_, version)| good.contains(version))
        });
        *expected.entry(serving.clone()).or_default() += 1;
    }
    daemon.until_within(Duration::from_secs(120), "all rows", |_| hits(&project) == sent);
    daemon.stop();
    // The last build may be one that never starts; what verifies loads the newest one.
    install(&project, &version(&serving));
    println!("{} steps: {steps:?}", steps.len());
    let ids = project.query("SELECT count(DISTINCT event_id) AS n FROM hits");
    assert_eq!(ids[0]["n"], sent, "{steps:?}");
    let written: BTreeSet<_> = versions(&project).into_iter().map(|(_, version)| version).collect();
    assert!(expected.keys().all(|version| written.contains(version)), "{steps:?}: {written:?}");
    verify_ok(&project, &["--deep"]);
}

/// The event and the version of each row, in the order of their offsets within a partition.
fn versions(project: &crate::harness::Project) -> Vec<(String, String)> {
    if !project.has_table("hits") {
        return Vec::new();
    }
    let rows = project.query("SELECT event_id, version FROM hits ORDER BY ingested_at, _partition, _offset");
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "event_id"), text(row, "version"))).collect()
}
