//! SQL over the tables of a pipeline, by DataFusion: what `silverd query`, the panels and Gold ask.
//!
//! Silver tables, `bronze`, `quarantine` and `late` go by their names, Gold tables as `gold.<name>`, and the newest rows of
//! a Silver table, held in memory, as `live.<name>`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use silverd_core::config::Pipeline;

use crate::delta::Reader;
use crate::live::Fresh;

mod answer;

pub use answer::{Answer, answer};

/// What one query of a panel or of a Gold table may hold in memory; beyond it, it spills to the disk or fails.
const MEMORY_BYTES_MAX: usize = 256 << 20;

/// Where the tables of a pipeline lie.
pub struct Tables {
    known: Vec<(String, PathBuf)>,
    fresh: Arc<Fresh>,
}

impl Tables {
    pub fn new(pipeline: &Pipeline, base: &Path, fresh: Arc<Fresh>) -> Self {
        let mut known = vec![
            ("bronze".to_owned(), base.join(&*pipeline.bronze.path)),
            ("quarantine".to_owned(), base.join(&*pipeline.quarantine.path)),
            ("late".to_owned(), base.join(&*pipeline.late.path)),
        ];
        known.extend(pipeline.silver.iter().map(|table| (table.name.to_string(), base.join(&*table.path))));
        known.extend(pipeline.gold.iter().map(|table| (format!("gold.{}", table.name), base.join(&*table.path))));
        Self { known, fresh }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|(name, _)| name.as_str())
    }

    pub fn path(&self, name: &str) -> Option<&Path> {
        self.known.iter().find(|(known, _)| known == name).map(|(_, path)| path.as_path())
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nothing is wrong: the table comes with its first rows.
    #[error("nothing was written yet to {0}")]
    NotYet(String),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl From<datafusion::error::DataFusionError> for Unanswered {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        // DataFusion puts its own backtrace behind the message, where there is one.
        let text = error.strip_backtrace();
        Self::Failed(anyhow!(text))
    }
}

/// Tables as of their newest versions, opened again only when there is a newer one.
#[derive(Default)]
pub struct Cache(HashMap<String, Cached>);

struct Cached {
    reader: Reader,
    version: u64,
    provider: Arc<dyn TableProvider>,
}

impl Cache {
    /// A table's newest version and columns.
    pub async fn newest(&mut self, tables: &Tables, name: &str) -> Result<(u64, SchemaRef), Unanswered> {
        let provider = self.provider(tables, name).await?;
        let version = self.0.get(name).map_or(0, |cached| cached.version);
        Ok((version, provider.schema()))
    }

    async fn provider(&mut self, tables: &Tables, name: &str) -> Result<Arc<dyn TableProvider>, Unanswered> {
        let path = tables.path(name).ok_or_else(|| unknown(tables, name))?;
        let reader = match self.0.remove(name) {
            Some(cached) => match cached.reader.version().await? {
                Some(version) if version == cached.version => {
                    let provider = cached.provider.clone();
                    self.0.insert(name.to_owned(), cached);
                    return Ok(provider);
                }
                _ => cached.reader,
            },
            None => Reader::open(path)?.ok_or_else(|| Unanswered::NotYet(name.to_owned()))?,
        };
        let version = reader.version().await?.ok_or_else(|| Unanswered::NotYet(name.to_owned()))?;
        let provider = reader.at(version).await.with_context(|| format!("open table {name}"))?;
        self.0.insert(name.to_owned(), Cached { reader, version, provider: provider.clone() });
        Ok(provider)
    }
}

fn unknown(tables: &Tables, name: &str) -> Unanswered {
    let names: Vec<_> = tables.names().collect();
    anyhow!("there is no table `{name}`; the tables are {}, and live.<name> for Silver's newest rows", names.join(", "))
        .into()
}

/// A context without tables, and with bounds.
pub fn context() -> anyhow::Result<SessionContext> {
    let config = SessionConfig::new().with_information_schema(true).with_target_partitions(1);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES_MAX, 1.0).build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    add_schemas(&context)?;
    Ok(context)
}

/// Makes room for `gold.<name>` and `live.<name>`.
pub fn add_schemas(context: &SessionContext) -> anyhow::Result<()> {
    for name in context.catalog_names() {
        let catalog = context.catalog(&name).context("find the catalog")?;
        for schema in ["gold", "live"] {
            catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
        }
    }
    Ok(())
}

/// The tables that a question names, as [`Tables`] has them.
pub fn references(context: &SessionContext, sql: &str) -> Result<Vec<String>, Unanswered> {
    let state = context.state();
    let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    let references = state.resolve_table_references(&statement)?;
    Ok(references.iter().filter_map(name_of).collect())
}

/// Whether SQL can be read, and names tables that there are, or are to come.
pub fn check(tables: &Tables, sql: &str, of_gold: bool) -> Result<(), Unanswered> {
    for name in references(&context()?, sql)? {
        if of_gold {
            source_of_gold(tables, &name)?;
        } else if tables.path(name.strip_prefix("live.").unwrap_or(&name)).is_none() {
            return Err(unknown(tables, &name));
        }
    }
    Ok(())
}

/// Where a table lies that a Gold table may be made of.
pub fn source_of_gold<'t>(tables: &'t Tables, name: &str) -> Result<&'t Path, Unanswered> {
    if let Some(path) = tables.path(name).filter(|_| !name.starts_with("gold.")) {
        return Ok(path);
    }
    let names: Vec<_> = tables.names().filter(|name| !name.starts_with("gold.")).collect();
    Err(anyhow!("it cannot be made of `{name}`; it can be made of {}", names.join(", ")).into())
}

fn name_of(reference: &TableReference) -> Option<String> {
    match reference.schema() {
        None | Some("public") => Some(reference.table().to_owned()),
        Some("information_schema") => None,
        Some(schema) => Some(format!("{schema}.{}", reference.table())),
    }
}

/// Gives the context a table under its name.
pub fn register(context: &SessionContext, name: &str, provider: Arc<dyn TableProvider>) -> anyhow::Result<()> {
    let reference = match name.split_once('.') {
        Some((schema, table)) => TableReference::partial(schema, table),
        None => TableReference::bare(name),
    };
    context.register_table(reference, provider)?;
    Ok(())
}

/// Plans a question over the newest versions of the tables that it names. It can read, and do nothing else.
pub async fn plan(tables: &Tables, cache: &mut Cache, sql: &str) -> Result<DataFrame, Unanswered> {
    let context = context()?;
    for name in references(&context, sql)? {
        let provider = match name.strip_prefix("live.") {
            Some(table) => live(tables, cache, table).await?,
            None => cache.provider(tables, &name).await?,
        };
        register(&context, &name, provider)?;
    }
    Ok(context.sql_with_options(sql, read_only()).await?)
}

pub fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// The newest rows of a Silver table. Before the first one, its columns are the Delta table's.
async fn live(tables: &Tables, cache: &mut Cache, name: &str) -> Result<Arc<dyn TableProvider>, Unanswered> {
    let (schema, batches) = match tables.fresh.of(name) {
        Some(kept) => kept,
        None => {
            let table = cache.provider(tables, name).await?;
            (without_event_date(&table.schema()), Vec::new())
        }
    };
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

fn without_event_date(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| field.name() != "event_date").cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
