//! `silverd plugin try`: a plugin on real events, with nothing written.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use deltalake_core::DeltaTableBuilder;
use serde_json::json;
use silverd_core::chunk::Chunk;
use silverd_core::route::Router;
use silverd_core::rows::file_schema;
use silverd_core::schema::added;

use super::subject::Subject;
use super::{counted, text_table};
use crate::delta::url_of;
use crate::reload::json_rows;
use crate::sample;
use crate::transform::{Plugin, Transformer, Verdicts};

#[derive(clap::Args, Debug)]
pub struct TryArgs {
    /// A plugin's folder, a .wasm file, or a table of pipeline.toml
    plugin: String,
    /// How many of the newest events
    #[arg(long, default_value_t = 20, value_name = "EVENTS")]
    last: usize,
    /// The table whose events it gets, if it is not the one that has this plugin
    #[arg(long)]
    table: Option<String>,
    /// One JSON object: the rows and the rejects
    #[arg(long)]
    json: bool,
}

pub async fn try_out(config: &Path, args: &TryArgs) -> anyhow::Result<()> {
    let subject = Subject::find(config, &args.plugin, args.table.as_deref())?;
    let events = newest(&subject, args.last).await?;
    if events.records.num_rows() == 0 {
        bail!("bronze has no event for this plugin among its newest: see `match` in pipeline.toml");
    }
    let (plugin, verdicts) = tokio::task::block_in_place(|| {
        let plugin = Arc::new(subject.load()?);
        let verdicts = judge(&plugin, &events)?;
        anyhow::Ok((plugin, verdicts))
    })?;
    let rows = concat_batches(&file_schema(&plugin.schema), &verdicts.rows)?;
    // Where a row came from is of use here, as far as it differs from row to row.
    let schema = rows.schema();
    let shown =
        schema.fields().iter().enumerate().filter(|(_, field)| {
            ![added::CLUSTER_ID, added::TOPIC, added::INGESTED_AT].contains(&field.name().as_str())
        });
    let rows = rows.project(&shown.map(|(at, _)| at).collect::<Vec<_>>())?;
    if args.json {
        let rejects: Vec<_> = rejects(&events, &verdicts).into_iter().map(|reject| {
            json!({ "partition": reject.partition, "offset": reject.offset, "code": reject.code, "reason": reject.reason,
                "value": reject.value })
        }).collect();
        println!("{}", json!({ "rows": json_rows(&rows)?, "rejects": rejects, "counts": verdicts.counts }));
        return Ok(());
    }
    if rows.num_rows() > 0 {
        println!("{}", pretty_format_batches(&[rows])?);
    }
    let rejected: Vec<_> = rejects(&events, &verdicts)
        .into_iter()
        .map(|reject| {
            let place = format!("{}:{}", reject.partition, reject.offset);
            vec![place, reject.code.to_owned(), reject.reason, reject.value]
        })
        .collect();
    if !rejected.is_empty() {
        println!("{}", text_table(&["rejected", "code", "reason", "value"], &rejected)?);
    }
    let counts = &verdicts.counts;
    println!(
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
pub async fn newest(subject: &Subject, count: usize) -> anyhow::Result<Chunk> {
    let (Some((at, _)), Some(setup)) = (&subject.table, &subject.setup) else {
        bail!(
            "no table of pipeline.toml has this plugin, so nobody knows its events: say by --table whose events it gets, \
             or add its section (`silverd plugin new` prints one)"
        );
    };
    let path = setup.base.join(&**setup.pipeline.bronze.path);
    if !path.join("_delta_log").is_dir() {
        bail!("bronze is empty: nothing stands in {} yet. Run `silverd run` or `silverd demo` first", path.display());
    }
    let bronze = DeltaTableBuilder::from_url(url_of(&path)?)?.build()?.log_store();
    let router = Router::new(&setup.pipeline.silver);
    sample::newest(&bronze, &router, *at, count).await.context("read the newest events of bronze")
}

/// What a plugin makes of events.
pub fn judge(plugin: &Arc<Plugin>, events: &Chunk) -> anyhow::Result<Verdicts> {
    let records: Vec<u32> = (0..events.records.num_rows() as u32).collect();
    Transformer::new(plugin.clone()).transform(events, &records)
}

struct Rejected {
    partition: i32,
    offset: i64,
    code: &'static str,
    reason: String,
    value: String,
}

fn rejects(events: &Chunk, verdicts: &Verdicts) -> Vec<Rejected> {
    const VALUE_BYTES_MAX: usize = 100;
    let of = |reject: &crate::transform::Rejected| {
        let at = reject.record as usize;
        let value = String::from_utf8_lossy(events.values().value(at)).into_owned();
        Rejected {
            partition: events.partitions()[at],
            offset: events.offsets()[at],
            code: reject.code.as_str(),
            reason: reject.reason.clone(),
            value: value[..value.floor_char_boundary(VALUE_BYTES_MAX)].to_owned(),
        }
    };
    verdicts.rejected.iter().map(of).collect()
}
