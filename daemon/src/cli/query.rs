//! `silverd query`: SQL over the tables of pipeline.toml.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use silverd_core::config::SqlLimits;

use super::arrow_table::arrow_table;
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::delta::TableReader;
use crate::runtime::inert::inert_lines;
use crate::runtime::out::{self, out};
use crate::sql::process::{Start, read_message, run_with_limits};
use crate::sql::{self, DeltaScan, QueryError, Tables};
use crate::sql_engine::{Message, OUT_OF_MEMORY, SqlWork, limit_this_process, read_only};

#[derive(clap::Args, Debug)]
pub struct QueryArgs {
    /// The query. Tables: `bronze`, `quarantine`, `late`, the Silver tables by their names, and `gold.<name>`
    #[arg(value_name = "SQL")]
    sql: String,
    /// Print the result as one JSON array of objects
    #[arg(long)]
    json: bool,
    /// Memory for the query, in MiB, instead of `sql_memory_max` in pipeline.toml
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(32..=1 << 20))]
    memory_max: Option<u32>,
    /// Seconds for the query, instead of `sql_seconds_max` in pipeline.toml
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=7 * 86_400))]
    seconds_max: Option<u64>,
}

/// What the process prints that runs the query.
#[derive(Serialize, Deserialize)]
struct Request {
    sql: String,
    json: bool,
}

/// Runs the query in a process that has its limits.
pub async fn query(file: &Path, args: QueryArgs) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let tables = Tables::new(&setup.pipeline, &setup.base_dir);
    let named = sql::table_references(&args.sql)?;
    if let Some(name) = named.iter().find(|name| tables.path(name).is_none())
        && sql::is_query(&args.sql)
    {
        let names: Vec<_> = tables.names().collect();
        wrong_use!("there is no table `{name}`; the tables are {}", names.join(", "));
    }
    let limits = &setup.pipeline.sql_limits;
    let limits = SqlLimits {
        memory_bytes_max: args.memory_max.map_or(limits.memory_bytes_max, |mebibytes| (mebibytes as usize) << 20),
        seconds_max: args.seconds_max.unwrap_or(limits.seconds_max),
    };
    let request = Message::new(&Request { sql: args.sql, json: args.json })?;
    Ok(run_with_limits(SqlWork::Query, &Start::new(&tables, &limits, false), &request).await?)
}

/// The process that [`query`] starts.
pub(super) fn query_process() -> ExitCode {
    let run = || {
        let start: Start = read_message()?.content()?;
        let request: Request = read_message()?.content()?;
        limit_this_process(start.memory_bytes_max, start.yields)?;
        std::thread::Builder::new().name("parent".to_owned()).spawn(|| {
            let _ = std::io::stdin().lock().read(&mut [0]);
            // The command that waits for the result has ended.
            // SAFETY: ends the process without anything else.
            unsafe { libc::_exit(1) }
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        anyhow::Ok(runtime.block_on(print_rows(&start.tables, start.pool_bytes(), &request.sql, request.json)))
    };
    match run() {
        Ok(Ok(())) => match out::check() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{failure:#}");
                ExitCode::FAILURE
            }
        },
        Ok(Err(QueryError::Limit(_))) => ExitCode::from(OUT_OF_MEMORY),
        Ok(Err(failure)) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a query of silverd's own and prints its result, as a table or as JSON.
pub(crate) async fn print(setup: &Setup, query: &str, json: bool) -> anyhow::Result<()> {
    let tables = Tables::new(&setup.pipeline, &setup.base_dir);
    Ok(print_rows(&tables, setup.pipeline.sql_limits.memory_bytes_max, query, json).await?)
}

/// The result of a query of silverd's own.
pub(crate) async fn collect(setup: &Setup, query: &str) -> anyhow::Result<Vec<RecordBatch>> {
    let tables = Tables::new(&setup.pipeline, &setup.base_dir);
    Ok(answer(&tables, setup.pipeline.sql_limits.memory_bytes_max, query).await?.rows)
}

async fn print_rows(tables: &Tables, pool_bytes: usize, query: &str, json: bool) -> Result<(), QueryError> {
    let answer = answer(tables, pool_bytes, query).await?;
    out!("{}", if json { answer.json() } else { answer.text() }?);
    Ok(())
}

/// What a query returns.
struct Answer {
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
    /// It explains a query: its cells have several lines.
    is_plan: bool,
}

impl Answer {
    fn json(&self) -> anyhow::Result<String> {
        let rows = sql::printable(&self.rows)?;
        let mut out = Vec::new();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut out);
        writer.write_batches(&rows.iter().collect::<Vec<_>>())?;
        writer.finish()?;
        let text = String::from_utf8(out)?;
        Ok(if text.is_empty() { "[]".to_owned() } else { text })
    }

    /// A table for a terminal, without anything that the terminal would obey.
    fn text(&self) -> anyhow::Result<String> {
        let mut rows = self.rows.clone();
        if rows.is_empty() {
            rows.push(RecordBatch::new_empty(self.schema.clone()));
        }
        Ok(match self.is_plan {
            true => inert_lines(&pretty_format_batches(&rows)?.to_string()),
            false => arrow_table(&rows)?,
        })
    }
}

async fn answer(tables: &Tables, pool_bytes: usize, query: &str) -> Result<Answer, QueryError> {
    let context = sql::bounded_context(pool_bytes, tables.session())?;
    // A query of the information schema may name none, and show all.
    let named = sql::table_references(query)?;
    let names_all = named.is_empty() || query.to_lowercase().contains("information_schema");
    for name in tables.names() {
        let is_named = named.iter().any(|named| named == name);
        if !is_named && !names_all {
            continue;
        }
        if !register(&context, name, tables).await? && is_named {
            return Err(QueryError::NotWritten(name.to_owned()));
        }
    }
    let frame = context.sql_with_options(query, read_only()).await?;
    let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    let is_plan = matches!(frame.logical_plan(), LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
    Ok(Answer { schema, rows: frame.collect().await?, is_plan })
}

/// Adds a table to the context; false if it does not exist yet.
async fn register(context: &SessionContext, name: &str, tables: &Tables) -> anyhow::Result<bool> {
    let Some(path) = tables.path(name) else { return Ok(false) };
    let Some(reader) = TableReader::open(path)? else { return Ok(false) };
    let open = async {
        let Some(version) = reader.version().await? else { return Ok(None) };
        DeltaScan::open(&reader, version).await.map(Some)
    };
    let provider = open.await.with_context(|| format!("open table {name} in {}", path.display()))?;
    let Some(provider) = provider else { return Ok(false) };
    sql::register(context, name, provider)?;
    Ok(true)
}
