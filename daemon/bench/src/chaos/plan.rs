//! Which faults happen, and when: drawn from the seed alone, so that the same seed gives the same faults in the same order.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::project::{BROKEN_EDITS, VERSIONS};

/// Something that goes wrong, or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; it starts again after a while.
    Kill { daemon: usize, away: Duration },
    /// SIGSTOP, and SIGCONT after a while: by then, the others have its partitions.
    Freeze { daemon: usize, time: Duration },
    /// SIGTERM; it starts again after a while.
    Stop { daemon: usize, away: Duration },
    /// One more daemon, for a while.
    Join { time: Duration },
    /// Kafka stops, and starts again after a while.
    StopBroker { away: Duration },
    /// No daemon can write to the tables' disk.
    FullDisk { time: Duration },
    /// Each synchronization, rename and link takes longer.
    SlowDisk { delay_us: u32, time: Duration },
    /// The clock of a daemon is this much ahead from now on.
    StepClock { daemon: usize, seconds: i64 },
    /// A plugin gets another version.
    Swap { plugin: usize, version: usize },
    /// A valid edit of pipeline.toml.
    Edit { number: u32 },
    /// An edit that must be refused. It is mended after a while.
    BrokenEdit { kind: usize, time: Duration },
}

/// A fault, and the time before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) wait: Duration,
    pub(super) fault: Fault,
}

/// What there is to break, and what of it is wanted.
#[derive(Clone)]
pub(super) struct Possible {
    pub(super) daemons: usize,
    pub(super) plugins: usize,
    /// Kafka may be stopped.
    pub(super) broker: bool,
    /// The disk and the clock can be wrong.
    pub(super) shim: bool,
    /// Only these kinds; empty: all.
    pub(super) only: Vec<Kind>,
    /// At most so long between two faults.
    pub(super) wait_max: Duration,
}

/// The steps, without end if anything is possible.
pub(super) struct Plan {
    random: StdRng,
    possible: Possible,
    kinds: Vec<(u32, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    Kill,
    Freeze,
    Stop,
    Join,
    StopBroker,
    FullDisk,
    SlowDisk,
    StepClock,
    Swap,
    Edit,
    BrokenEdit,
}

/// Steps of the clock, in seconds. Files are removed after a day, so the clock is never that far ahead.
const CLOCK_STEP_MAX: i64 = 2 * 3600;

impl Plan {
    pub(super) fn new(seed: u64, possible: Possible) -> Self {
        let kinds = [
            (30, Kind::Kill, true),
            (10, Kind::Freeze, true),
            (8, Kind::Stop, true),
            (6, Kind::Join, true),
            (5, Kind::StopBroker, possible.broker),
            (6, Kind::FullDisk, possible.shim),
            (6, Kind::SlowDisk, possible.shim),
            (8, Kind::StepClock, possible.shim),
            (10, Kind::Swap, possible.plugins > 0),
            (6, Kind::Edit, true),
            (5, Kind::BrokenEdit, true),
        ];
        let is_wanted = |kind: &Kind| possible.only.is_empty() || possible.only.contains(kind);
        let kinds = kinds.into_iter().filter(|(_, kind, is_possible)| *is_possible && is_wanted(kind));
        let kinds = kinds.map(|(weight, kind, _)| (weight, kind)).collect();
        Self { random: StdRng::seed_from_u64(seed), possible, kinds }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    fn kind(&mut self) -> Kind {
        let all: u32 = self.kinds.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.random.random_range(0..all);
        for (weight, kind) in &self.kinds {
            if drawn < *weight {
                return *kind;
            }
            drawn -= weight;
        }
        Kind::Kill
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..to))
    }

    fn daemon(&mut self) -> usize {
        self.random.random_range(0..self.possible.daemons)
    }

    fn fault(&mut self) -> Fault {
        match self.kind() {
            Kind::Kill => Fault::Kill { daemon: self.daemon(), away: self.millis(0, 3_000) },
            // Longer than the session of a consumer of the classic protocol.
            Kind::Freeze => Fault::Freeze { daemon: self.daemon(), time: self.millis(1_000, 12_000) },
            Kind::Stop => Fault::Stop { daemon: self.daemon(), away: self.millis(100, 6_000) },
            Kind::Join => Fault::Join { time: self.millis(3_000, 15_000) },
            Kind::StopBroker => Fault::StopBroker { away: self.millis(500, 8_000) },
            Kind::FullDisk => Fault::FullDisk { time: self.millis(500, 8_000) },
            Kind::SlowDisk => {
                let delay_us = self.random.random_range(1_000..300_000);
                Fault::SlowDisk { delay_us, time: self.millis(2_000, 12_000) }
            }
            Kind::StepClock => {
                let daemon = self.daemon();
                Fault::StepClock { daemon, seconds: self.random.random_range(-CLOCK_STEP_MAX..=CLOCK_STEP_MAX) }
            }
            Kind::Swap => Fault::Swap {
                plugin: self.random.random_range(0..self.possible.plugins),
                version: self.random.random_range(0..VERSIONS),
            },
            Kind::Edit => Fault::Edit { number: self.random.random_range(0..1_000) },
            Kind::BrokenEdit => {
                let kind = self.random.random_range(0..BROKEN_EDITS);
                Fault::BrokenEdit { kind, time: self.millis(200, 4_000) }
            }
        }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.is_empty() {
            return None;
        }
        let wait = self.millis(0, self.possible.wait_max.as_millis() as u64 + 1);
        Some(Step { wait, fault: self.fault() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Possible {
        Possible {
            daemons: 3,
            plugins: 4,
            broker: true,
            shim: true,
            only: Vec::new(),
            wait_max: Duration::from_secs(4),
        }
    }

    #[test]
    fn a_seed_gives_the_same_steps() {
        let steps = |seed| Plan::new(seed, all()).take(100).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn only_what_is_possible_is_drawn() {
        let possible = Possible { daemons: 2, plugins: 0, broker: false, shim: false, ..all() };
        for step in Plan::new(1, possible).take(2_000) {
            match step.fault {
                Fault::Kill { daemon, .. } | Fault::Freeze { daemon, .. } | Fault::Stop { daemon, .. } => {
                    assert!(daemon < 2);
                }
                Fault::Join { .. } | Fault::Edit { .. } | Fault::BrokenEdit { .. } => {}
                other => panic!("{other:?} is not possible"),
            }
        }
    }

    #[test]
    fn only_what_is_wanted_is_drawn() {
        let kills = Plan::new(1, Possible { only: vec![Kind::Kill], ..all() });
        assert!(kills.take(100).all(|step| matches!(step.fault, Fault::Kill { .. })));
        let nothing = Possible { only: vec![Kind::StopBroker], broker: false, ..all() };
        assert_eq!(Plan::new(1, nothing).next(), None);
    }

    #[test]
    fn kills_are_most_frequent() {
        let mut counts = std::collections::BTreeMap::<String, u32>::new();
        for step in Plan::new(3, all()).take(5_000) {
            let name = format!("{:?}", step.fault);
            *counts.entry(name.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        assert_eq!(counts.len(), 11, "{counts:?}");
        assert!(counts.iter().all(|(name, count)| name == "Kill" || *count < counts["Kill"]), "{counts:?}");
    }
}
