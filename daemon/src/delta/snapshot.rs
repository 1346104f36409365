//! One version of a table, to be read: its columns and its data files.

use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake_core::logstore::{LogStoreRef, ObjectStoreRef};

use super::create::check_partitioning;
use super::data_file::{DataFile, files_of_loaded};

/// The table property by which another engine gives columns other names in the files.
const COLUMN_MAPPING: &str = "delta.columnMapping.mode";

/// A version of a table.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// All columns, in the table's order.
    pub schema: SchemaRef,
    pub files: Vec<DataFile>,
    /// The store of the table's folder, to which the files' paths are relative.
    pub store: ObjectStoreRef,
}

impl Snapshot {
    pub(super) async fn load(log: &LogStoreRef, version: u64) -> anyhow::Result<Self> {
        let mut table = DeltaTable::new(log.clone());
        table.load_version(version).await.with_context(|| format!("load version {version}"))?;
        check_readable(&table)?;
        let schema: Schema = table.snapshot()?.schema().as_ref().try_into_arrow().context("convert the columns")?;
        Ok(Self { schema: Arc::new(schema), files: files_of_loaded(&table).await?, store: log.object_store(None) })
    }
}

/// Refuses a table whose files do not hold its rows as they are.
fn check_readable(table: &DeltaTable) -> anyhow::Result<()> {
    let metadata = table.snapshot()?.metadata();
    if let Some(mode) = metadata.configuration().get(COLUMN_MAPPING).filter(|mode| *mode != "none") {
        bail!(
            "another engine set `{COLUMN_MAPPING}` to `{mode}`, which silverd cannot read; query the table with that \
             engine, or copy it to a table without column mapping"
        );
    }
    check_partitioning(metadata)
}
