//! What a Silver table is made of: its plugin, its place and columns, and how its rows are cut into files.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use silverd_core::chunk::day_of;
use silverd_core::config::{Compression, SilverTable};
use silverd_core::rows::file_schema;
use silverd_core::schema::evolve::Fit;
use silverd_core::schema::{Kind, TableSchema, added};

use crate::delta::{Spec, Table, writer_properties};
use crate::transform::{self, Digest, Host, Limits, Plugin, ReferenceFile};

/// What in pipeline.toml is at fault when a plugin cannot fill its table, if it is not the plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blame {
    #[error("event_date")]
    EventDate,
    #[error("dedup")]
    Dedup,
    #[error("reference {0}")]
    Reference(String),
}

/// Loads the plugin of a table, built from its sources if it must be, and checks that it can fill the table. One that is
/// held off gives way to the version that is used instead.
pub fn load_plugin(
    config: &SilverTable,
    base: &std::path::Path,
    host: Arc<Host>,
    limits: Limits,
) -> anyhow::Result<Plugin> {
    let file = transform::build::wasm_of(&base.join(&*config.plugin))?;
    if let Some(holds) = &host.holds
        && holds.get(&config.name).is_some()
    {
        let lies = Digest::of(&std::fs::read(&file).with_context(|| format!("read plugin {}", file.display()))?);
        let used = holds.instead_of(&config.name, &lies);
        let used = used.map(|used| load_kept(config, base, host.clone(), limits.clone(), used.as_str())).transpose()?;
        if let Some(used) = used.flatten() {
            return Ok(used);
        }
    }
    load_file(config, base, host, limits, &file)
}

/// Loads a table's plugin from this file, and checks that it can fill the table.
pub fn load_file(
    config: &SilverTable,
    base: &std::path::Path,
    host: Arc<Host>,
    limits: Limits,
    file: &std::path::Path,
) -> anyhow::Result<Plugin> {
    let plugin = Plugin::load(host, &config.name, file, handed_over(config, base)?, limits)?;
    fills(config, plugin)
}

/// Loads an earlier plugin of a table, with the settings of today; `None` if it was not kept.
pub fn load_kept(
    config: &SilverTable,
    base: &std::path::Path,
    host: Arc<Host>,
    limits: Limits,
    digest: &str,
) -> anyhow::Result<Option<Plugin>> {
    let (Some(store), Some(digest)) = (&host.store, Digest::parse(digest)) else { return Ok(None) };
    let Some(bytes) = store.get(&digest)? else { return Ok(None) };
    let plugin = Plugin::compile(host.clone(), &config.name, &bytes, handed_over(config, base)?, limits);
    let plugin = plugin.with_context(|| format!("load the kept plugin {digest}"))?;
    fills(config, plugin).map(Some)
}

/// Tells what pipeline.toml hands over to a table's plugin from what it has handed over before.
pub fn given(config: &SilverTable, base: &std::path::Path) -> anyhow::Result<Digest> {
    Ok(handed_over(config, base)?.digest())
}

/// What pipeline.toml hands over to a table's plugin.
fn handed_over(config: &SilverTable, base: &std::path::Path) -> anyhow::Result<transform::Config> {
    let mut reference = Vec::new();
    for (name, path) in &config.reference {
        let path = base.join(&**path);
        let contents = std::fs::read(&path)
            .with_context(|| format!("read reference file {}", path.display()))
            .context(Blame::Reference(name.clone()))?;
        reference.push(ReferenceFile { name: name.clone(), contents });
    }
    let settings = config.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(transform::Config { settings, reference })
}

/// The plugin, if its row has the columns that pipeline.toml names.
fn fills(config: &SilverTable, plugin: Plugin) -> anyhow::Result<Plugin> {
    names_a_time(&plugin.schema, &config.event_date).map_err(|fault| anyhow!(fault).context(Blame::EventDate))?;
    for name in config.dedup.iter().flat_map(|dedup| dedup.by.iter()) {
        names_an_event(&plugin.schema, name).map_err(|fault| anyhow!(fault).context(Blame::Dedup))?;
    }
    Ok(plugin)
}

fn names_a_time(schema: &TableSchema, name: &str) -> Result<(), String> {
    match schema.column(name) {
        Some(column) if column.kind == Kind::Timestamp && !column.nullable => Ok(()),
        Some(_) => Err("names a column that is no `timestamp`, or one that may be null".to_owned()),
        None => Err(no_column(schema)),
    }
}

/// Deduplication asks of a column that every row has a value there, and that equal values are equal bytes.
fn names_an_event(schema: &TableSchema, name: &str) -> Result<(), String> {
    match schema.column(name).map(|column| (column, &column.kind)) {
        None => Err(format!("`{name}` {}", no_column(schema))),
        Some((column, _)) if column.nullable => Err(format!("`{name}` names a column that may be null")),
        Some((_, Kind::Float32 | Kind::Float64 | Kind::List(_) | Kind::Struct(_))) => {
            Err(format!("`{name}` names a column of numbers with a point, a list or a record: no name of an event"))
        }
        Some(_) => Ok(()),
    }
}

fn no_column(schema: &TableSchema) -> String {
    let names: Vec<_> = schema.columns.iter().map(|column| column.name.as_str()).collect();
    format!("names no column of the plugin's row, which has {}", names.join(", "))
}

/// Says what would keep a plugin from writing the table that stands there, if one does.
pub async fn fits(config: &SilverTable, plugin: &Plugin, base: &std::path::Path) -> anyhow::Result<()> {
    fit(config, plugin, base).await.map(drop)
}

/// How a plugin's rows go into the table that stands there; `None` if none does.
pub async fn fit(config: &SilverTable, plugin: &Plugin, base: &std::path::Path) -> anyhow::Result<Option<Fit>> {
    let spec = spec(config, &plugin.schema, base);
    let there = spec.path.join("_delta_log").is_dir();
    Ok(if there { Some(Table::open(&spec).await?.fit().clone()) } else { None })
}

pub(crate) fn spec(config: &SilverTable, schema: &TableSchema, base: &std::path::Path) -> Spec {
    Spec {
        name: config.name.to_string(),
        path: base.join(&*config.path),
        schema: file_schema(schema),
        doc: schema.doc.clone(),
    }
}

/// The rows of each day (days since the epoch, UTC) by a timestamp column.
pub(crate) fn by_day(batches: &[RecordBatch], event_date: &str) -> anyhow::Result<BTreeMap<i32, Vec<RecordBatch>>> {
    let mut days = BTreeMap::<i32, Vec<RecordBatch>>::new();
    for batch in batches {
        let column = batch.column_by_name(event_date).with_context(|| format!("no column {event_date}"))?;
        let times = column.as_primitive::<TimestampMicrosecondType>().values();
        let first = times.first().map_or(0, |time| day_of(*time));
        if times.iter().all(|time| day_of(*time) == first) {
            days.entry(first).or_default().push(batch.clone());
            continue;
        }
        let mut rows = BTreeMap::<i32, Vec<u32>>::new();
        for (row, time) in times.iter().enumerate() {
            rows.entry(day_of(*time)).or_default().push(row as u32);
        }
        for (day, rows) in rows {
            days.entry(day).or_default().push(take_record_batch(batch, &UInt32Array::from(rows))?);
        }
    }
    Ok(days)
}

/// Dictionaries for enums and what repeats; offsets as differences.
pub(crate) fn properties(compression: &Compression, schema: &TableSchema) -> anyhow::Result<WriterProperties> {
    let enums = schema.columns.iter().filter(|column| matches!(column.kind, Kind::Enum(_)));
    properties_with(compression, enums.map(|column| column.name.as_str()))
}

/// The same, of a table whose columns with these names are enums.
pub(crate) fn properties_with<'a>(
    compression: &Compression,
    enums: impl Iterator<Item = &'a str>,
) -> anyhow::Result<WriterProperties> {
    let mut properties = writer_properties(compression)?.set_dictionary_enabled(false);
    for name in enums {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    for name in [added::CLUSTER_ID, added::TOPIC, added::PARTITION, added::INGESTED_AT] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    let offset = ColumnPath::from(added::OFFSET);
    Ok(properties.set_column_encoding(offset, parquet::basic::Encoding::DELTA_BINARY_PACKED).build())
}
