//! What all daemons share: the seed, the clock, the topic, the folder, the checker.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use silverd_core::config::{self, Pipeline};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

use super::chaos;
use super::checker::Checker;
use super::daemon::PHASES;
use super::group::Group;
use super::plugin::{self, FILE, VERSIONS};
use super::topic::Topic;
use crate::plugin::{Host, Loaded, load_plugin};

/// When a simulation begins.
const BEGINNING: Duration = Duration::from_secs(1_790_000_000);

/// What came of one seed, or of several.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) violations: Vec<String>,
    /// Requests to the disk and their answers.
    pub(super) steps: u64,
    pub(super) commits: u64,
    pub(super) events: u64,
    pub(super) simulated: Duration,
    /// How often each kind of a fault happened.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// The commits and faults, in their order.
    pub(super) trace: Vec<String>,
}

impl Run {
    pub(super) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.commits += other.commits;
        self.events += other.events;
        self.simulated += other.simulated;
        for (kind, times) in &other.faults {
            *self.faults.entry(kind).or_default() += times;
        }
    }

    pub(super) fn summary(&self, first: u64, last: u64, took: Duration) -> String {
        let faults: Vec<_> = self.faults.iter().map(|(kind, times)| format!("{times} {kind}")).collect();
        format!(
            "seeds {first} to {last}: {} steps, {} commits, {} events, {} s simulated in {} s; {}; 0 violations",
            self.steps,
            self.commits,
            self.events,
            self.simulated.as_secs(),
            took.as_secs(),
            faults.join(", ")
        )
    }
}

pub(super) struct World {
    seed: u64,
    /// For what happens to the daemons.
    rng: Mutex<StdRng>,
    thread: ThreadId,
    began: Instant,
    clock_offset_ms: AtomicI64,
    steps: AtomicU64,
    commits: AtomicU64,
    has_faults: AtomicBool,
    is_over: AtomicBool,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<String>>,
    trace: Mutex<Vec<String>>,
    checker: Mutex<Checker>,
    folder: TempDir,
    pub(super) topic: Topic,
    pub(super) group: Group,
    pub(super) host: Arc<Host>,
    pub(super) pipeline: watch::Sender<Arc<Pipeline>>,
    plugins: Vec<Vec<u8>>,
    loaded: Mutex<Loaded>,
}

/// Runs a seed.
pub(super) fn run(seed: u64) -> Run {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let run = runtime.block_on(async {
        let world = World::new(seed);
        chaos::run(&world).await;
        world.finish()
    });
    runtime.shutdown_background();
    run
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        // In memory, where there is such a folder: no test depends on what a power cut leaves here.
        let shared_memory = Path::new("/dev/shm");
        let folder = if shared_memory.is_dir() { TempDir::new_in(shared_memory) } else { TempDir::new() }.unwrap();
        let plugins: Vec<_> = (1..=VERSIONS).map(plugin::module).collect();
        std::fs::write(folder.path().join(FILE), &plugins[0]).unwrap();
        let (host, pipeline) = (Host::new().unwrap(), pipeline(0));
        let load = |table: &config::SilverTable| {
            let plugin = load_plugin(table, folder.path(), host.clone(), pipeline.limits.clone()).unwrap();
            (table.name.clone(), Arc::new(plugin))
        };
        let loaded = pipeline.silver.iter().map(load).collect();
        Arc::new(Self {
            seed,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            thread: std::thread::current().id(),
            began: Instant::now(),
            clock_offset_ms: AtomicI64::new(0),
            steps: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            has_faults: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
            faults: Mutex::default(),
            violations: Mutex::default(),
            trace: Mutex::default(),
            checker: Mutex::new(Checker::new(&folder.path().canonicalize().unwrap())),
            topic: Topic::default(),
            group: Group::default(),
            host,
            pipeline: watch::channel(Arc::new(pipeline)).0,
            plugins,
            loaded: Mutex::new(loaded),
            folder,
        })
    }

    fn finish(&self) -> Run {
        Run {
            violations: std::mem::take(&mut self.violations.lock()),
            steps: self.steps.load(Relaxed),
            commits: self.commits.load(Relaxed),
            events: self.topic.total() as u64,
            simulated: self.began.elapsed(),
            faults: self.faults.lock().clone(),
            trace: std::mem::take(&mut self.trace.lock()),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The newest plugins, which a daemon needs not compile again.
    pub(super) fn loaded(&self) -> Loaded {
        self.loaded.lock().clone()
    }

    /// Somebody builds another version of the plugin.
    pub(super) fn build(&self, version: u32) {
        let file = self.folder().join(FILE);
        let part = file.with_extension("part");
        std::fs::write(&part, &self.plugins[version as usize]).unwrap();
        std::fs::rename(&part, &file).unwrap();
        let pipeline = self.pipeline.borrow().clone();
        let mut loaded = self.loaded.lock();
        for table in &pipeline.silver {
            let plugin = load_plugin(table, self.folder(), self.host.clone(), pipeline.limits.clone()).unwrap();
            loaded.insert(table.name.clone(), Arc::new(plugin));
        }
    }

    /// Whether this is the thread of the simulation. Delta's reader has threads of its own.
    pub(super) fn is_on_thread(&self) -> bool {
        std::thread::current().id() == self.thread
    }

    pub(super) fn now(&self) -> SystemTime {
        let elapsed = if self.is_on_thread() { self.began.elapsed() } else { Duration::ZERO };
        let now = UNIX_EPOCH + BEGINNING + elapsed;
        let offset = self.clock_offset_ms.load(Relaxed);
        let step = Duration::from_millis(offset.unsigned_abs());
        if offset < 0 { now - step } else { now + step }
    }

    /// Seconds since the epoch, by a clock that nobody steps.
    pub(super) fn second(&self) -> i64 {
        (BEGINNING + self.began.elapsed()).as_secs() as i64
    }

    pub(super) fn step_clock(&self, ms: i64) {
        self.clock_offset_ms.fetch_add(ms, Relaxed);
    }

    /// Numbers for what happens now.
    pub(super) fn rng_of(&self, what: impl Hash) -> StdRng {
        // Its keys are always the same.
        let mut hasher = DefaultHasher::new();
        (self.seed, self.began.elapsed().as_millis(), what).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    /// Waits for at least this time, until a millisecond of the phase.
    pub(super) async fn sleep(&self, ms: u64, phase: u64) {
        let earliest = self.began.elapsed().as_millis() as u64 + 1 + ms;
        let until = earliest + (phase + PHASES - earliest % PHASES) % PHASES;
        tokio::time::sleep_until(self.began + Duration::from_millis(until)).await;
    }

    pub(super) fn draw_with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock())
    }

    pub(super) fn draw(&self, min: Duration, max: Duration) -> Duration {
        Duration::from_micros(self.draw_with(|rng| rng.random_range(min.as_micros() as u64..=max.as_micros() as u64)))
    }

    pub(super) fn count_step(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    pub(super) fn has_faults(&self) -> bool {
        self.has_faults.load(Relaxed)
    }

    pub(super) fn end_faults(&self) {
        self.has_faults.store(false, Relaxed);
    }

    /// Whether no daemon is started any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    pub(super) fn happened(&self, kind: &'static str) {
        *self.faults.lock().entry(kind).or_default() += 1;
        self.note(kind.to_owned());
    }

    pub(super) fn note(&self, what: String) {
        self.trace.lock().push(format!("{} ms: {what}", self.began.elapsed().as_millis()));
    }

    /// A text as it is in each run of the seed: the folder and the data files have other names in each.
    pub(super) fn without_random_names(&self, text: &str) -> String {
        let text = text.replace(&*self.folder().to_string_lossy(), "");
        let mut parts = text.split("part-");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            text + "part" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '-')
        })
    }

    pub(super) fn violated(&self, what: String) {
        self.note(format!("VIOLATION {what}"));
        self.violations.lock().push(format!("after {} ms: {what}", self.began.elapsed().as_millis()));
    }

    pub(super) fn has_violations(&self) -> bool {
        !self.violations.lock().is_empty()
    }

    /// A daemon has written a file.
    pub(super) fn wrote(&self, daemon: u64, file: &str) {
        let Some((commit, wrong)) = self.checker.lock().check(file, &self.topic) else { return };
        self.commits.fetch_add(1, Relaxed);
        self.note(format!("daemon {daemon} commits {commit}"));
        for wrong in wrong {
            self.violated(format!("{commit}, of daemon {daemon}: {wrong}"));
        }
    }

    pub(super) fn is_complete(&self, table: &str) -> bool {
        self.checker.lock().is_complete(table, &self.topic)
    }
}

/// The pipelines between which somebody changes: each differs from the one before.
pub(super) fn pipeline(edit: u32) -> Pipeline {
    let rows_max = [1000, 25, 10][edit as usize % 3];
    let level = 1 + edit % 2;
    let text = format!(
        r#"
[source]
brokers = "simulated:9092"
topic = "events"

[commit]
interval = "100ms"
rows_max = {rows_max}

[bronze]
path = "bronze"

[quarantine]
path = "quarantine"
unrouted = "quarantine"

[silver.plain]
plugin = "{FILE}"
path = "plain"
match = {{ field = "k", equals = "e" }}
event_time = "ts"
compression = "zstd({level})"

[silver.deduplicated]
plugin = "{FILE}"
path = "deduplicated"
match = {{ field = "k", equals = "e" }}
event_time = "ts"
dedup = {{ by = ["id"], within = "10m" }}
"#
    );
    config::check(&text, &|_| None).unwrap_or_else(|errors| panic!("{errors:?}"))
}
