//! `silverd plugin try`: runs a plugin on the newest events of Bronze, and writes nothing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::compute::concat_batches;
use serde_json::json;
use silverd_core::chunk::Chunk;
use silverd_core::route::Router;
use silverd_core::rows::file_schema;
use silverd_core::schema::added;

use super::selected::SelectedPlugin;
use super::{counted, text_table};
use crate::bronze::newest_events;
use crate::cases::json_rows;
use crate::cli::arrow_table::arrow_table;
use crate::plugin::{Plugin, TransformOutput, Transformer};
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct TryArgs {
    /// A plugin's folder, a .wasm file, or a table of pipeline.toml
    plugin: String,
    /// How many of the newest events
    #[arg(long, default_value_t = 20, value_name = "EVENTS")]
    last: usize,
    /// Use the events of this table, instead of the one that uses the plugin
    #[arg(long)]
    table: Option<String>,
    /// Print one JSON object with the rows and the rejects
    #[arg(long)]
    json: bool,
}

pub(super) async fn try_plugin(config: &Path, args: &TryArgs) -> anyhow::Result<()> {
    let selected = SelectedPlugin::find(config, &args.plugin, args.table.as_deref())?;
    let events = newest_events_of(&selected, args.last).await?;
    if events.records.num_rows() == 0 {
        bail!("none of the newest events in bronze match the table of this plugin: see `match` in pipeline.toml");
    }
    let (plugin, output) = tokio::task::block_in_place(|| {
        let plugin = Arc::new(selected.load()?);
        let output = transform(&plugin, &events)?;
        anyhow::Ok((plugin, output))
    })?;
    let rows = concat_batches(&file_schema(&plugin.schema), &output.rows)?;
    // Of the added columns, partition and offset identify the event; the others are the same in every row.
    let schema = rows.schema();
    let hidden = [added::CLUSTER_ID, added::TOPIC, added::INGESTED_AT];
    let shown = schema.fields().iter().enumerate().filter(|(_, field)| !hidden.contains(&field.name().as_str()));
    let rows = rows.project(&shown.map(|(at, _)| at).collect::<Vec<_>>())?;
    let rejects = rejects(&events, &output);
    let counts = &output.counts;
    if args.json {
        let rejects: Vec<_> = rejects
            .into_iter()
            .map(|reject| {
                json!({ "partition": reject.partition, "offset": reject.offset, "code": reject.code,
                    "reason": reject.reason, "value": reject.value })
            })
            .collect();
        out!("{}", json!({ "rows": json_rows(&rows)?, "rejects": rejects, "counts": counts }));
        return Ok(());
    }
    if rows.num_rows() > 0 {
        out!("{}", arrow_table(&[rows])?);
    }
    if !rejects.is_empty() {
        let cells = |reject: Reject| {
            let position = format!("{}:{}", reject.partition, reject.offset);
            vec![position, reject.code.to_owned(), reject.reason, reject.value]
        };
        let rejects: Vec<_> = rejects.into_iter().map(cells).collect();
        out!("{}", text_table(&["rejected", "code", "reason", "value"], &rejects)?);
    }
    out!(
        "{}: {} of {} events, {} dropped, {} rejected. Nothing was written.",
        counted(counts.events, "event"),
        counted(counts.rows, "row"),
        counts.with_rows,
        counts.dropped,
        counts.rejected
    );
    Ok(())
}

/// The newest events of the plugin's table.
pub(super) async fn newest_events_of(selected: &SelectedPlugin, count: usize) -> anyhow::Result<Chunk> {
    let (Some((at, _)), Some(setup)) = (&selected.table, &selected.setup) else {
        bail!(
            "no table of pipeline.toml uses this plugin, so silverd does not know its events: name a table with --table, or \
             add a section for the plugin (`silverd plugin new` prints one)"
        );
    };
    let bronze = newest_events::open(&setup.base_dir.join(&**setup.pipeline.bronze.path))?;
    let router = Router::new(&setup.pipeline.silver);
    newest_events::newest(&bronze, &router, *at, count).await.context("read the newest events of bronze")
}

/// The plugin's output for all events of a chunk.
pub(super) fn transform(plugin: &Arc<Plugin>, events: &Chunk) -> anyhow::Result<TransformOutput> {
    let records: Vec<u32> = (0..events.records.num_rows() as u32).collect();
    Ok(Transformer::new(plugin.clone()).transform(events, &records)?)
}

/// A rejected event, as it is printed.
struct Reject {
    partition: i32,
    offset: i64,
    code: &'static str,
    reason: String,
    /// The beginning of the event.
    value: String,
}

fn rejects(events: &Chunk, output: &TransformOutput) -> Vec<Reject> {
    const VALUE_BYTES_MAX: usize = 100;
    let describe = |rejected: &crate::plugin::Rejected| {
        let at = rejected.record as usize;
        let value = String::from_utf8_lossy(events.values().value(at)).into_owned();
        Reject {
            partition: events.partitions()[at],
            offset: events.offsets()[at],
            code: rejected.code.as_str(),
            reason: rejected.reason.clone(),
            value: value[..value.floor_char_boundary(VALUE_BYTES_MAX)].to_owned(),
        }
    };
    output.rejected.iter().map(describe).collect()
}
