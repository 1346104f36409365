//! What happens to the daemons, by the seed; and how a run ends.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use super::checker::{SILVER, TABLES};
use super::daemon::{Daemon, PHASE_OF_CHAOS};
use super::plugin::VERSIONS;
use super::rows;
use super::world::{World, pipeline};
use crate::verify::{Report, SelectedTables, verify_logs};

pub(super) const DAEMONS: usize = 3;
/// The simulated time with faults.
const CHAOS: Duration = Duration::from_secs(60);
/// The simulated time in which the tables must have everything once the faults have ended.
const CATCH_UP: Duration = Duration::from_secs(300);

/// The places of the daemons.
struct Fleet {
    world: Arc<World>,
    next_id: u64,
    places: Vec<Place>,
}

enum Place {
    Empty {
        until: Instant,
    },
    Running(Daemon),
    /// As after SIGSTOP.
    Paused {
        daemon: Daemon,
        until: Instant,
    },
    Stopping {
        daemon: Daemon,
        until: Instant,
    },
}

pub(super) async fn run(world: &Arc<World>) {
    let now = Instant::now();
    let places = (0..DAEMONS).map(|_| Place::Empty { until: now }).collect();
    let fleet = RefCell::new(Fleet { world: world.clone(), next_id: 0, places });
    let daemons = std::future::poll_fn(|context| fleet.borrow_mut().poll(context));
    tokio::select! {
        biased;
        () = daemons => {}
        () = cause(world, &fleet) => {}
    }
    fleet.borrow_mut().kill_all();
    if !world.has_violations() {
        compare(world).await;
    }
}

async fn cause(world: &Arc<World>, fleet: &RefCell<Fleet>) {
    let end = Instant::now() + CHAOS;
    while Instant::now() < end && !world.has_violations() {
        let ms = world.draw_with(|rng| rng.random_range(20..900));
        world.sleep(ms, PHASE_OF_CHAOS).await;
        let second = world.second();
        world.draw_with(|rng| {
            let count = rng.random_range(0..40);
            world.topic.send(count, second, rng);
        });
        tend(fleet).await;
        fleet.borrow_mut().disturb();
    }
    world.end_faults();
    if !tend_until(world, fleet, || TABLES.iter().all(|table| world.is_complete(table))).await {
        let behind: Vec<_> = TABLES.into_iter().filter(|table| !world.is_complete(table)).collect();
        return world.violated(format!("{} do not get all events", behind.join(", ")));
    }
    fleet.borrow_mut().stop_all();
    if !tend_until(world, fleet, || !fleet.borrow().is_running()).await {
        world.violated("a daemon does not stop".to_owned());
    }
}

async fn tend(fleet: &RefCell<Fleet>) {
    let ended = fleet.borrow_mut().tend();
    ended.await_ends().await;
}

/// Goes on until this holds, or until something is wrong; false if it takes too long.
async fn tend_until(world: &World, fleet: &RefCell<Fleet>, holds: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() && !world.has_violations() {
        if begun.elapsed() > CATCH_UP {
            return false;
        }
        world.sleep(200, PHASE_OF_CHAOS).await;
        tend(fleet).await;
    }
    true
}

/// Every row, and what `silverd verify` says.
async fn compare(world: &World) {
    for wrong in rows::compare(world.folder(), &SILVER, &world.topic).await {
        world.violated(wrong);
    }
    let pipeline = world.pipeline.borrow().clone();
    let verified = verify_logs(&pipeline, world.folder(), &SelectedTables(None)).await.unwrap();
    let report = Report::new(&verified);
    if report.errors() > 0 {
        world.violated(format!("silverd verify:\n{}", report.text()));
    }
}

/// Daemons that have ended, and whether they were asked to.
struct Ended {
    world: Arc<World>,
    daemons: Vec<(Daemon, bool)>,
}

impl Ended {
    async fn await_ends(self) {
        for (daemon, was_asked) in self.daemons {
            let id = daemon.id();
            match (daemon.end().await, was_asked) {
                (None, _) => self.world.violated(format!("daemon {id} panicked")),
                (Some(Ok(())), false) => self.world.violated(format!("daemon {id} ended unasked")),
                (Some(Ok(())), true) => self.world.note(format!("daemon {id} has stopped")),
                // As a supervisor sees it: it is started again.
                (Some(Err(failure)), _) => {
                    let failure = self.world.without_random_names(&format!("{failure:#}"));
                    self.world.note(format!("daemon {id} failed: {failure}"));
                }
            }
        }
    }
}

impl Fleet {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for place in &mut self.places {
            match place {
                Place::Running(daemon) | Place::Stopping { daemon, .. } => daemon.poll(context),
                Place::Empty { .. } | Place::Paused { .. } => {}
            }
        }
        Poll::Pending
    }

    /// Starts, continues, and takes away those whose time has come.
    fn tend(&mut self) -> Ended {
        let mut ended = Ended { world: self.world.clone(), daemons: Vec::new() };
        let now = Instant::now();
        for (at, place) in self.places.iter_mut().enumerate() {
            let empty = Place::Empty { until: now + Duration::from_millis(700) };
            *place = match std::mem::replace(place, Place::Empty { until: now }) {
                Place::Empty { until } if until <= now && !self.world.is_over() => {
                    self.next_id += 1;
                    self.world.note(format!("daemon {} starts", self.next_id));
                    Place::Running(Daemon::start(&self.world, self.next_id, at))
                }
                Place::Paused { daemon, until } if until <= now || !self.world.has_faults() => Place::Running(daemon),
                Place::Running(daemon) if daemon.has_ended() => {
                    ended.daemons.push((daemon, false));
                    empty
                }
                Place::Stopping { daemon, .. } if daemon.has_ended() => {
                    ended.daemons.push((daemon, true));
                    empty
                }
                // Whoever started it waits no longer.
                Place::Stopping { daemon, until } if until <= now => {
                    self.world.happened("kills");
                    daemon.kill();
                    empty
                }
                as_before => as_before,
            };
        }
        ended
    }

    /// Something happens, or nothing.
    fn disturb(&mut self) {
        let world = self.world.clone();
        let at = world.draw_with(|rng| rng.random_range(0..DAEMONS));
        let what = world.draw_with(|rng| rng.random_range(0..100));
        match what {
            0..14 => self.replace(at, |world, daemon| {
                world.happened("kills");
                daemon.kill();
                Place::Empty { until: Instant::now() + world.draw(Duration::from_millis(10), Duration::from_secs(8)) }
            }),
            14..20 => self.replace(at, |world, daemon| {
                world.happened("pauses");
                let until = Instant::now() + world.draw(Duration::from_millis(50), Duration::from_secs(20));
                Place::Paused { daemon, until }
            }),
            20..26 => self.replace(at, |world, daemon| {
                world.happened("stops");
                daemon.stop();
                Place::Stopping { daemon, until: Instant::now() + Duration::from_secs(40) }
            }),
            26..30 => {
                world.happened("swaps");
                world.build(world.draw_with(|rng| rng.random_range(0..VERSIONS)));
            }
            30..34 => {
                world.happened("edits");
                let edit = world.draw_with(|rng| rng.random_range(0..6));
                world.pipeline.send_replace(Arc::new(pipeline(edit)));
            }
            34..37 => {
                world.happened("clock steps");
                world.step_clock(world.draw_with(|rng| rng.random_range(-900_000..900_000)));
            }
            _ => {}
        }
    }

    /// Does something to a daemon that runs.
    fn replace(&mut self, at: usize, what: impl FnOnce(&World, Daemon) -> Place) {
        let empty = Place::Empty { until: Instant::now() };
        self.places[at] = match std::mem::replace(&mut self.places[at], empty) {
            Place::Running(daemon) => what(&self.world, daemon),
            as_before => as_before,
        };
    }

    fn stop_all(&mut self) {
        self.world.end();
        for at in 0..DAEMONS {
            self.replace(at, |_, daemon| {
                daemon.stop();
                Place::Stopping { daemon, until: Instant::now() + 2 * CATCH_UP }
            });
        }
    }

    fn is_running(&self) -> bool {
        self.places.iter().any(|place| !matches!(place, Place::Empty { .. }))
    }

    fn kill_all(&mut self) {
        for place in self.places.drain(..) {
            match place {
                Place::Running(daemon) | Place::Paused { daemon, .. } | Place::Stopping { daemon, .. } => daemon.kill(),
                Place::Empty { .. } => {}
            }
        }
    }
}
