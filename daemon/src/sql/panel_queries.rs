//! The dashboard's queries, in a process of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use silverd_core::config::SqlLimits;

use super::error::QueryError;
use super::live_tables::{self, LiveTables, LiveUpdate};
use super::process::{Handler, Notes, SqlProcess, Start};
use super::query::{live_table, plan, table_references};
use super::query_result::{QueryResult, ResultLimits, collect_rows};
use super::tables::{TableCache, Tables};
use crate::sql_engine::{Message, SqlWork};
use crate::tables::recent_rows::RecentRows;

/// Runs queries for their first rows, over the tables and the newest rows in memory.
pub(crate) struct PanelQueries {
    process: SqlProcess,
    recent_rows: Arc<RecentRows>,
    /// By table: the number of the first batch that the process does not have.
    sent: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    sql: String,
    limits: ResultLimits,
    live: Vec<LiveUpdate>,
}

impl PanelQueries {
    pub(crate) fn new(tables: &Tables, limits: &SqlLimits, recent_rows: Arc<RecentRows>) -> Self {
        let start = Start::new(tables, limits, true);
        Self { process: SqlProcess::new(SqlWork::Panels, start), recent_rows, sent: BTreeMap::new() }
    }

    /// Frees what the queries keep in memory.
    pub(crate) fn pause(&mut self) {
        self.process.end();
    }

    /// The first rows of a query.
    pub(crate) async fn rows(&mut self, sql: &str, limits: ResultLimits) -> Result<QueryResult, QueryError> {
        if !self.process.is_running() {
            self.sent.clear();
        }
        let names = table_references(sql)?;
        let (mut live, mut attachments) = (Vec::new(), Vec::new());
        for table in names.iter().filter_map(|name| live_table(name)) {
            let known = self.sent.get(table).copied().unwrap_or(0);
            let Some((rows, next)) = self.recent_rows.newer_than(table, known) else { continue };
            let (update, attachment) = live_tables::update(table, &rows)?;
            live.push(update);
            attachments.extend(attachment);
            self.sent.insert(table.to_owned(), next);
        }
        let request = Request { sql: sql.to_owned(), limits, live };
        let mut message = Message::new(&request).map_err(anyhow::Error::from)?;
        message.attachments = attachments;
        self.process.ask::<(), _>(&message).await.map_err(|ended| ended.error)
    }
}

/// The side of the process.
pub(crate) struct PanelHandler {
    start: Start,
    cache: TableCache,
    live: LiveTables,
}

impl PanelHandler {
    pub(crate) fn new(start: Start) -> Self {
        Self { start, cache: TableCache::default(), live: LiveTables::default() }
    }
}

impl Handler for PanelHandler {
    type Request = Request;
    type Note = ();
    type Answer = QueryResult;

    async fn answer(
        &mut self,
        request: Request,
        attachments: Vec<Vec<u8>>,
        _: &Notes<()>,
    ) -> Result<QueryResult, QueryError> {
        self.live.apply(request.live, attachments)?;
        let frame = plan(&self.start, &mut self.cache, &self.live, &request.sql).await?;
        collect_rows(frame, request.limits).await
    }
}
