//! A simulated daemon: the production pipeline, with what it stands on.

use std::hash::Hash;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Context;
use std::time::SystemTime;

use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};
use tokio_util::sync::CancellationToken;

use super::chaos::DAEMONS;
use super::checker::TABLES;
use super::disk::SimulatedDisk;
use super::source::SimulatedSource;
use super::world::World;
use crate::pipeline::status::RunState;
use crate::pipeline::{RunOptions, run};
use crate::runtime::file_watch::FileWatch;
use crate::runtime::machine::{self, Machine};
use crate::source::Sources;

/// On the way to the disk, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Request,
    Answer,
}

/// What is wrong with a request to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Fails,
    /// It is done, and the daemon does not learn it.
    LosesAnswer,
    /// It is done, and done again: as when a network repeats it.
    Twice,
}

/// A part of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Source,
    /// What it does with one of the tables.
    Table(usize),
}

/// The parts of a daemon.
const PARTS: usize = 1 + TABLES.len();
/// Each part of each daemon wakes up in milliseconds of its own, and so does the chaos: two things never happen at once.
pub(super) const PHASES: u64 = 16;
pub(super) const PHASE_OF_CHAOS: u64 = PHASES - 1;
const _: () = assert!(PARTS * DAEMONS < PHASES as usize);

impl Part {
    fn index(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Table(table) => 1 + table,
        }
    }
}

/// What one daemon stands on, from its start to its end.
pub(super) struct Surroundings {
    pub(super) world: Arc<World>,
    id: u64,
    place: usize,
    is_dead: AtomicBool,
}

impl Surroundings {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Relaxed)
    }

    /// The part whose files are at a location.
    pub(super) fn part_of(&self, location: &ObjectPath) -> Part {
        let file = format!("/{location}/");
        let folder = self.world.folder().to_string_lossy();
        let at = TABLES.iter().position(|table| file.starts_with(&format!("{folder}/{table}/")));
        Part::Table(at.expect("silverd reads and writes its tables"))
    }

    /// Draws for something that happens now. What is drawn does not depend on what else happens now, and in which order.
    fn draw<T>(&self, what: impl Hash, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.world.rng_of((self.id, what)))
    }

    async fn sleep(&self, part: Part, ms: u64) {
        let phase = self.place * PARTS + part.index();
        self.world.sleep(ms, phase as u64).await;
    }

    /// A request reaches the disk, or its answer the daemon. What is read on other threads takes no time.
    pub(super) async fn step(&self, step: Step, location: &ObjectPath) -> Result<(), &'static str> {
        self.world.count_step();
        if self.world.is_on_thread() && !self.is_dead() {
            let part = self.part_of(location);
            let ms = self.draw((step, part, name(location)), |rng| match rng.random_range(0..400) {
                0 => rng.random_range(200..3_000),
                1..20 => rng.random_range(5..80),
                _ => 0,
            });
            self.sleep(part, ms).await;
        }
        if self.is_dead() { Err("simulated: the daemon was killed") } else { Ok(()) }
    }

    pub(super) fn fault(&self, location: &ObjectPath) -> Option<Fault> {
        if !self.world.has_faults() || !self.world.is_on_thread() {
            return None;
        }
        let fault =
            self.draw(("fault", self.part_of(location), name(location)), |rng| match rng.random_range(0..600) {
                0..4 => Some(Fault::Fails),
                4..7 => Some(Fault::LosesAnswer),
                7..10 => Some(Fault::Twice),
                _ => None,
            })?;
        self.world.happened(match fault {
            Fault::Fails => "failed requests",
            Fault::LosesAnswer => "lost answers",
            Fault::Twice => "repeated requests",
        });
        Some(fault)
    }

    pub(super) fn breaks_connection(&self) -> bool {
        let breaks = self.world.has_faults() && self.draw("connection", |rng| rng.random_range(0..150) == 0);
        if breaks {
            self.world.happened("broken connections");
        }
        breaks
    }

    pub(super) fn is_due(&self) -> bool {
        self.draw("due", |rng| rng.random_range(0..3) == 0)
    }

    /// The source waits for records.
    pub(super) async fn wait(&self) {
        let ms = self.draw("wait", |rng| rng.random_range(5..120));
        self.sleep(Part::Source, ms).await;
    }

    /// A file was written.
    pub(super) fn wrote(&self, location: &ObjectPath) {
        self.world.wrote(self.id, &format!("/{location}"));
    }
}

/// What the requests for a file have in common in each run: the names of data files are random.
fn name(location: &ObjectPath) -> Option<&str> {
    location.filename().filter(|name| !name.ends_with(".parquet") || name.contains("checkpoint"))
}

/// The machine of a daemon.
struct SimulatedMachine(Arc<Surroundings>);

impl Machine for SimulatedMachine {
    fn now(&self) -> SystemTime {
        self.0.world.now()
    }

    fn store(&self, disk: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(SimulatedDisk::new(disk, self.0.clone()))
    }
}

pub(super) struct Daemon {
    surroundings: Arc<Surroundings>,
    machine: Arc<dyn Machine>,
    tasks: LocalSet,
    run: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Daemon {
    pub(super) fn start(world: &Arc<World>, id: u64, place: usize) -> Self {
        let surroundings = Surroundings { world: world.clone(), id, place, is_dead: AtomicBool::new(false) };
        let surroundings = Arc::new(surroundings);
        let of_source = surroundings.clone();
        let options = RunOptions {
            pipeline: world.pipeline.subscribe(),
            sources: Sources::new(move |options| Ok(Box::new(SimulatedSource::start(options, of_source.clone())))),
            broker: None,
            base_dir: Path::new(world.folder()).to_owned(),
            host: world.host.clone(),
            loaded: world.loaded(),
            watch: Some(FileWatch::without_notifications()),
            drain: false,
            bytes_read: Arc::default(),
            recent_rows: Arc::default(),
            days: None,
            status: watch::channel(RunState::Starting).0,
        };
        let (tasks, stop) = (LocalSet::new(), CancellationToken::new());
        let run = tasks.spawn_local(run(options, stop.clone()));
        let machine = Arc::new(SimulatedMachine(surroundings.clone()));
        Self { surroundings, machine, tasks, run, stop }
    }

    pub(super) fn id(&self) -> u64 {
        self.surroundings.id
    }

    /// Runs what can be run.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        let before = machine::replace(Some(self.machine.clone()));
        let _ = Pin::new(&mut self.tasks).poll(context);
        machine::replace(before);
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.run.is_finished()
    }

    /// What `pipeline::run` returned; `None` if it panicked.
    pub(super) async fn end(self) -> Option<anyhow::Result<()>> {
        let Self { tasks, run, machine, surroundings, .. } = self;
        surroundings.is_dead.store(true, Relaxed);
        let ended = run.await.ok();
        drop_as(machine, tasks);
        ended
    }

    /// As `kill -9`: it does nothing more, wherever it is.
    pub(super) fn kill(self) {
        self.surroundings.is_dead.store(true, Relaxed);
        drop_as(self.machine, self.tasks);
    }
}

fn drop_as(machine: Arc<dyn Machine>, tasks: LocalSet) {
    let before = machine::replace(Some(machine));
    drop(tasks);
    machine::replace(before);
}
