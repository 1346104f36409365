//! Simulation: three daemons run the production pipeline on one thread and one folder, on a paused clock, under a seed. What
//! is simulated is what they stand on: Kafka (a topic and a group), the disk's answers, the wall clock, and whoever kills
//! them.
//!
//! ```text
//!   chaos ─▶ kill · pause · stop · start · swap a plugin · edit pipeline.toml · step the clock
//!     │
//!     ▼
//!   Daemon ×3: pipeline::run ── Source ──▶ SimulatedSource ─▶ Topic, Group       (source.rs, group.rs, topic.rs)
//!     │                                                                                      │ what was sent
//!     └─ tables ── ObjectStore ──▶ SimulatedDisk ─▶ the disk                     (disk.rs)   ▼
//!                   slow · fails · loses its answer · does it twice ─ each commit ──▶ Checker  (checker.rs)
//! ```
//!
//! Time passes only when nothing else can happen: so the order of events is that of the delays, which the seed draws. Each
//! commit is checked against the invariants and against what was sent, when it is made; at the end, every row.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chaos;
mod checker;
mod daemon;
mod disk;
mod group;
mod plugin;
mod rows;
mod source;
mod topic;
mod world;

use std::time::Instant;

use self::world::{Run, run};

/// The variables that choose other runs than those of the suite.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |number| number.parse().expect("a number"))
}

/// What has to happen in a simulation of some length.
const FAULTS: [&str; 10] = [
    "broken connections",
    "clock steps",
    "edits",
    "failed requests",
    "kills",
    "lost answers",
    "pauses",
    "repeated requests",
    "stops",
    "swaps",
];

/// Runs seeds one after the other, until this many steps were done.
#[test]
fn three_daemons_write_every_event_once_whatever_happens() {
    let steps = number("SILVERD_TEST_STEPS", 100_000);
    let mut seed = number("SILVERD_TEST_SEED", 1);
    let (began, first, mut total) = (Instant::now(), seed, Run::default());
    while total.steps < steps {
        let found = run(seed);
        assert!(found.violations.is_empty(), "seed {seed}:\n{}", found.violations.join("\n"));
        total.add(&found);
        seed += 1;
    }
    println!("{}", total.summary(first, seed - 1, began.elapsed()));
    if total.steps < 100_000 {
        return;
    }
    let missing: Vec<_> = FAULTS.iter().filter(|kind| !total.faults.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "no {missing:?} happened");
}

/// What a seed does is decided by the seed.
#[test]
fn a_seed_gives_the_same_run_again() {
    let seed = number("SILVERD_TEST_SEED", 1);
    let (once, again) = (run(seed).trace, run(seed).trace);
    let differs = once.iter().zip(&again).position(|(once, again)| once != again);
    let differs = differs.or_else(|| (once.len() != again.len()).then_some(once.len().min(again.len())));
    assert_eq!(differs.map(|at| (once.get(at), again.get(at))), None, "after {:?}", differs.map(|at| &once[..at]));
}
