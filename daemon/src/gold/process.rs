//! Refreshes of Gold tables in a process of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use silverd_core::config::SqlLimits;

use super::model::{DAYS_MAX, Definition, Model, Refreshed, Scope};
use crate::day_status::{DayLedger, Dependents};
use crate::sql::process::{Ended, Handler, Notes, SqlProcess, Start};
use crate::sql::{QueryError, Tables};
use crate::sql_engine::{Message, SqlWork};

/// Asks a process to refresh Gold tables.
pub(super) struct GoldProcess(SqlProcess);

#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    definition: Definition,
    scope: Scope,
}

impl GoldProcess {
    pub(super) fn new(tables: &Tables, limits: &SqlLimits) -> Self {
        Self(SqlProcess::new(SqlWork::Gold, Start::new(tables, limits, true)))
    }

    /// Computes the days again that changed since the last refresh. Where they end the process together, each day is
    /// computed alone, and those that fail are left out.
    pub(super) async fn refresh(&mut self, definition: &Definition) -> Result<Refreshed, QueryError> {
        let mut scope = Scope { days_max: DAYS_MAX, skip: BTreeSet::new() };
        let (mut done, mut failure) = (Refreshed::default(), None);
        loop {
            let ended = match self.ask(definition, &scope).await {
                Ok(refreshed) => {
                    done = done.and_then(refreshed);
                    // Another table could end the process, and with it what is computed of one that moves.
                    // Alone, a day after the other; the next refresh would start with those that fail.
                    if done.moving || (scope.days_max == 1 && done.pending > scope.skip.len()) {
                        continue;
                    }
                    return failure.map_or(Ok(done), Err);
                }
                Err(ended) => ended,
            };
            // Other failures of several days were tried a day at a time already.
            let is_of_days = ended.error.ended_its_process() || scope.days_max == 1;
            let days = ended.note.filter(|_| is_of_days);
            let Some(days) = days else { return Err(ended.error) };
            if days.len() > 1 {
                scope.days_max = 1;
                continue;
            }
            let of_days = days.iter().map(NaiveDate::to_string).collect::<Vec<_>>().join(", ");
            let text = format!("{of_days}: {}; the other days are up to date", ended.error);
            failure.get_or_insert(QueryError::Ended(text));
            scope.skip.extend(days);
        }
    }

    async fn ask(&mut self, definition: &Definition, scope: &Scope) -> Result<Refreshed, Ended<BTreeSet<NaiveDate>>> {
        let request = Request { definition: definition.clone(), scope: scope.clone() };
        match Message::new(&request) {
            Ok(message) => self.0.ask(&message).await,
            Err(failure) => Err(Ended { error: anyhow::Error::from(failure).into(), note: None }),
        }
    }
}

/// The side of the process.
pub(crate) struct GoldHandler {
    start: Start,
    models: BTreeMap<String, Model>,
    /// `gold.day_status` by its folder: its rows are in memory once, for all models.
    ledgers: BTreeMap<PathBuf, Arc<DayLedger>>,
}

impl GoldHandler {
    pub(crate) fn new(start: Start) -> Self {
        Self { start, models: BTreeMap::new(), ledgers: BTreeMap::new() }
    }
}

impl Handler for GoldHandler {
    type Request = Request;
    type Note = BTreeSet<NaiveDate>;
    type Answer = Refreshed;

    async fn answer(
        &mut self,
        Request { definition, scope }: Request,
        _: Vec<Vec<u8>>,
        notes: &Notes<BTreeSet<NaiveDate>>,
    ) -> Result<Refreshed, QueryError> {
        let pool_bytes = self.start.pool_bytes();
        let folder = definition.day_status.clone();
        let ledger = || Arc::new(DayLedger::new(folder.clone(), Dependents::default()));
        let ledger = self.ledgers.entry(folder.clone()).or_insert_with(ledger).clone();
        let new = |definition: Definition| Model::new(definition, pool_bytes, ledger.clone());
        let model = self.models.entry(definition.name.clone()).or_insert_with(|| new(definition.clone()));
        if *model.definition() != definition {
            *model = new(definition);
        }
        model.refresh(&self.start.tables, &scope, notes).await
    }
}

impl Refreshed {
    /// This refresh, and one after it.
    fn and_then(self, later: Self) -> Self {
        Self {
            committed: later.committed.or(self.committed),
            days: self.days + later.days,
            rows: self.rows + later.rows,
            pending: later.pending,
            moving: later.moving,
        }
    }
}
