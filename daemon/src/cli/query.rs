//! `silverd query`: SQL over the tables of pipeline.toml.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::app::setup::Setup;
use crate::delta::{TableReader, is_table};
use crate::sql::{self, DeltaScan, QueryError, Tables};

#[derive(clap::Args, Debug)]
pub struct QueryArgs {
    /// The query. Tables: `bronze`, `quarantine`, `late`, the Silver tables by their names, and `gold.<name>`
    #[arg(value_name = "SQL")]
    sql: String,
    /// Print the result as one JSON array of objects
    #[arg(long)]
    json: bool,
}

pub async fn query(file: &Path, args: QueryArgs) -> anyhow::Result<()> {
    print(&Setup::read(file)?, &args.sql, args.json).await
}

/// Runs a query and prints its result, as a table or as JSON.
pub(crate) async fn print(setup: &Setup, query: &str, json: bool) -> anyhow::Result<()> {
    let (schema, batches) = collect(setup, query).await?;
    let batches = sql::printable(&batches)?;
    if json {
        let mut out = Vec::new();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut out);
        writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
        writer.finish()?;
        let text = String::from_utf8(out)?;
        println!("{}", if text.is_empty() { "[]" } else { &text });
    } else {
        let empty = [RecordBatch::new_empty(schema)];
        println!("{}", pretty_format_batches(if batches.is_empty() { &empty } else { &batches })?);
    }
    Ok(())
}

/// Runs a query over the tables of a pipeline.
pub(crate) async fn collect(setup: &Setup, query: &str) -> anyhow::Result<(SchemaRef, Vec<RecordBatch>)> {
    let context = sql::context(SessionConfig::new(), RuntimeEnvBuilder::new())?;
    let tables = Tables::new(&setup.pipeline, &setup.base_dir, Arc::default());
    // A query of the information schema may name none, and show all.
    let named = sql::table_references(&context, query).unwrap_or_default();
    let names_all = named.is_empty() || query.to_lowercase().contains("information_schema");
    let (mut written, mut not_written) = (Vec::new(), Vec::new());
    for name in tables.names() {
        let is_written = match names_all || named.iter().any(|named| named == name) {
            true => register(&context, name, &tables).await?,
            false => tables.path(name).is_some_and(is_table),
        };
        if is_written { written.push(name) } else { not_written.push(name) }
    }
    let result = async {
        let frame = context.sql_with_options(query, sql::read_only()).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        Ok::<_, QueryError>((schema, frame.collect().await?))
    };
    result.await.map_err(|failure| {
        let mut text = failure.to_string();
        let names = sql::table_references(&context, query).unwrap_or_default();
        if names.iter().any(|name| !written.contains(&name.as_str())) {
            let list = if written.is_empty() { "none yet".to_owned() } else { written.join(", ") };
            text += &format!("\ntables: {list}");
            if !not_written.is_empty() {
                text += &format!("; nothing was written yet to {}", not_written.join(", "));
            }
        }
        anyhow!(text)
    })
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
