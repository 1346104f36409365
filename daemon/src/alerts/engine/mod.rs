//! The loop of the alerts: evaluates what is due, stores what follows, and hands over what is owed.

mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use silverd_core::alerts::{AlertRule, Moment, PhaseName, Report, Seen, Transition};
use silverd_core::config::Alert;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::built_in::{BuiltIn, FAILURES_MAX, Known, of_pipeline};
use super::disks::{DiskWatch, disks_of};
use super::evaluate::{statement, summary};
use super::evaluator::{Answer, Evaluator};
use super::notification::digest;
use super::observed::{Observed, Samples};
use super::service::{AlertInputs, AlertService};
use super::store::{AlertStore, Alerts, Evaluated, HistoryEntry, StoredAlert};
use crate::notify::{Outbox, Severity};
use crate::runtime::clock;
use crate::runtime::due::{Schedule, rest};
use crate::runtime::log_once::LogOnce;
use crate::sql::{PanelQueries, QueryError};

/// Between two looks at the pipeline, for the built-in alerts.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// So long after the start, and after an edit, no built-in alert ends: the pipeline has had no time to fail again.
const START_TIME: Duration = Duration::from_secs(15);
/// A slow query runs less often, for at most a fifth of the time.
const REST_FACTOR: u32 = 4;
/// What no notification follows from is stored at most this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// The first job of the schedule; then comes one for each alert in SQL.
const LOOK: usize = 0;

pub(super) struct Engine {
    service: AlertService,
    inputs: AlertInputs,
    store: AlertStore,
    outbox: Arc<Outbox>,
    alerts: Alerts,
    in_sql: Vec<InSql>,
    built_in: Vec<BuiltIn>,
    evaluator: Evaluator,
    schedule: Schedule,
    /// When each alert was evaluated by this process.
    evaluated_at: BTreeMap<String, Instant>,
    samples: Samples,
    disks: DiskWatch,
    /// When silverd was started, or pipeline.toml was edited.
    started: Instant,
    unsaved: Unsaved,
    /// Transitions that are not in the history yet.
    transitions: Vec<HistoryEntry>,
    storage_error: LogOnce,
    /// The ids of notifications that were sent without having been stored.
    sent_unstored: BTreeSet<String>,
    /// Those of them that arrived, with their receivers: they need no other try.
    arrived_unstored: Arc<Mutex<Arrived>>,
}

/// Ids of notifications, and receivers.
type Arrived = BTreeSet<(String, Box<str>)>;

struct InSql {
    alert: Arc<Alert>,
    last_error: LogOnce,
}

/// What the file does not have yet.
struct Unsaved {
    /// A notification may follow from it.
    matters: bool,
    anything: bool,
    saved_at: Instant,
}

/// What an alert is apart from its state.
struct Settings<'a> {
    name: &'a str,
    rule: AlertRule,
    severity: Severity,
    description: &'a str,
    receivers: &'a [Box<str>],
}

impl<'a> Settings<'a> {
    fn of(alert: &'a Alert) -> Self {
        let Alert { name, rule, severity, description, notify, .. } = alert;
        Self { name, rule: *rule, severity: *severity, description, receivers: notify }
    }
}

impl Engine {
    pub(super) fn new(service: AlertService, store: AlertStore, outbox: Arc<Outbox>, inputs: AlertInputs) -> Self {
        let (alerts, disks) = (store.alerts(), DiskWatch::new(store.disks()));
        let now = Instant::now();
        let lag_window = Duration::from_millis(inputs.pipeline.built_in_alerts.lag_window_ms);
        let mut engine = Self {
            evaluator: evaluator(&service, &inputs),
            service,
            inputs,
            store,
            outbox,
            alerts,
            in_sql: Vec::new(),
            built_in: Vec::new(),
            schedule: Schedule::new(1, now),
            evaluated_at: BTreeMap::new(),
            samples: Samples::new(lag_window),
            disks,
            started: now,
            unsaved: Unsaved { matters: false, anything: false, saved_at: now },
            transitions: Vec::new(),
            storage_error: LogOnce::default(),
            sent_unstored: BTreeSet::new(),
            arrived_unstored: Arc::default(),
        };
        engine.configure();
        engine
    }

    /// Runs until `stop`, and gives back the folder, which nobody else takes as long as that exists.
    pub(super) async fn run(mut self, mut inputs: watch::Receiver<AlertInputs>, stop: CancellationToken) -> AlertStore {
        // What an earlier process did not hand over.
        self.settle();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = inputs.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.inputs = inputs.borrow_and_update().clone();
                    self.evaluator = evaluator(&self.service, &self.inputs);
                    self.outbox.apply_config(&self.inputs.pipeline, &self.service.base_dir);
                    self.configure();
                    // The edit may restart the pipeline.
                    self.started = Instant::now();
                }
                Some(answer) = self.evaluator.answers.recv() => self.take_answer(answer),
                Some(job) = self.schedule.next() => self.start_job(job),
            }
            self.settle();
        }
        self.unsaved.matters |= self.unsaved.anything;
        self.settle();
        self.store
    }

    /// Takes over the alerts of the present pipeline. The state of an alert stays as long as its name.
    fn configure(&mut self) {
        let pipeline = self.inputs.pipeline.clone();
        let disks = match pipeline.built_in_alerts.enabled {
            true => disks_of(&pipeline, &self.service.base_dir),
            false => Vec::new(),
        };
        self.built_in = of_pipeline(&pipeline, &disks);
        self.disks.set_disks(disks);
        self.samples.set_lag_window(Duration::from_millis(pipeline.built_in_alerts.lag_window_ms));
        let in_sql = |alert: &Alert| InSql { alert: Arc::new(alert.clone()), last_error: LogOnce::default() };
        self.in_sql = pipeline.alerts.iter().map(in_sql).collect();
        self.schedule = Schedule::new(1 + self.in_sql.len(), Instant::now());
        self.end_removed();
        for alert in &pipeline.alerts {
            self.note_condition(alert);
        }
        self.unsaved.anything = true;
    }

    /// The time for which another condition was true does not count for this one.
    fn note_condition(&mut self, alert: &Alert) {
        let condition = digest(&statement(alert));
        let stored = self.alerts.entry(alert.name.clone()).or_default();
        if stored.condition == condition {
            return;
        }
        stored.condition = condition;
        (stored.failures, stored.failure) = (0, None);
        if stored.state.phase().name() == PhaseName::Pending {
            self.apply(&Settings::of(alert), Seen::False);
        }
    }

    fn is_known(&self, name: &str) -> bool {
        self.in_sql.iter().any(|known| known.alert.name == name) || self.built_in.iter().any(|known| known.name == name)
    }

    /// An alert that pipeline.toml does not have any more does not fire: those who know of it are notified of its end.
    /// Once such an alert owes nothing, it is forgotten.
    pub(super) fn end_removed(&mut self) {
        let removed: Vec<_> = self.alerts.keys().filter(|name| !self.is_known(name)).cloned().collect();
        for name in removed {
            let Some(stored) = self.alerts.get(&name) else { continue };
            if stored.state.phase().name() == PhaseName::Firing {
                let (severity, description) = (stored.severity, stored.description.clone());
                let rule = AlertRule { for_ms: 0, repeat_ms: None, resolved: !stored.ends_silently };
                let settings = Settings { name: &name, rule, severity, description: &description, receivers: &[] };
                info!(alert = name, "the alert is no longer in pipeline.toml");
                self.apply(&settings, Seen::False);
            }
            // One that owes too much goes on to fire: its end is owed once there is room for it.
            let is_over = |stored: &StoredAlert| {
                stored.state.owed().is_none() && stored.state.phase().name() != PhaseName::Firing
            };
            if self.alerts.get(&name).is_some_and(is_over) {
                self.alerts.remove(&name);
                self.evaluated_at.remove(&name);
                self.unsaved.anything = true;
            }
        }
    }

    fn start_job(&mut self, job: usize) {
        match job.checked_sub(1).and_then(|at| Some((at, self.in_sql.get(at)?))) {
            Some((at, in_sql)) => self.evaluator.ask(at, statement(&in_sql.alert)),
            None => {
                self.look();
                self.schedule.set(LOOK, Instant::now() + LOOK_INTERVAL);
            }
        }
    }

    fn take_answer(&mut self, Answer { alert: at, result, took }: Answer) {
        let Some(in_sql) = self.in_sql.get_mut(at) else { return };
        let alert = in_sql.alert.clone();
        let interval = rest(Duration::from_millis(alert.every_ms), took, REST_FACTOR);
        self.schedule.set(1 + at, Instant::now() + interval);
        let stored = self.alerts.entry(alert.name.clone()).or_default();
        let seen = match result {
            Ok(evaluation) => {
                if in_sql.last_error.clear() {
                    info!(alert = %alert.name, "the alert is evaluated again");
                }
                (stored.failures, stored.failure) = (0, None);
                let (at_ms, took_ms) = (clock::now_ms(), took.as_millis() as u64);
                stored.evaluated = Some(Evaluated { at_ms, took_ms, values: evaluation.values.clone() });
                match evaluation.fires {
                    true => {
                        let summary = summary(&alert, &evaluation.values);
                        Seen::True(Report { summary, values: evaluation.values })
                    }
                    false => Seen::False,
                }
            }
            // No fault: the table has no row yet, and so says nothing.
            Err(waiting @ QueryError::NotWritten(_)) => {
                (stored.failures, stored.failure) = (0, Some(waiting.to_string()));
                Seen::Unknown
            }
            Err(failure) => {
                let text = failure.to_string();
                if in_sql.last_error.is_new(&text) {
                    warn!(alert = %alert.name, "evaluate the alert: {text}; its state stays, and silverd tries again");
                }
                (stored.failures, stored.failure) = (stored.failures.saturating_add(1), Some(text));
                Seen::Unknown
            }
        };
        self.apply(&Settings::of(&alert), seen);
    }

    /// Evaluates the built-in alerts.
    fn look(&mut self) {
        let pipeline = self.inputs.pipeline.clone();
        let (gold, maintenance) = (self.inputs.gold.tables(), self.inputs.maintenance.tables());
        let observed = Observed::new(&self.service.status.borrow(), gold, maintenance);
        if let Some(tables) = &observed.pipeline {
            self.samples.add(observed.at, tables);
        }
        if let Some(past) = self.disks.look(clock::now_ms())
            && let Err(failure) = self.store.save_disks(past)
        {
            debug!("store the free bytes of the disks: {failure:#}");
        }
        let (failing, affected) = self.failing();
        let known = Known {
            config: &pipeline.built_in_alerts,
            free_bytes_min: pipeline.maintenance.free_bytes_min,
            observed: &observed,
            samples: &self.samples,
            disks: &self.disks,
            failing: &failing,
        };
        let seen: Vec<_> = self.built_in.iter().map(|alert| (alert.clone(), alert.seen(&known))).collect();
        for (alert, seen) in seen {
            let receivers = if alert.is_of_evaluation() { &affected } else { &pipeline.built_in_alerts.notify };
            let is_early = self.started.elapsed() < START_TIME && seen == Seen::False && !alert.is_of_evaluation();
            let settings = Settings {
                name: &alert.name,
                rule: alert.rule,
                severity: alert.severity,
                description: alert.description,
                receivers,
            };
            let stored = self.alerts.entry(alert.name.clone()).or_default();
            // When it was false last is of no interest, and would be news for each client.
            stored.evaluated = match &seen {
                Seen::True(report) => {
                    Some(Evaluated { at_ms: observed.at_ms, took_ms: 0, values: report.values.clone() })
                }
                Seen::False | Seen::Unknown => None,
            };
            self.apply(&settings, if is_early { Seen::Unknown } else { seen });
        }
    }

    /// The alerts that cannot be evaluated, with the reason, and those who are to know.
    fn failing(&self) -> (Vec<(String, String)>, Vec<Box<str>>) {
        let mut receivers = self.inputs.pipeline.built_in_alerts.notify.clone();
        let mut failing = Vec::new();
        for InSql { alert, .. } in &self.in_sql {
            let Some(stored) = self.alerts.get(&alert.name).filter(|stored| stored.failures >= FAILURES_MAX) else {
                continue;
            };
            failing.push((alert.name.clone(), stored.failure.clone().unwrap_or_default()));
            for receiver in &alert.notify {
                if !receivers.contains(receiver) {
                    receivers.push(receiver.clone());
                }
            }
        }
        (failing, receivers)
    }

    fn apply(&mut self, settings: &Settings, seen: Seen) {
        let now = Instant::now();
        let before = self.evaluated_at.insert(settings.name.to_owned(), now);
        let elapsed_ms = before.map(|before| now.duration_since(before).as_millis() as u64);
        let moment = Moment { now_ms: clock::now_ms(), elapsed_ms };
        let stored = self.alerts.entry(settings.name.to_owned()).or_default();
        (stored.severity, stored.ends_silently) = (settings.severity, !settings.rule.resolved);
        settings.description.clone_into(&mut stored.description);
        let known = stored.state.phase().report().cloned();
        let transition = stored.state.step(&settings.rule, seen, settings.receivers, moment);
        self.unsaved.anything = true;
        self.unsaved.matters |= transition.is_some() || stored.state.owed().is_some();
        if let Some(transition) = transition {
            let report = stored.state.phase().report().cloned().or(known);
            let summary = report.map(|report| report.summary).unwrap_or_default();
            self.note(settings, transition, moment.now_ms, summary);
        }
    }

    fn note(&mut self, settings: &Settings, transition: Transition, at_ms: i64, summary: String) {
        let (name, Transition { from, to }) = (settings.name, transition);
        match to {
            PhaseName::Firing => warn!(alert = name, "the alert fires: {summary}"),
            PhaseName::Resolved => info!(alert = name, "the alert is resolved: {summary}"),
            PhaseName::Pending | PhaseName::Inactive => debug!(alert = name, "the alert is {}: {summary}", to.as_str()),
        }
        let (alert, severity) = (name.to_owned(), settings.severity);
        self.transitions.push(HistoryEntry { at_ms, alert, severity, from, to, summary });
    }
}

fn evaluator(service: &AlertService, inputs: &AlertInputs) -> Evaluator {
    let limits = &inputs.pipeline.sql_limits;
    let queries = PanelQueries::new(&inputs.tables, limits, service.recent_rows.clone());
    Evaluator::start(queries, inputs.pipeline.time_zone)
}
