//! The states of an alert: when it is pending, fires and is resolved, and what its receivers are owed meanwhile.
//!
//! What an evaluation of the condition does:
//!
//! | phase | true | false | unknown |
//! |---|---|---|---|
//! | inactive, resolved | pending, or firing if `for` is 0 | stays | stays |
//! | pending | firing, once it was true for `for` | inactive | stays, and the time up to the next evaluation does not count |
//! | firing | stays; another notification once `repeat` is over | resolved | stays |
//!
//! *Unknown* is an evaluation that failed, or that has too little to go by: no state may follow from it. So is each one from
//! which another notification would follow while too many are owed.
//!
//! Only time between two evaluations of one process counts for `for`, by a clock that is never set: a clock that steps makes
//! no alert fire early, and a silverd that was down has seen nothing. `repeat` is counted by the wall clock, over restarts.
//!
//! A notification is *owed* from the step that makes it until somebody has taken it. The state with what it owes is stored
//! before anything is handed over, and again afterwards:
//!
//! ```text
//!   step ─▶ store ─▶ hand over what is owed ─▶ notified ─▶ store
//!                 killed here: owed again at the next start, with the same content and the same number
//! ```
//!
//! So each firing has one notification for each number of its repeat, and one of its end, whatever the restarts.

mod disk_forecast;
mod summary;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::notify::NotifiedState;

pub use disk_forecast::{DiskForecast, DiskSample};
pub use summary::{SummaryTemplate, TemplateFault};

/// Notifications of one alert that are owed at most. An alert that owes as many keeps its phase: they cannot be stored
/// elsewhere at the moment.
pub const OWED_MAX: usize = 16;
/// Values of a row that are kept.
pub const VALUES_MAX: usize = 32;

/// When an alert fires, and of what its receivers are notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertRule {
    /// How long the condition must have been true.
    pub for_ms: u64,
    /// After how long a firing alert is notified again. `None`: never.
    pub repeat_ms: Option<u64>,
    /// Whether its end is notified, too.
    pub resolved: bool,
}

/// What an evaluation has found.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    True(Report),
    False,
    /// It failed, or had too little to go by.
    Unknown,
}

/// What there is to say of an alert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// One line.
    pub summary: String,
    /// The row of the alert's query.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
}

/// When an evaluation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, in milliseconds since the epoch.
    pub now_ms: i64,
    /// Since the evaluation before this one in the same process, by a clock that is never set. `None`: it is the first.
    pub elapsed_ms: Option<u64>,
}

/// Where an alert is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    Inactive,
    Pending {
        since_ms: i64,
        /// For how long the condition was seen to be true.
        held_ms: u64,
        /// Whether the last evaluation found it true: then the time up to the next one counts.
        counts: bool,
        report: Report,
    },
    Firing {
        since_ms: i64,
        /// When the last notification was made.
        notified_at_ms: i64,
        repeat: u32,
        /// Those who were notified, and so are of its end.
        receivers: Vec<Box<str>>,
        report: Report,
    },
    /// It fired, and does not any more.
    Resolved {
        since_ms: i64,
        at_ms: i64,
    },
}

/// The phase without what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseName {
    #[default]
    Inactive,
    Pending,
    Firing,
    Resolved,
}

/// A change of the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub from: PhaseName,
    pub to: PhaseName,
}

/// A notification that nobody has taken yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    pub state: NotifiedState,
    pub since_ms: i64,
    pub at_ms: i64,
    /// 0 for the first notification of a firing, and for that of its end.
    pub repeat: u32,
    pub receivers: Vec<Box<str>>,
    pub report: Report,
}

/// The state of one alert, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    #[serde(flatten)]
    phase: Phase,
    /// When it began to fire for the last time: with the name it identifies a firing, so no two have the same.
    #[serde(default)]
    last_since_ms: i64,
    /// Oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    owed: Vec<Owed>,
}

impl Default for AlertState {
    fn default() -> Self {
        Self { phase: Phase::Inactive, last_since_ms: i64::MIN, owed: Vec::new() }
    }
}

impl PhaseName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

impl Phase {
    pub fn name(&self) -> PhaseName {
        match self {
            Self::Inactive => PhaseName::Inactive,
            Self::Pending { .. } => PhaseName::Pending,
            Self::Firing { .. } => PhaseName::Firing,
            Self::Resolved { .. } => PhaseName::Resolved,
        }
    }

    /// Since when the alert is in it; of a resolved one, when it was resolved.
    pub fn since_ms(&self) -> Option<i64> {
        match self {
            Self::Inactive => None,
            Self::Pending { since_ms, .. } | Self::Firing { since_ms, .. } => Some(*since_ms),
            Self::Resolved { at_ms, .. } => Some(*at_ms),
        }
    }

    /// What there is to say, of an alert that is pending or fires.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Pending { report, .. } | Self::Firing { report, .. } => Some(report),
            Self::Inactive | Self::Resolved { .. } => None,
        }
    }
}

impl AlertState {
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The oldest notification that nobody has taken yet.
    pub fn owed(&self) -> Option<&Owed> {
        self.owed.first()
    }

    /// The oldest notification that is owed was taken.
    pub fn notified(&mut self) {
        if !self.owed.is_empty() {
            self.owed.remove(0);
        }
    }

    /// Takes in an evaluation. The state must be stored before anything that it owes is handed over.
    pub fn step(&mut self, rule: &AlertRule, seen: Seen, receivers: &[Box<str>], moment: Moment) -> Option<Transition> {
        let from = self.phase.name();
        // There is room for the beginning of a firing and for its end.
        let is_full = self.owed.len() + 2 > OWED_MAX;
        let seen = match (&self.phase, seen) {
            (Phase::Pending { .. }, Seen::False) => Seen::False,
            _ if is_full => Seen::Unknown,
            (_, seen) => seen,
        };
        match seen {
            Seen::True(report) => self.is_true(rule, report, receivers, moment),
            Seen::False => self.is_false(rule, moment.now_ms),
            Seen::Unknown => {
                if let Phase::Pending { counts, .. } = &mut self.phase {
                    *counts = false;
                }
            }
        }
        let to = self.phase.name();
        (from != to).then_some(Transition { from, to })
    }

    fn is_true(&mut self, rule: &AlertRule, report: Report, receivers: &[Box<str>], moment: Moment) {
        let now_ms = moment.now_ms;
        match &mut self.phase {
            Phase::Inactive | Phase::Resolved { .. } if rule.for_ms == 0 => self.fire(report, receivers, now_ms),
            Phase::Inactive | Phase::Resolved { .. } => {
                self.phase = Phase::Pending { since_ms: now_ms, held_ms: 0, counts: true, report };
            }
            Phase::Pending { held_ms, counts, report: known, .. } => {
                let elapsed_ms = moment.elapsed_ms.filter(|_| *counts).unwrap_or(0);
                *held_ms = held_ms.saturating_add(elapsed_ms);
                (*counts, *known) = (true, report.clone());
                if *held_ms >= rule.for_ms {
                    self.fire(report, receivers, now_ms);
                }
            }
            Phase::Firing { since_ms, notified_at_ms, repeat, receivers: notified, report: known } => {
                *known = report.clone();
                // The clock was set back: the next repeat comes later than it should, and not never.
                *notified_at_ms = (*notified_at_ms).min(now_ms);
                let waited_ms = now_ms.abs_diff(*notified_at_ms);
                if rule.repeat_ms.is_some_and(|repeat_ms| waited_ms >= repeat_ms) && self.owed.is_empty() {
                    (*notified_at_ms, *repeat) = (now_ms, repeat.saturating_add(1));
                    for receiver in receivers {
                        if !notified.contains(receiver) {
                            notified.push(receiver.clone());
                        }
                    }
                    let (since_ms, repeat) = (*since_ms, *repeat);
                    self.owe(NotifiedState::Firing, since_ms, now_ms, repeat, receivers.to_vec(), report);
                }
            }
        }
    }

    fn is_false(&mut self, rule: &AlertRule, now_ms: i64) {
        match std::mem::replace(&mut self.phase, Phase::Inactive) {
            Phase::Inactive | Phase::Pending { .. } => {}
            resolved @ Phase::Resolved { .. } => self.phase = resolved,
            Phase::Firing { since_ms, receivers, report, .. } => {
                self.phase = Phase::Resolved { since_ms, at_ms: now_ms };
                if rule.resolved {
                    self.owe(NotifiedState::Resolved, since_ms, now_ms, 0, receivers, report);
                }
            }
        }
    }

    fn fire(&mut self, report: Report, receivers: &[Box<str>], now_ms: i64) {
        let since_ms = now_ms.max(self.last_since_ms.saturating_add(1));
        self.last_since_ms = since_ms;
        let (receivers, known) = (receivers.to_vec(), report.clone());
        self.phase =
            Phase::Firing { since_ms, notified_at_ms: now_ms, repeat: 0, receivers: receivers.clone(), report: known };
        self.owe(NotifiedState::Firing, since_ms, now_ms, 0, receivers, report);
    }

    /// An alert without receivers owes nothing.
    fn owe(
        &mut self,
        state: NotifiedState,
        since_ms: i64,
        at_ms: i64,
        repeat: u32,
        receivers: Vec<Box<str>>,
        report: Report,
    ) {
        if !receivers.is_empty() {
            self.owed.push(Owed { state, since_ms, at_ms, repeat, receivers, report });
        }
    }
}
