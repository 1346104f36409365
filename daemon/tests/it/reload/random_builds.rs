//! Random sequences of builds, good and bad, with restarts and kills: the version that serves is always the newest good
//! one, each commit is by a version that was allowed to serve then, and no event is lost or doubled.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use silverd::runtime::clock::now_ms;

use super::{digest, hits, install, project, send, verify_ok, version};
use crate::harness::{Daemon, Project, actions, entries, root, seed};

const STEPS: usize = 14;
/// Events of a step. Every tenth is one on which some bad versions fail, and Bronze has such events from the start.
const EVENTS: usize = 40;
const TIMEOUT: Duration = Duration::from_secs(120);
const SECTIONS: &str =
    "[commit]\ninterval = \"50ms\"\n[reload]\nmax_new_rejects = \"5%\"\n[limits]\ntransform_time_max = \"1s\"\n";

const SWAPPED: &str = "the plugin was swapped";
const REJECTED: &str = "the new build was rejected";
const ROLLED_BACK: &str = "the new plugin version is rolled back";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Good,
    /// It takes a while for each event.
    Slow,
    /// It does not free all of its memory.
    Leaks,
    /// A good build that served before.
    EarlierGood,

    /// It panics in `configure`.
    NeverStarts,
    RejectsAll,
    /// It traps on some events of Bronze.
    Traps,
    /// It rejects them.
    Rejects,
    /// A plugin of another table.
    OtherSchema,
    /// A core module that is no plugin.
    Garbage,

    /// Bronze has no event on which it fails, so the shadow run passes: it fails on later events, in one of these ways.
    Late(&'static str),

    /// A bad build again.
    EarlierBad,
}

const BUILDS: [Build; 16] = [
    Build::Good,
    Build::Slow,
    Build::Leaks,
    Build::EarlierGood,
    Build::NeverStarts,
    Build::RejectsAll,
    Build::Traps,
    Build::Rejects,
    Build::OtherSchema,
    Build::Garbage,
    Build::Late("traps-on"),
    Build::Late("loops-on"),
    Build::Late("sleeps-on"),
    Build::Late("fills-on"),
    Build::Late("rejects"),
    Build::EarlierBad,
];

impl Build {
    fn is_good(self) -> bool {
        matches!(self, Build::Good | Build::Slow | Build::Leaks | Build::EarlierGood)
    }

    /// Validation rejects it.
    fn is_rejected(self) -> bool {
        !self.is_good() && !matches!(self, Build::Late(_) | Build::EarlierBad)
    }
}

/// A run of the test.
struct Run {
    project: Project,
    rng: StdRng,
    /// `None` between two of them.
    daemon: Option<Daemon>,
    sent: usize,
    /// The label of the newest good version.
    serving: String,
    good: Vec<String>,
    bad: Vec<String>,
    /// From when on which versions may commit, by their digests.
    phases: Vec<(i64, BTreeSet<String>)>,
    steps: Vec<String>,
}

#[test]
fn newest_good_version_serves_after_any_sequence_of_builds() {
    let mut run = Run::start();
    for step in 0..STEPS {
        run.step(step);
    }
    run.finish();
}

impl Run {
    fn start() -> Self {
        let rng = StdRng::seed_from_u64(seed());
        let project = project("random-builds", SECTIONS);
        let one = "one".to_owned();
        let phases = vec![(0, [digest(&version(&one))].into())];
        let daemon = Some(Daemon::start(&project));
        let (good, bad, steps) = (vec![one.clone()], Vec::new(), Vec::new());
        let mut run = Self { project, rng, daemon, sent: 0, serving: one, good, bad, phases, steps };
        run.send_some();
        run.until("the first rows", |run| hits(&run.project) == run.sent);
        run
    }

    fn step(&mut self, step: usize) {
        let build = BUILDS[self.rng.random_range(0..BUILDS.len())];
        let Some(label) = self.label(build, step) else { return };
        self.steps.push(format!("{build:?} {label}"));
        let [swapped, rejected] = [SWAPPED, REJECTED].map(|text| self.daemon().count_logged(text));
        let mut allowed = BTreeSet::from([digest(&version(&self.serving))]);
        if build.is_good() || matches!(build, Build::Late(_)) {
            allowed.insert(digest(&version(&label)));
        }
        self.phases.push((now_ms(), allowed));
        let wasm = match build {
            // Another build each time: the log names one only once.
            Build::Garbage => format!("\0asm no more {step}").into_bytes(),
            Build::OtherSchema => [&other_schema()[..], &[0, 3, 1, b's', step as u8]].concat(),
            _ => version(&label),
        };
        install(&self.project, &wasm);
        match build {
            Build::Garbage | Build::OtherSchema | Build::EarlierBad => {}
            _ if build.is_good() => self.serving = label.clone(),
            _ => self.bad.push(label.clone()),
        }
        if build.is_good() && !self.good.contains(&label) {
            self.good.push(label.clone());
        }
        if build.is_rejected() {
            self.until("rejected", |run| run.daemon().count_logged(REJECTED) > rejected);
        }
        if let Build::Late(how) = build {
            self.until("swapped", |run| run.daemon().count_logged(SWAPPED) > swapped);
            self.fail_late(&label, how, step);
        } else if self.rng.random_bool(0.3) {
            // In the middle of whatever it does.
            self.restart();
        }
        self.send_some();
        self.until("a row for each event", |run| hits(&run.project) == run.sent);
        self.until_serving(step);
        self.phases.push((now_ms(), [digest(&version(&self.serving))].into()));
    }

    /// The label of the step's version; `None` if there is no such version yet.
    fn label(&mut self, build: Build, step: usize) -> Option<String> {
        let rng = &mut self.rng;
        let mut one_of = |labels: &[String]| match labels.is_empty() {
            true => None,
            false => Some(labels[rng.random_range(0..labels.len())].clone()),
        };
        Some(match build {
            Build::Good => format!("good{step}"),
            Build::Slow => format!("s{step} slow"),
            Build::Leaks => format!("l{step} leaks"),
            Build::EarlierGood => one_of(&self.good)?,
            Build::NeverStarts => format!("n{step} bad-start"),
            Build::RejectsAll => format!("r{step} rejects-all"),
            Build::Traps => format!("t{step} traps-on-boom"),
            Build::Rejects => format!("j{step} rejects-boom"),
            Build::OtherSchema | Build::Garbage => String::new(),
            Build::Late(how) => format!("{step} {how}-late{step}-"),
            Build::EarlierBad => one_of(&self.bad)?,
        })
    }

    /// The version serves, and fails on the events that only now arrive.
    fn fail_late(&mut self, label: &str, how: &str, step: usize) {
        send(&self.project, (0..10).map(|n| format!("before{step}-{n}")));
        self.sent += 10;
        self.until("rows of the new version", |run| {
            hits(&run.project) == run.sent && versions(&run.project).iter().any(|(_, version)| version == label)
        });
        // In its canary period.
        if self.rng.random_bool(0.5) {
            self.restart();
        }
        let rolled_back = self.daemon().count_logged(ROLLED_BACK);
        // A few more rejects are allowed. One event that never ends takes long enough.
        let late = if how == "rejects" { 10 } else { 1 };
        send(&self.project, (0..late).map(|n| format!("late{step}-{n}")));
        self.sent += late;
        self.until("rolled back", |run| run.daemon().count_logged(ROLLED_BACK) > rolled_back);
        // In the rollback. A restart begins to count the rejects of a canary period again: then these are too few.
        if how != "rejects" && self.rng.random_bool(0.5) {
            self.daemon.take().unwrap().kill();
            self.daemon = Some(Daemon::start(&self.project));
            self.steps.push("killed in the rollback".to_owned());
        }
    }

    /// Until what a failed version wrote is rebuilt, and the version that should serve does.
    fn until_serving(&mut self, step: usize) {
        let (probe, mut probes) = (format!("probe{step}-"), 0);
        self.until("rows of the newest good version", |run| {
            send(&run.project, [format!("{probe}{probes}")]);
            probes += 1;
            run.sent += 1;
            let versions = versions(&run.project);
            let newest = versions.iter().rev().find(|(id, _)| id.starts_with(&probe)).map(|(_, version)| version);
            newest == Some(&run.serving) && versions.iter().all(|(_, version)| run.good.contains(version))
        });
    }

    fn send_some(&mut self) {
        let id = |n: usize| if n.is_multiple_of(10) { format!("boom{n}") } else { format!("e{n}") };
        send(&self.project, (self.sent..self.sent + EVENTS).map(id));
        self.sent += EVENTS;
    }

    fn restart(&mut self) {
        let daemon = self.daemon.take().unwrap();
        match self.rng.random_bool(0.5) {
            true => daemon.kill(),
            false => drop(daemon.stop()),
        }
        self.daemon = Some(Daemon::start(&self.project));
        self.steps.push("restarted".to_owned());
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let what = format!("{:?}: {what}", self.steps);
        let deadline = std::time::Instant::now() + TIMEOUT;
        while !condition(self) {
            assert!(std::time::Instant::now() < deadline, "not within {TIMEOUT:?}: {what}\n{}", self.daemon().log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn finish(mut self) {
        self.until("all rows", |run| hits(&run.project) == run.sent);
        self.daemon.take().unwrap().stop();
        let Self { project, sent, serving, phases, steps, .. } = self;
        println!("{} steps: {steps:?}", steps.len());
        let ids = project.query("SELECT count(DISTINCT event_id) AS n FROM hits");
        assert_eq!(ids[0]["n"], sent, "{steps:?}");
        check_commits(&project, &phases, &steps);
        // The last build may be one that never starts; what verifies loads the newest one.
        install(&project, &version(&serving));
        verify_ok(&project, &["--deep"]);
    }
}

/// Each commit with progress, and each correction, is by a version that was allowed to serve then.
#[track_caller]
fn check_commits(project: &Project, phases: &[(i64, BTreeSet<String>)], steps: &[String]) {
    let mut checked = 0;
    for (number, entry) in entries(&project.path("hits")) {
        for info in actions(&entry).iter().map(|action| &action["commitInfo"]) {
            let Some(by) = info["silverd"]["plugin"]["digest"].as_str() else { continue };
            let at_ms = info["timestamp"].as_i64().unwrap();
            let (_, allowed) = phases.iter().rev().find(|(from_ms, _)| *from_ms <= at_ms).unwrap();
            assert!(
                allowed.contains(by),
                "version {number} of the table, at {at_ms}, is by {by}: {steps:?} {phases:?}"
            );
            checked += 1;
        }
    }
    assert!(checked > STEPS, "{checked} commits");
}

/// A plugin whose rows lack columns of the table.
fn other_schema() -> Vec<u8> {
    let wasm = silverd::plugin::build::wasm_of(&root().join("plugins/page_view")).unwrap();
    std::fs::read(wasm).unwrap()
}

/// The event and the version of each row, in the order of their offsets within a partition.
fn versions(project: &Project) -> Vec<(String, String)> {
    if !project.has_table("hits") {
        return Vec::new();
    }
    let rows = project.query("SELECT event_id, version FROM hits ORDER BY ingested_at, _partition, _offset");
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "event_id"), text(row, "version"))).collect()
}
