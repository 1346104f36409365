//! The tables that queries can name, and a cache of their newest versions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use serde::{Deserialize, Serialize};
use silverd_core::config::Pipeline;

use super::delta_scan::DeltaScan;
use super::error::QueryError;
use super::live_tables::LiveTables;
use crate::delta::{EVENT_DATE, TableReader};

/// The tables of a pipeline and their folders, by the names that queries use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tables(Vec<(String, PathBuf)>);

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
        let mut paths = vec![
            ("bronze".to_owned(), base_dir.join(&*pipeline.bronze.path)),
            ("quarantine".to_owned(), base_dir.join(&*pipeline.quarantine.path)),
            ("late".to_owned(), base_dir.join(&*pipeline.late.path)),
        ];
        paths.extend(pipeline.silver.iter().map(|table| (table.name.to_string(), base_dir.join(&*table.path))));
        paths.extend(pipeline.gold.iter().map(|table| (format!("gold.{}", table.name), base_dir.join(&*table.path))));
        Self(paths)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The folder of a table; `None` if there is no table of this name.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, path)| path.as_path())
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
        Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
    }
}

fn without_event_date(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| field.name() != EVENT_DATE).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
