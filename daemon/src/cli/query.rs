//! `silverd query`: SQL over the tables of pipeline.toml.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::setup::Setup;
use crate::delta::Reader;
use crate::sql::{self, Tables};

#[derive(clap::Args, Debug)]
pub struct QueryArgs {
    /// The question; the tables are `bronze`, `quarantine`, `late`, the Silver tables by their names, and `gold.<name>`
    #[arg(value_name = "SQL")]
    sql: String,
    /// Answer as one JSON array of objects
    #[arg(long)]
    json: bool,
}

pub async fn query(file: &Path, args: QueryArgs) -> anyhow::Result<()> {
    print(&Setup::read(file)?, &args.sql, args.json).await
}

/// Prints an answer, as a table or as JSON.
pub async fn print(setup: &Setup, sql: &str, json: bool) -> anyhow::Result<()> {
    let (schema, batches) = answer(setup, sql).await?;
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

/// Answers SQL over the tables of a pipeline.
pub async fn answer(setup: &Setup, sql: &str) -> anyhow::Result<(SchemaRef, Vec<RecordBatch>)> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    sql::add_schemas(&context)?;
    let tables = Tables::new(&setup.pipeline, &setup.base, Arc::default());
    let (mut absent, mut there) = (Vec::new(), Vec::new());
    for name in tables.names() {
        if register(&context, name, &tables).await? {
            there.push(name);
        } else {
            absent.push(name);
        }
    }
    let answer = async {
        let frame = context.sql(sql).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        Ok::<_, datafusion::error::DataFusionError>((schema, frame.collect().await?))
    };
    answer.await.map_err(|failure| {
        let mut text = failure.to_string();
        if text.contains("not found") {
            text += &format!("\ntables: {}", if there.is_empty() { "none yet".to_owned() } else { there.join(", ") });
            if !absent.is_empty() {
                text += &format!("; nothing was written yet to {}", absent.join(", "));
            }
        }
        anyhow!(text)
    })
}

/// Registers a table if it is there.
async fn register(context: &SessionContext, name: &str, tables: &Tables) -> anyhow::Result<bool> {
    let Some(path) = tables.path(name) else { return Ok(false) };
    let Some(reader) = Reader::open(path)? else { return Ok(false) };
    let open = async {
        let Some(version) = reader.version().await? else { return Ok(None) };
        reader.at(version).await.map(Some)
    };
    let provider = open.await.with_context(|| format!("open table {name} in {}", path.display()))?;
    let Some(provider) = provider else { return Ok(false) };
    sql::register(context, name, provider)?;
    Ok(true)
}
