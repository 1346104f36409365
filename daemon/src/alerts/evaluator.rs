//! The task that runs the SQL of alerts, so that a slow query delays no other alert than those in SQL.

use std::time::{Duration, Instant};

use silverd_core::zone::Zone;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::evaluate::{Evaluation, evaluate};
use crate::sql::{PanelQueries, QueryError};

/// The process for SQL ends when no alert was due for so long.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The task, which ends with this. Each alert waits for its answer before it asks again, so both queues are bounded.
pub(super) struct Evaluator {
    requests: UnboundedSender<Request>,
    pub(super) answers: UnboundedReceiver<Answer>,
    task: JoinHandle<()>,
}

struct Request {
    alert: usize,
    statement: String,
}

pub(super) struct Answer {
    /// The place of the alert in the list of them.
    pub(super) alert: usize,
    pub(super) result: Result<Evaluation, QueryError>,
    pub(super) took: Duration,
}

impl Evaluator {
    pub(super) fn start(queries: PanelQueries, zone: Zone) -> Self {
        let (requests, received) = unbounded_channel();
        let (sender, answers) = unbounded_channel();
        let task = tokio::spawn(run(queries, zone, received, sender));
        Self { requests, answers, task }
    }

    pub(super) fn ask(&self, alert: usize, statement: String) {
        // Fails if the task has ended, which it does only with this.
        let _ = self.requests.send(Request { alert, statement });
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut queries: PanelQueries,
    zone: Zone,
    mut requests: UnboundedReceiver<Request>,
    answers: UnboundedSender<Answer>,
) {
    loop {
        let Request { alert, statement } = match tokio::time::timeout(IDLE_MAX, requests.recv()).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(_) => {
                queries.pause();
                match requests.recv().await {
                    Some(request) => request,
                    None => return,
                }
            }
        };
        let started = Instant::now();
        let result = evaluate(&mut queries, &statement, zone).await;
        let answer = Answer { alert, result, took: started.elapsed() };
        if answers.send(answer).is_err() {
            return;
        }
    }
}
