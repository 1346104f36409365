//! The alerts as the dashboard, the API and the metrics show them.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value};
use silverd_core::alerts::{Phase, PhaseName};

use super::store::{HistoryEntry, StoredAlert};
use crate::notify::{Outbox, ReceiverStatus, Severity};

/// Transitions that are shown.
const HISTORY_SHOWN_MAX: usize = 100;

/// What is shown, shared with whoever shows it.
#[derive(Default)]
pub(crate) struct AlertBoard(Mutex<Board>);

#[derive(Default)]
struct Board {
    state: EvaluationState,
    alerts: Vec<ShownAlert>,
    /// Newest first.
    history: Vec<HistoryEntry>,
    outbox: Option<Arc<Outbox>>,
}

/// Whether this silverd evaluates the alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EvaluationState {
    #[default]
    Starting,
    Running,
    /// Another silverd on the same state folder does.
    Elsewhere,
    /// The state folder cannot be used.
    Failing,
}

/// What `/api/alerts` answers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShownAlerts {
    pub(crate) state: EvaluationState,
    /// Those that fire first.
    pub(crate) alerts: Vec<ShownAlert>,
    /// The last transitions, newest first.
    pub(crate) history: Vec<HistoryEntry>,
    pub(crate) receivers: Vec<ReceiverStatus>,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ShownAlert {
    pub(crate) name: String,
    pub(crate) built_in: bool,
    pub(crate) severity: Severity,
    pub(crate) state: PhaseName,
    /// Since when it is pending or fires, or when it was resolved.
    pub(crate) since_ms: Option<i64>,
    pub(crate) summary: Option<String>,
    pub(crate) description: Option<String>,
    /// The last row of its SQL.
    pub(crate) values: Map<String, Value>,
    pub(crate) evaluated_at_ms: Option<i64>,
    pub(crate) took_ms: Option<u64>,
    /// Evaluations in a row that failed.
    pub(crate) failures: u32,
    /// Why the last evaluation failed, or what it waits for.
    pub(crate) reason: Option<String>,
    pub(crate) notify: Vec<Box<str>>,
    pub(crate) notified_at_ms: Option<i64>,
    /// How often it was notified again since it fires.
    pub(crate) repeat: u32,
}

impl ShownAlert {
    pub(crate) fn new(name: &str, built_in: bool, notify: &[Box<str>], stored: &StoredAlert) -> Self {
        let phase = stored.state.phase();
        let repeat = if let Phase::Firing { repeat, .. } = phase { *repeat } else { 0 };
        Self {
            name: name.to_owned(),
            built_in,
            severity: stored.severity,
            state: phase.name(),
            since_ms: phase.since_ms(),
            summary: phase.report().map(|report| report.summary.clone()),
            description: (!stored.description.is_empty()).then(|| stored.description.clone()),
            values: stored.evaluated.as_ref().map(|evaluated| evaluated.values.clone()).unwrap_or_default(),
            evaluated_at_ms: stored.evaluated.as_ref().map(|evaluated| evaluated.at_ms),
            took_ms: stored.evaluated.as_ref().map(|evaluated| evaluated.took_ms),
            failures: stored.failures,
            reason: stored.failure.clone(),
            notify: notify.to_vec(),
            notified_at_ms: stored.notified_at_ms,
            repeat,
        }
    }
}

/// Those that need a person first; a built-in alert that does not fire last.
pub(crate) fn sort(alerts: &mut [ShownAlert]) {
    let rank = |alert: &ShownAlert| match alert.state {
        PhaseName::Firing => 0,
        PhaseName::Pending => 1,
        PhaseName::Inactive | PhaseName::Resolved if alert.failures > 0 => 2,
        PhaseName::Inactive | PhaseName::Resolved if !alert.built_in => 3,
        PhaseName::Inactive | PhaseName::Resolved => 4,
    };
    alerts.sort_by(|a, b| {
        let (severity, other) = (std::cmp::Reverse(a.severity), std::cmp::Reverse(b.severity));
        (rank(a), severity, &a.name).cmp(&(rank(b), other, &b.name))
    });
}

impl AlertBoard {
    pub(crate) fn shown(&self) -> ShownAlerts {
        let board = self.0.lock();
        let receivers = board.outbox.as_ref().map(|outbox| outbox.status()).unwrap_or_default();
        let (alerts, history) = (board.alerts.clone(), board.history.clone());
        ShownAlerts { state: board.state, alerts, history, receivers }
    }

    pub(super) fn set_state(&self, state: EvaluationState) {
        self.0.lock().state = state;
    }

    pub(super) fn set_outbox(&self, outbox: Arc<Outbox>) {
        self.0.lock().outbox = Some(outbox);
    }

    pub(super) fn set_alerts(&self, mut alerts: Vec<ShownAlert>) {
        sort(&mut alerts);
        self.0.lock().alerts = alerts;
    }

    /// `history`: newest first.
    pub(super) fn set_history<'e>(&self, history: impl Iterator<Item = &'e HistoryEntry>) {
        self.0.lock().history = history.take(HISTORY_SHOWN_MAX).cloned().collect();
    }
}
