//! Planning queries: the tables that they name, and the limits that they run under.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::checked::check_overflow;
use super::error::QueryError;
use super::tables::{TableCache, Tables};

/// Memory of one query of a panel or of a Gold table. A query that needs more spills to disk or fails.
const MEMORY_BYTES_MAX: usize = 256 << 20;

/// The schemas of the names `gold.<name>` and `live.<name>`.
const GOLD: &str = "gold";
const LIVE: &str = "live";

/// Plans a read-only query over the newest versions of the tables that it names.
pub(crate) async fn plan(tables: &Tables, cache: &mut TableCache, sql: &str) -> Result<DataFrame, QueryError> {
    let context = bounded_context()?;
    for name in table_references(&context, sql)? {
        let provider = match in_schema(&name, LIVE) {
            Some(table) => cache.recent_rows(tables, table).await?,
            None => cache.provider(tables, &name).await?,
        };
        register(&context, &name, provider)?;
    }
    Ok(context.sql_with_options(sql, read_only()).await?)
}

/// Checks that a query parses, and names tables that the pipeline has, whether or not they were written yet.
pub(crate) fn check_query(tables: &Tables, sql: &str, of_gold: bool) -> Result<(), QueryError> {
    for name in table_references(&bounded_context()?, sql)? {
        if of_gold {
            gold_source(tables, &name)?;
        } else if tables.path(in_schema(&name, LIVE).unwrap_or(&name)).is_none() {
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

/// The tables that a query names, in the spelling of [`Tables`].
pub(crate) fn table_references(context: &SessionContext, sql: &str) -> Result<Vec<String>, QueryError> {
    let state = context.state();
    let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    let references = state.resolve_table_references(&statement)?;
    Ok(references.iter().filter_map(name_of).collect())
}

/// A context without tables, whose queries have limits.
pub(crate) fn bounded_context() -> anyhow::Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES_MAX, 1.0);
    context(SessionConfig::new().with_target_partitions(1), runtime)
}

/// A context without tables, with the schemas of `gold.<name>` and `live.<name>`.
pub(crate) fn context(config: SessionConfig, runtime: RuntimeEnvBuilder) -> anyhow::Result<SessionContext> {
    let mut context = SessionContext::new_with_config_rt(config.with_information_schema(true), runtime.build_arc()?);
    check_overflow(&mut context)?;
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

pub(crate) fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

fn name_of(reference: &TableReference) -> Option<String> {
    match reference.schema() {
        None | Some("public") => Some(reference.table().to_owned()),
        Some("information_schema") => None,
        Some(schema) => Some(format!("{schema}.{}", reference.table())),
    }
}

/// The table's name within a schema; `None` if the name is of another schema.
fn in_schema<'n>(name: &'n str, schema: &str) -> Option<&'n str> {
    name.strip_prefix(schema)?.strip_prefix('.')
}
