//! Planning queries: the tables that they name, and the limits that they run under.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser;
use silverd_core::zone::Zone;

use super::error::QueryError;
use super::live_tables::LiveTables;
use super::process::Start;
use super::tables::{TableCache, Tables};
use crate::sql_engine;

/// The schemas of the names `gold.<name>` and `live.<name>`.
const GOLD: &str = "gold";
const LIVE: &str = "live";

/// Functions that stand where a table does.
const TABLE_FUNCTIONS: [&str; 2] = ["generate_series", "range"];

/// Plans a read-only query over the newest versions of the tables that it names.
pub(super) async fn plan(
    start: &Start,
    cache: &mut TableCache,
    live: &LiveTables,
    sql: &str,
) -> Result<DataFrame, QueryError> {
    let context = bounded_context(start.pool_bytes(), start.tables.session().with_target_partitions(1))?;
    for name in table_references(sql)? {
        let provider = match live_table(&name) {
            Some(table) => cache.recent_rows(&start.tables, live, table).await?,
            None => cache.provider(&start.tables, &name).await?,
        };
        register(&context, &name, provider)?;
    }
    Ok(context.sql_with_options(sql, sql_engine::read_only()).await?)
}

/// Checks that a query parses, and names tables that the pipeline has, whether or not they were written yet.
pub(crate) fn check_query(tables: &Tables, sql: &str, of_gold: bool) -> Result<(), QueryError> {
    for name in table_references(sql)? {
        if of_gold {
            gold_source(tables, &name)?;
        } else if tables.path(live_table(&name).unwrap_or(&name)).is_none() {
            return Err(tables.unknown_table(&name));
        }
    }
    Ok(())
}

/// The folder of a table that a Gold table may read.
pub(crate) fn gold_source<'t>(tables: &'t Tables, name: &str) -> Result<&'t Path, QueryError> {
    if let Some(path) = tables.path(name).filter(|_| in_schema(name, GOLD).is_none()) {
        return Ok(path);
    }
    let names: Vec<_> = tables.names().filter(|name| in_schema(name, GOLD).is_none()).collect();
    Err(anyhow!("a Gold table cannot read `{name}`; it can read {}", names.join(", ")).into())
}

/// Fails if a Gold table's days are those of another zone than its sources' days: no zone's day would have its rows.
pub(crate) fn check_gold_zone(tables: &Tables, gold: &str, sql: &str) -> Result<(), QueryError> {
    let zone = tables.time_zone(gold).unwrap_or_default();
    for source in table_references(sql)? {
        let of_source = tables.time_zone(&source).unwrap_or_default();
        if of_source != zone {
            return Err(gold_zone_differs(&source, of_source, zone));
        }
    }
    Ok(())
}

/// The error about a source whose days are those of another zone.
pub(crate) fn gold_zone_differs(source: &str, of_source: Zone, zone: Zone) -> QueryError {
    anyhow!(
        "its days are those of {zone}, and those of `{source}` are {of_source}'s: a Gold table is computed from tables whose days \
         are its own. Set time_zone = \"{of_source}\" for the Gold table, or give `{source}` the same zone \
         (`silverd rebuild` moves a Silver table that has another one)"
    )
    .into()
}

/// Whether the text is a query, and not a statement that would change something.
pub(crate) fn is_query(sql: &str) -> bool {
    statement(sql).is_ok_and(|statement| match statement {
        Statement::Statement(statement) => matches!(*statement, sqlparser::ast::Statement::Query(_)),
        Statement::Explain(_) => true,
        _ => false,
    })
}

fn statement(sql: &str) -> Result<Statement, QueryError> {
    let mut statements = DFParser::parse_sql(sql)?;
    let statement = statements.pop_front().filter(|_| statements.is_empty());
    Ok(statement.ok_or_else(|| anyhow!("expected one SQL statement"))?)
}

/// The tables that a query names, in the spelling of [`Tables`].
pub(crate) fn table_references(sql: &str) -> Result<Vec<String>, QueryError> {
    let (references, _) = resolve_table_references(&statement(sql)?, true)?;
    Ok(references.iter().filter_map(name_of).collect())
}

/// A context with the schemas of `gold.<name>` and `live.<name>`; see [`bounded_context`](sql_engine::bounded_context).
pub(crate) fn bounded_context(pool_bytes: usize, config: SessionConfig) -> anyhow::Result<SessionContext> {
    let context = sql_engine::bounded_context(pool_bytes, config)?;
    for name in context.catalog_names() {
        let catalog = context.catalog(&name).context("find the catalog")?;
        for schema in [GOLD, LIVE] {
            catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
        }
    }
    Ok(context)
}

/// Adds a table to a context.
pub(crate) fn register(context: &SessionContext, name: &str, provider: Arc<dyn TableProvider>) -> anyhow::Result<()> {
    let reference = match name.split_once('.') {
        Some((schema, table)) => TableReference::partial(schema, table),
        None => TableReference::bare(name),
    };
    context.register_table(reference, provider)?;
    Ok(())
}

fn name_of(reference: &TableReference) -> Option<String> {
    match reference.schema() {
        None if TABLE_FUNCTIONS.contains(&reference.table()) => None,
        None | Some("public") => Some(reference.table().to_owned()),
        Some("information_schema") => None,
        Some(schema) => Some(format!("{schema}.{}", reference.table())),
    }
}

/// The Silver table whose newest rows a name stands for.
pub(super) fn live_table(name: &str) -> Option<&str> {
    in_schema(name, LIVE)
}

/// The table's name within a schema; `None` if the name is of another schema.
fn in_schema<'n>(name: &'n str, schema: &str) -> Option<&'n str> {
    name.strip_prefix(schema)?.strip_prefix('.')
}
