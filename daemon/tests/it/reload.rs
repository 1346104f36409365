//! Hot reload, by the real binary: versions come and go under load, bad ones stay out or are rolled back, pipeline.toml is
//! edited at random, and no event is lost or judged twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::guest::{self, ALLOCATOR, REALLOC};
use super::harness::{Project, root, wait};
use super::kill::terminate;
use super::truth;
use super::verify::verify;

const MARKER: &[u8] = b"label:one";
const LABEL: usize = 32;

/// The plugin of `plugins/fixtures/versions` with another label.
fn version(label: &str) -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let mut wasm = BUILT
        .get_or_init(|| {
            let wasm = silverd::transform::build::wasm_of(&root().join("plugins/fixtures/versions")).unwrap();
            std::fs::read(wasm).unwrap()
        })
        .clone();
    let at = wasm.windows(MARKER.len()).position(|bytes| bytes == MARKER).unwrap();
    let text = format!("{:<LABEL$}", format!("label:{label}"));
    wasm[at..at + LABEL].copy_from_slice(text.as_bytes());
    wasm
}

fn digest(wasm: &[u8]) -> String {
    silverd::transform::Digest::of(wasm).as_str().to_owned()
}

/// A project with a table `hits` of page views, whose plugin is a file.
fn project(name: &str, sections: &str) -> Project {
    let hits = "[silver.hits]\nplugin = \"hits.wasm\"\nmatch = { field = \"event_type\", equals = \"page_view\" }\nevent_date \
                = \"ts\"\n";
    let project = Project::with(name, &format!("{sections}\n{hits}"));
    put(&project, &version("one"));
    project
}

/// Puts a version in its place, as cargo does: whole.
fn put(project: &Project, wasm: &[u8]) {
    let folder = project.folder.path();
    std::fs::write(folder.join("hits.new"), wasm).unwrap();
    std::fs::rename(folder.join("hits.new"), folder.join("hits.wasm")).unwrap();
}

/// A daemon and what it says, one JSON object a line.
pub struct Daemon {
    child: Child,
    pub log: PathBuf,
}

impl Daemon {
    pub fn start(project: &Project) -> Self {
        static STARTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = project.folder.path().join(format!("log.{number}"));
        let child = project
            .command(&["run", "--log-format", "json"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How many lines have this in their message.
    fn told(&self, text: &str) -> usize {
        std::fs::read_to_string(&self.log).unwrap().lines().filter(|line| line.contains(text)).count()
    }

    #[track_caller]
    fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.until_within(Duration::from_secs(60), what, condition);
    }

    #[track_caller]
    pub fn until_within(&mut self, patience: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !condition(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "waited in vain: {what}\n{}",
                std::fs::read_to_string(&self.log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a line with this is told once more than before.
    #[track_caller]
    fn until_told(&mut self, text: &str, times: usize) {
        self.until(text, |daemon| daemon.told(text) >= times);
    }

    #[track_caller]
    pub fn stop(mut self) -> Vec<Value> {
        terminate(&self.child);
        let ended = wait(&mut self.child, Duration::from_secs(60));
        let lines = self.lines();
        assert!(ended.is_some_and(|status| status.success()), "{lines:#?}");
        lines
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A generator that sends until it is stopped.
pub struct Load(Child);

impl Load {
    pub fn start(project: &Project, eps: u64) -> Self {
        let (address, eps) = (project.broker.address(), eps.to_string());
        let args = ["generate", "--bootstrap", &address, "--topic", &project.topic, "--eps", &eps, "--for", "600s"];
        Self(project.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        terminate(&self.0);
        let _ = wait(&mut self.0, Duration::from_secs(30));
    }
}

fn send(project: &Project, ids: impl IntoIterator<Item = String>) {
    let line = |id: String| {
        format!(r#"{{"event_type": "page_view", "event_id": "{id}", "ts": "2025-08-16T14:50:49Z"}}"#) + "\n"
    };
    let file = project.folder.path().join("events.jsonl");
    std::fs::write(&file, ids.into_iter().map(line).collect::<String>()).unwrap();
    project.generate(&["--file", file.to_str().unwrap()]);
}

fn rows(project: &Project) -> usize {
    let path = project.path("hits");
    if path.join("_delta_log").is_dir() { truth::rows(&path).len() } else { 0 }
}

/// How many rows each version made.
fn by_version(project: &Project) -> BTreeMap<String, u64> {
    let sql = "select version, count(*) as n from hits group by version";
    let answer: Vec<Value> = serde_json::from_str(&project.silverd(&["query", "--json", sql])).unwrap();
    answer.iter().map(|row| (row["version"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap())).collect()
}

#[track_caller]
fn is_proven(project: &Project) {
    let (report, code) = verify(project.folder.path(), &["--deep"]);
    assert_eq!(code, Some(0), "{report:#}");
}

/// Each span of a table's history goes on where the one before it ended, in every partition.
#[track_caller]
fn spans_follow(project: &Project) -> Vec<Value> {
    let spans: Vec<Value> = serde_json::from_str(&project.silverd(&["plugin", "history", "hits", "--json"])).unwrap();
    let mut ends = BTreeMap::<String, i64>::new();
    for span in &spans {
        for (log, range) in span["ranges"].as_object().unwrap() {
            let (start, end) = (range[0].as_i64().unwrap(), range[1].as_i64().unwrap());
            let before = ends.insert(log.clone(), end).unwrap_or(start);
            assert_eq!(before, start, "{log} in {span}");
        }
    }
    spans
}

/// Guests that must stay out, with what is told of each.
fn bad_ones() -> Vec<(&'static str, Vec<u8>)> {
    let good = version("two");
    let no_world = guest::component(&guest::core(&format!("{ALLOCATOR} {REALLOC}")));
    let other_columns = silverd::transform::build::wasm_of(&root().join("plugins/page_view")).unwrap();
    vec![
        ("parse it: unexpected end-of-file", good[..good.len() / 2].to_vec()),
        ("exports no interface with a `transform`", no_world),
        ("its rows do not fit the table", std::fs::read(other_columns).unwrap()),
        ("this version never starts", version("bad-start")),
        ("and max_new_rejects allows 10.0 %", version("rejects-all")),
    ]
}

/// A hundred swaps under load, with bad versions in between.
#[test]
fn versions_come_and_go_under_load() {
    let project = project("swaps", "[commit]\ninterval_ms = 200\n");
    let (swaps, eps) = if project.broker.is_kafka() { (100, 20_000) } else { (10, 2_000) };
    let mut daemon = Daemon::start(&project);
    let load = Load::start(&project, eps);
    let (rows_of, swapped) = ("the first rows of the new version", "the plugin was swapped");
    daemon.until("the first rows", |_| rows(&project) > 0);
    let (good, bad) = ([version("two"), version("one")], bad_ones());
    let mut rng = StdRng::seed_from_u64(7);
    let mut labels: BTreeMap<String, String> =
        [(digest(&good[0]), "two".to_owned()), (digest(&good[1]), "one".to_owned())].into();
    for swap in 0..swaps {
        if swap % 10 == 5 {
            // One that was never compiled before.
            let label = format!("new-{swap}");
            let wasm = version(&label);
            labels.insert(digest(&wasm), label);
            put(&project, &wasm);
        } else {
            put(&project, &good[swap % 2]);
        }
        daemon.until_told(swapped, swap + 1);
        // Now and then the next one comes before the table has any row of this one.
        if rng.random_bool(0.8) {
            daemon.until("its rows", |daemon| {
                daemon.lines().iter().rev().find_map(message).is_some_and(|told| told == rows_of)
            });
        }
        if swap % (swaps / 10) == 3 % (swaps / 10) {
            let (why, wasm) = &bad[swap / (swaps / 10) % bad.len()];
            let before = daemon.told(why);
            put(&project, wasm);
            daemon.until_told(why, before + 1);
        }
    }
    drop(load);
    let lines = daemon.stop();
    let field = |message: &str, name: &str| {
        let of = lines.iter().filter(|line| line["fields"]["message"] == message);
        let mut found: Vec<u64> = of.filter_map(|line| line["fields"][name].as_u64()).collect();
        found.sort_unstable();
        found
    };
    let (pause, saved) = (field(swapped, "pause_us"), field(rows_of, "since_saved_ms"));
    assert_eq!(pause.len(), swaps);
    println!(
        "{swaps} swaps at {eps} events/s: pause {} µs at the median, {} µs at most; from the save to the first rows {} ms at \
         the median, {} ms at most",
        pause[swaps / 2],
        pause[swaps - 1],
        saved[saved.len() / 2],
        saved[saved.len() - 1]
    );

    project.silverd(&["run", "--drain"]);
    is_proven(&project);
    let spans = spans_follow(&project);
    let mut made = BTreeMap::<String, u64>::new();
    for span in &spans {
        let label = labels.get(span["digest"].as_str().unwrap()).expect("a good version");
        *made.entry(label.clone()).or_default() += span["counts"]["rows"].as_u64().unwrap();
    }
    made.retain(|_, rows| *rows > 0);
    assert_eq!(by_version(&project), made, "each row says which version made it, and so does its commit");
}

fn message(line: &Value) -> Option<&str> {
    let told = line["fields"]["message"].as_str()?;
    ["the first rows of the new version", "the plugin was swapped"].contains(&told).then_some(told)
}

/// A version that only fails on live events goes by itself, what it wrote is made anew, and it stays away.
#[test]
fn a_version_that_fails_on_live_events_is_rolled_back() {
    for (label, why) in [
        ("two traps-on-boom", "it failed on"),
        ("two rejects-boom", "which the version before it takes; 10.0 % are allowed"),
    ] {
        let project = project("rolled-back", "[commit]\ninterval_ms = 100\nrows_max = 300\n");
        let mut daemon = Daemon::start(&project);
        send(&project, (0..2_000).map(|n| format!("a{n}")));
        daemon.until("the first rows", |_| rows(&project) == 2_000);
        put(&project, &version(label));
        daemon.until_told("the plugin was swapped", 1);
        send(&project, (0..600).map(|n| format!("b{n}")));
        daemon.until("rows of the new version", |_| rows(&project) == 2_600);
        assert_eq!(by_version(&project)[label], 600);

        send(&project, (0..400).map(|n| if n % 2 == 0 { format!("boom{n}") } else { format!("c{n}") }));
        daemon.until_told("the new version is rolled back", 1);
        daemon.until("every event is there", |_| rows(&project) == 3_000);
        daemon.until_told("what the bad version wrote was made anew", 1);
        daemon.until("its rows are gone", |_| by_version(&project) == BTreeMap::from([("one".to_owned(), 3_000)]));
        let told = daemon.stop();
        assert!(
            told.iter().any(|line| line["fields"]["message"].as_str().unwrap_or_default().contains(why)),
            "{told:#?}"
        );
        is_proven(&project);

        // A restart does not take it up again, though it lies there still.
        let mut daemon = Daemon::start(&project);
        send(&project, (0..100).map(|n| format!("d{n}")));
        daemon.until("rows after the restart", |_| rows(&project) == 3_100);
        daemon.until_told("is held off, and ", 1);
        assert_eq!(by_version(&project), BTreeMap::from([("one".to_owned(), 3_100)]));
        put(&project, &version("three"));
        daemon.until_told("the plugin was swapped", 1);
        send(&project, (0..100).map(|n| format!("boom-e{n}")));
        daemon.until("rows of the third version", |_| rows(&project) == 3_200);
        daemon.stop();
        assert_eq!(by_version(&project)["three"], 100);
        is_proven(&project);
    }
}

/// Bad events are no reason to roll a version back: the old one rejects them, too.
#[test]
fn bad_events_do_not_roll_a_version_back() {
    let project = project("bad-events", "[commit]\ninterval_ms = 100\n");
    put(&project, &version("one traps-on-boom"));
    let mut daemon = Daemon::start(&project);
    send(&project, (0..100).map(|n| format!("a{n}")));
    daemon.until("the first rows", |_| rows(&project) == 100);
    put(&project, &version("two traps-on-boom"));
    daemon.until_told("the plugin was swapped", 1);
    send(&project, (0..300).map(|n| if n % 3 == 0 { format!("boom{n}") } else { format!("b{n}") }));
    daemon.until("the good events", |_| rows(&project) == 300);
    daemon.stop();
    assert_eq!(by_version(&project)["two traps-on-boom"], 200);
    assert_eq!(truth::rows(&project.path("quarantine")).len(), 100);
    is_proven(&project);
}

/// Settings and reference files are part of a version; a version that was kept serves while another is broken; somebody
/// rolls back by hand.
#[test]
fn what_a_plugin_is_given_and_what_is_kept() {
    let project = project("kept", "[commit]\ninterval_ms = 100\n");
    let folder = project.folder.path();
    std::fs::write(folder.join("given.txt"), "first").unwrap();
    let pipeline = folder.join("pipeline.toml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let with = |more: &str| text.replace("event_date = \"ts\"\n", &format!("event_date = \"ts\"\n{more}\n"));
    std::fs::write(&pipeline, with("reference = { given = \"given.txt\" }")).unwrap();
    let given = || {
        let sql = "select given, count(*) as n from hits group by given order by given";
        let answer: Vec<Value> = serde_json::from_str(&project.silverd(&["query", "--json", sql])).unwrap();
        answer.iter().map(|row| format!("{}={}", row["given"].as_str().unwrap_or("-"), row["n"])).collect::<Vec<_>>()
    };

    let mut daemon = Daemon::start(&project);
    let (mut sent, mut swaps) = (0, 0);
    let mut ten_more = |daemon: &mut Daemon| {
        send(&project, (0..10).map(|n| format!("e{}", sent + n)));
        sent += 10;
        let sent = sent;
        daemon.until("ten rows more", |_| rows(&project) == sent);
    };
    ten_more(&mut daemon);
    let mut swapped = |daemon: &mut Daemon| {
        swaps += 1;
        daemon.until_told("the plugin was swapped", swaps);
    };
    std::fs::write(folder.join("given.txt"), "second").unwrap();
    swapped(&mut daemon);
    ten_more(&mut daemon);
    std::fs::write(&pipeline, with("settings = { given = \"third\" }")).unwrap();
    swapped(&mut daemon);
    ten_more(&mut daemon);
    assert_eq!(given(), ["first=10", "second=10", "third=10"]);
    // A version whose new rows would tell of nothing new is told to be the same, but for what differs.
    put(&project, &version("two"));
    swapped(&mut daemon);
    ten_more(&mut daemon);
    let told = std::fs::read_to_string(&daemon.log).unwrap();
    assert!(told.contains("`version` differs in 30 ("), "{told}");
    daemon.stop();

    // The daemon starts without what lies in the plugin's place.
    put(&project, b"\0asm no more");
    let mut daemon = Daemon::start(&project);
    ten_more(&mut daemon);
    daemon.until_told("the new version stays out", 1);
    assert_eq!(by_version(&project)["two"], 20);
    put(&project, &version("two"));

    let told = project.silverd(&["plugin", "rollback", "hits"]);
    let (one, two) = (digest(&version("one")), digest(&version("two")));
    assert!(told.starts_with(&format!("hits: version {} instead of {}", &one[..12], &two[..12])), "{told}");
    daemon.until_told("the plugin was swapped", 1);
    ten_more(&mut daemon);
    assert_eq!(by_version(&project)["two"], 20);
    daemon.stop();
    let mut daemon = Daemon::start(&project);
    ten_more(&mut daemon);
    assert_eq!(by_version(&project)["two"], 20, "a restart goes on with what was rolled back to");
    assert!(project.silverd(&["plugin", "rollback", "hits", "--release"]).contains("is held off no more"));
    daemon.until_told("the plugin was swapped", 1);
    ten_more(&mut daemon);
    daemon.stop();
    assert_eq!(by_version(&project), BTreeMap::from([("one".to_owned(), 50), ("two".to_owned(), 30)]));
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
}

/// pipeline.toml is edited at random under load; what is wrong is told and changes nothing.
#[test]
fn a_pipeline_that_is_edited_at_random_loses_nothing() {
    let seed = std::env::var("SILVERD_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("SILVERD_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let project = Project::new("edited", "interval_ms = 100");
    put(&project, &version("one"));
    let (edits, eps) = if project.broker.is_kafka() { (50, 20_000) } else { (10, 2_000) };
    let pipeline = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let mut daemon = Daemon::start(&project);
    let load = Load::start(&project, eps);
    daemon.until("the first rows", |_| project.path("page_view").join("_delta_log").is_dir());
    let (applied, refused) = ("and is applied: ", "nothing was changed: silverd goes on");
    let mut seen = BTreeSet::new();
    let mut last = text.clone();
    for edit in 0..edits {
        let (name, edited, good) = edited(&text, &mut rng, edit);
        seen.insert(name);
        if edited == last {
            continue;
        }
        let (told, before) = if good { (applied, daemon.told(applied)) } else { (refused, daemon.told(refused)) };
        write(&pipeline, &edited, rng.random());
        daemon.until(&format!("{name} is {told}"), |daemon| daemon.told(told) > before);
        if good {
            last = edited;
        }
    }
    write(&pipeline, &text, true);
    drop(load);
    println!("{edits} edits of {} kinds at {eps} events/s", seen.len());
    let lines = daemon.stop();
    let mistake =
        lines.iter().find_map(|line| line["fields"]["message"].as_str().filter(|told| told.contains("unknown key")));
    if let Some(mistake) = mistake {
        assert!(mistake.contains("pipeline.toml:") && mistake.contains("did you mean"), "{mistake}");
    }
    project.silverd(&["run", "--drain"]);
    truth::check(&project);
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
}

fn write(path: &Path, text: &str, whole: bool) {
    if whole {
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    } else {
        std::fs::write(path, text).unwrap();
    }
}

/// An edit, its name, and whether it is right.
fn edited(text: &str, rng: &mut StdRng, edit: usize) -> (&'static str, String, bool) {
    let add = |more: &str| format!("{text}\n{more}\n");
    let table = |name: &str| {
        let from = text.find(&format!("[silver.{name}]")).unwrap();
        let to = text[from + 1..].find("\n[").map_or(text.len(), |to| from + 2 + to);
        from..to
    };
    let without = |name: &str| {
        let mut text = text.to_owned();
        text.replace_range(table(name), "");
        text
    };
    let some = edit + rng.random_range(1..4);
    match rng.random_range(0..12) {
        0 => ("another cadence", text.replace("interval_ms = 100", &format!("interval_ms = {}", 50 + some)), true),
        1 => ("a table less", without(["page_view", "add_to_cart", "order_placed"][some % 3]), true),
        2 => (
            "a table more",
            add(&format!(
                "[silver.hits]\nplugin = \"hits.wasm\"\nmatch = {{ field = \"event_type\", equals = \"page_view\" }}\n\
                 event_date = \"ts\"\nsettings = {{ given = \"{some}\" }}"
            )),
            true,
        ),
        3 => ("limits", add(&format!("[limits]\nbatch_rows_max = {}", 1_000 + some)), true),
        4 => (
            "gold",
            add(&format!(
                "[gold.views]\nsql = \"SELECT event_date, count(*) AS n, {some} AS x FROM page_view GROUP BY event_date\""
            )),
            true,
        ),
        5 => (
            "the consumer",
            text.replace("[source]\n", &format!("[source]\nkafka = {{ \"fetch.wait.max.ms\" = {} }}\n", 100 + some)),
            true,
        ),
        6 => (
            "compression",
            text.replace(
                "[silver.page_view]\n",
                &format!("[silver.page_view]\ncompression = \"zstd({})\"\n", 1 + some % 5),
            ),
            true,
        ),
        7 => ("no TOML", add("[silver.page_view"), false),
        8 => ("an unknown key", text.replace("interval_ms", "interval_sm"), false),
        9 => (
            "a plugin that is not there",
            add(
                "[silver.hits]\nplugin = \"nowhere.wasm\"\nmatch = { field = \"a\", equals = \"b\" }\nevent_date = \"ts\"",
            ),
            false,
        ),
        10 => ("SQL that is none", add("[gold.views]\nsql = \"SELEKT\""), false),
        _ => ("a section cut off", text[..text.find("[silver.add_to_cart]").unwrap() + 40].to_owned(), false),
    }
}
