//! `silverd query`: SQL over the tables of pipeline.toml.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake_core::DeltaTableBuilder;

use super::setup::Setup;
use crate::delta::url_of;

#[derive(clap::Args, Debug)]
pub struct QueryArgs {
    /// The question; the tables are `bronze`, `quarantine`, `late`, and the Silver tables by their names
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
    let pipeline = &setup.pipeline;
    let mut known = vec![
        ("bronze", &pipeline.bronze.path),
        ("quarantine", &pipeline.quarantine.path),
        ("late", &pipeline.late.path),
    ];
    known.extend(pipeline.silver.iter().map(|table| (table.name.as_ref(), &table.path)));
    let (mut absent, mut there) = (Vec::new(), Vec::new());
    for (name, path) in known {
        if !register(&context, name, &setup.base.join(&**path)).await? {
            absent.push(name);
        } else {
            there.push(name);
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
async fn register(context: &SessionContext, name: &str, path: &Path) -> anyhow::Result<bool> {
    if !path.join("_delta_log").is_dir() {
        return Ok(false);
    }
    let mut table = DeltaTableBuilder::from_url(url_of(path)?)?.build()?;
    table.load().await.with_context(|| format!("open table {name} in {}", path.display()))?;
    let provider = table.table_provider().await.with_context(|| format!("read table {name}"))?;
    context.register_table(name, provider)?;
    Ok(true)
}
