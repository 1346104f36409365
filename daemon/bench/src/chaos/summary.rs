//! What happened in a run.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plan::Fault;
use super::project::GroupProtocol;

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
    kills: u64,
    freezes: u64,
    stops: u64,
    joins: u64,
    rebalances: u64,
    broker_restarts: u64,
    full_disks: u64,
    slow_disks: u64,
    clock_steps: u64,
    swaps: u64,
    edits: u64,
    broken_edits: u64,
    pub(super) violations: Vec<String>,
}

impl Summary {
    pub(super) fn new(seed: u64, protocol: GroupProtocol) -> Self {
        Self {
            seed,
            protocol,
            seconds: 0,
            events: 0,
            starts: 0,
            failed_starts: 0,
            kills: 0,
            freezes: 0,
            stops: 0,
            joins: 0,
            rebalances: 0,
            broker_restarts: 0,
            full_disks: 0,
            slow_disks: 0,
            clock_steps: 0,
            swaps: 0,
            edits: 0,
            broken_edits: 0,
            violations: Vec::new(),
        }
    }

    pub(super) fn count(&mut self, fault: Fault) {
        let count = match fault {
            Fault::Kill { .. } => &mut self.kills,
            Fault::Freeze { .. } => &mut self.freezes,
            Fault::Stop { .. } => &mut self.stops,
            Fault::Join { .. } => &mut self.joins,
            Fault::StopBroker { .. } => &mut self.broker_restarts,
            Fault::FullDisk { .. } => &mut self.full_disks,
            Fault::SlowDisk { .. } => &mut self.slow_disks,
            Fault::StepClock { .. } => &mut self.clock_steps,
            Fault::Swap { .. } => &mut self.swaps,
            Fault::Edit { .. } => &mut self.edits,
            Fault::BrokenEdit { .. } => &mut self.broken_edits,
        };
        *count += 1;
        // Each changes the members of the consumer group: once when the daemon goes or comes, and once more afterwards.
        if matches!(fault, Fault::Kill { .. } | Fault::Stop { .. } | Fault::Join { .. }) {
            self.rebalances += 2;
        }
    }

    fn counts(&self) -> [(&'static str, u64); 16] {
        [
            ("seconds", self.seconds),
            ("events", self.events),
            ("kills", self.kills),
            ("freezes", self.freezes),
            ("stops", self.stops),
            ("joins", self.joins),
            ("rebalances", self.rebalances),
            ("broker_restarts", self.broker_restarts),
            ("full_disks", self.full_disks),
            ("slow_disks", self.slow_disks),
            ("clock_steps", self.clock_steps),
            ("swaps", self.swaps),
            ("edits", self.edits),
            ("broken_edits", self.broken_edits),
            ("starts", self.starts),
            ("failed_starts", self.failed_starts),
        ]
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
