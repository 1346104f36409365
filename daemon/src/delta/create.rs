//! Creating a table, and checking how one that exists is partitioned.

use std::path::PathBuf;

use anyhow::{Context, bail};
use arrow::datatypes::SchemaRef;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{DataType, Metadata, PrimitiveType, StructField};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use silverd_core::schema::COMMENT;
use silverd_core::zone::Zone;
use tracing::info;

use super::day::EVENT_DATE;
use super::zone;

/// The table that a caller wants to write; created if it does not exist.
pub struct TableSpec {
    /// The name in messages.
    pub name: String,
    pub path: PathBuf,
    /// The columns of its files. The table has `event_date` in addition.
    pub schema: SchemaRef,
    pub doc: Option<String>,
    /// The zone whose days `event_date` holds.
    pub time_zone: Zone,
}

/// Adds the partition column.
pub(super) fn with_event_date(mut columns: Vec<StructField>, zone: Zone) -> Vec<StructField> {
    let date = StructField::new(EVENT_DATE, DataType::Primitive(PrimitiveType::Date), true);
    columns.push(date.with_metadata([(COMMENT, event_date_comment(zone))]));
    columns
}

/// What catalogs say of the partition column.
pub(super) fn event_date_comment(zone: Zone) -> String {
    format!("Day of the event, {zone}. The partition column.")
}

pub(super) async fn create(table: &DeltaTable, spec: &TableSpec, columns: Vec<StructField>) -> anyhow::Result<()> {
    let mut builder = CreateBuilder::new()
        .with_log_store(table.log_store())
        .with_table_name(&spec.name)
        .with_columns(columns)
        .with_partition_columns([EVENT_DATE])
        .with_save_mode(SaveMode::Ignore)
        // The properties of silverd are none of Delta's.
        .with_raise_if_key_not_exists(false)
        .with_configuration(zone::properties(spec.time_zone));
    if let Some(doc) = &spec.doc {
        builder = builder.with_comment(doc);
    }
    builder.await.context("create the table")?;
    info!(table = %spec.name, path = %spec.path.display(), "created table");
    Ok(())
}

pub(super) fn check_partitioning(metadata: &Metadata) -> anyhow::Result<()> {
    let partitioned: Vec<_> = metadata.partition_columns().iter().map(|column| column.to_string()).collect();
    if partitioned != [EVENT_DATE] {
        bail!("the table is partitioned by {partitioned:?}, expected [\"{EVENT_DATE}\"]");
    }
    Ok(())
}
