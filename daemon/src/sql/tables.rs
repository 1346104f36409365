//! The tables that queries can name, and a cache of their newest versions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionConfig;
use serde::{Deserialize, Serialize};
use silverd_core::config::{DAY_STATUS, Pipeline};
use silverd_core::zone::Zone;

use super::delta_scan::DeltaScan;
use super::error::QueryError;
use super::live_tables::LiveTables;
use super::zoned::{zoned_batch, zoned_schema};
use crate::delta::{EVENT_DATE, TableReader};

/// The tables of a pipeline, by the names that queries use, and the zone of queries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tables {
    tables: Vec<NamedTable>,
    /// That of `now()` and `current_date`; `None` if there is no other zone than UTC.
    time_zone: Option<Zone>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct NamedTable {
    name: String,
    path: PathBuf,
    /// That of its days, as pipeline.toml says.
    time_zone: Zone,
}

/// Tables at their newest versions. A table is opened again only when it has a newer version.
#[derive(Default)]
pub(crate) struct TableCache(HashMap<String, CachedTable>);

struct CachedTable {
    reader: TableReader,
    version: u64,
    provider: Arc<dyn TableProvider>,
}

impl Tables {
    pub(crate) fn new(pipeline: &Pipeline, base_dir: &Path) -> Self {
        let table = |name: String, path: &str, time_zone| NamedTable { name, path: base_dir.join(path), time_zone };
        let mut tables = vec![
            table("bronze".to_owned(), &pipeline.bronze.path, Zone::UTC),
            table("quarantine".to_owned(), &pipeline.quarantine.path, Zone::UTC),
            table("late".to_owned(), &pipeline.late.path, Zone::UTC),
        ];
        let silver = pipeline.silver.iter();
        tables.extend(silver.map(|silver| table(silver.name.to_string(), &silver.path, silver.time_zone)));
        let gold = pipeline.gold.iter();
        tables.extend(gold.map(|gold| table(format!("gold.{}", gold.name), &gold.path, gold.time_zone)));
        tables.push(table(format!("gold.{DAY_STATUS}"), &pipeline.days.path, Zone::UTC));
        let has_zones = !pipeline.time_zone.is_utc() || tables.iter().any(|table| !table.time_zone.is_utc());
        Self { tables, time_zone: has_zones.then_some(pipeline.time_zone) }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|table| table.name.as_str())
    }

    /// The folder of a table; `None` if there is no table of this name.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.find(name).map(|table| table.path.as_path())
    }

    /// The zone of a table's days.
    pub(super) fn time_zone(&self, name: &str) -> Option<Zone> {
        self.find(name).map(|table| table.time_zone)
    }

    /// The configuration of a query's session.
    pub(crate) fn session(&self) -> SessionConfig {
        session_in(self.time_zone)
    }

    fn find(&self, name: &str) -> Option<&NamedTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    pub(super) fn unknown_table(&self, name: &str) -> QueryError {
        let names: Vec<_> = self.names().collect();
        let names = names.join(", ");
        anyhow!("there is no table `{name}`; the tables are {names}, and live.<name> for a Silver table's newest rows")
            .into()
    }
}

impl TableCache {
    pub(super) async fn provider(&mut self, tables: &Tables, name: &str) -> Result<Arc<dyn TableProvider>, QueryError> {
        let path = tables.path(name).ok_or_else(|| tables.unknown_table(name))?;
        let reader = match self.0.remove(name) {
            Some(cached) => match cached.reader.version().await? {
                Some(version) if version == cached.version => {
                    let provider = cached.provider.clone();
                    self.0.insert(name.to_owned(), cached);
                    return Ok(provider);
                }
                _ => cached.reader,
            },
            None => TableReader::open(path)?.ok_or_else(|| QueryError::NotWritten(name.to_owned()))?,
        };
        let version = reader.version().await?.ok_or_else(|| QueryError::NotWritten(name.to_owned()))?;
        let provider = DeltaScan::open(&reader, version).await.with_context(|| format!("open table {name}"))?;
        self.0.insert(name.to_owned(), CachedTable { reader, version, provider: provider.clone() });
        Ok(provider)
    }

    /// The newest rows of a Silver table. Before the first one, the columns are those of the Delta table.
    pub(super) async fn recent_rows(
        &mut self,
        tables: &Tables,
        live: &LiveTables,
        name: &str,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let (schema, batches) = match live.of(name) {
            Some(rows) => rows,
            None => {
                let table = self.provider(tables, name).await?;
                (without_event_date(&table.schema()), Vec::new())
            }
        };
        let zone = tables.time_zone(name).unwrap_or_default();
        let batches = batches.iter().map(|batch| zoned_batch(batch, zone)).collect::<Result<Vec<_>, _>>();
        let batches = batches.map_err(anyhow::Error::from)?;
        Ok(Arc::new(MemTable::try_new(Arc::new(zoned_schema(&schema, zone)), vec![batches])?))
    }
}

/// The configuration of a session whose `now()` and `current_date` are those of a zone.
pub(crate) fn session_in(zone: Option<Zone>) -> SessionConfig {
    let mut session = SessionConfig::new();
    if let Some(zone) = zone {
        session.options_mut().execution.time_zone = Some(zone.name().to_owned());
    }
    session
}

fn without_event_date(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| field.name() != EVENT_DATE).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
