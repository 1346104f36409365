//! What happened in a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plan::Fault;
use super::project::GroupProtocol;

/// What is counted of the faults, in the order in which it is shown.
const FAULTS: [&str; 12] = [
    "kills",
    "freezes",
    "stops",
    "joins",
    "rebalances",
    "broker_restarts",
    "full_disks",
    "slow_disks",
    "clock_steps",
    "swaps",
    "edits",
    "broken_edits",
];

#[derive(Debug)]
pub(super) struct Summary {
    seed: u64,
    protocol: GroupProtocol,
    pub(super) seconds: u64,
    /// That Kafka has confirmed.
    pub(super) events: u64,
    pub(super) starts: u64,
    /// Of daemons whose disk was full or whose pipeline.toml was broken.
    pub(super) failed_starts: u64,
    /// By the names in [`FAULTS`].
    faults: BTreeMap<&'static str, u64>,
    pub(super) violations: Vec<String>,
}

impl Summary {
    pub(super) fn new(seed: u64, protocol: GroupProtocol) -> Self {
        let faults = FAULTS.into_iter().map(|name| (name, 0)).collect();
        Self { seed, protocol, seconds: 0, events: 0, starts: 0, failed_starts: 0, faults, violations: Vec::new() }
    }

    pub(super) fn count(&mut self, fault: Fault) {
        let name = match fault {
            Fault::Kill { .. } => "kills",
            Fault::Freeze { .. } => "freezes",
            Fault::Stop { .. } => "stops",
            Fault::Join { .. } => "joins",
            Fault::StopBroker { .. } => "broker_restarts",
            Fault::FullDisk { .. } => "full_disks",
            Fault::SlowDisk { .. } => "slow_disks",
            Fault::StepClock { .. } => "clock_steps",
            Fault::Swap { .. } => "swaps",
            Fault::Edit { .. } => "edits",
            Fault::BrokenEdit { .. } => "broken_edits",
        };
        *self.faults.entry(name).or_default() += 1;
        // Each changes the members of the consumer group: once when the daemon goes or comes, and once more afterwards.
        if matches!(fault, Fault::Kill { .. } | Fault::Stop { .. } | Fault::Join { .. }) {
            *self.faults.entry("rebalances").or_default() += 2;
        }
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let faults = FAULTS.into_iter().map(|name| (name, self.faults.get(name).copied().unwrap_or(0)));
        let before = [("seconds", self.seconds), ("events", self.events)];
        let after = [("starts", self.starts), ("failed_starts", self.failed_starts)];
        before.into_iter().chain(faults).chain(after)
    }

    fn protocol(&self) -> &'static str {
        match self.protocol {
            GroupProtocol::Classic => "classic",
            GroupProtocol::Consumer => "consumer",
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut report = json!({ "seed": self.seed, "group_protocol": self.protocol(), "violations": self.violations });
        for (name, count) in self.counts() {
            report[name] = count.into();
        }
        report
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("seed: {}\ngroup protocol: {}\n", self.seed, self.protocol());
        for (name, count) in self.counts() {
            let _ = writeln!(text, "{}: {count}", name.replace('_', " "));
        }
        let _ = writeln!(text, "violations: {}", self.violations.len());
        for violation in &self.violations {
            let _ = writeln!(text, "  {violation}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let mut summary = Summary::new(7, GroupProtocol::Classic);
        summary.count(Fault::Kill { daemon: 1, away: Duration::ZERO });
        summary.count(Fault::Edit { number: 3 });
        summary.violations.push("Bronze lacks offset 5".to_owned());
        let (text, json) = (summary.text(), summary.json());
        for line in ["seed: 7", "kills: 1", "edits: 1", "rebalances: 2", "swaps: 0", "violations: 1"] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert_eq!((&json["kills"], &json["violations"][0]), (&1.into(), &"Bronze lacks offset 5".into()));
    }
}
