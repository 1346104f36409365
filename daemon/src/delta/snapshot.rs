//! One version of a table, to be read: its columns and its data files.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake_core::kernel::{DataType, MetadataValue, StructField};
use deltalake_core::logstore::{LogStoreRef, ObjectStoreRef};
use futures::FutureExt;
use silverd_core::zone::Zone;

use super::create::check_partitioning;
use super::damaged::{read_past, readable_version};
use super::data_file::{DataFile, files_of_loaded};
use super::features::COLUMN_MAPPING;
use super::zone::zone_of;

/// Where the names are that columns have in the files.
const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";

/// A version of a table.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// All columns, in the table's order.
    pub schema: SchemaRef,
    /// The names that the columns have in the files, if another engine renamed any.
    pub physical_names: Option<BTreeMap<String, String>>,
    /// The zone whose days `event_date` holds.
    pub time_zone: Zone,
    pub files: Vec<DataFile>,
    /// The store of the table's folder, to which the files' paths are relative.
    pub store: ObjectStoreRef,
}

impl Snapshot {
    pub(super) async fn load(log: &LogStoreRef, version: u64) -> anyhow::Result<Self> {
        read_past(log, |log| Self::load_once(log, version).boxed()).await
    }

    /// The name that a column has in the files, if another engine renamed any.
    pub(crate) fn physical_name(&self, column: &str) -> Option<&String> {
        self.physical_names.as_ref()?.get(column)
    }

    async fn load_once(log: LogStoreRef, version: u64) -> anyhow::Result<Self> {
        let mut table = DeltaTable::new(log.clone());
        let version = readable_version(&log, version);
        table.load_version(version).await.with_context(|| format!("load version {version}"))?;
        check_partitioning(table.snapshot()?.metadata())?;
        let schema: Schema = table.snapshot()?.schema().as_ref().try_into_arrow().context("convert the columns")?;
        Ok(Self {
            schema: Arc::new(schema),
            physical_names: physical_names(&table)?,
            time_zone: zone_of(table.snapshot()?.metadata()).context("read the table's time zone")?,
            files: files_of_loaded(&table).await?,
            store: log.object_store(None),
        })
    }
}

fn physical_names(table: &DeltaTable) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let snapshot = table.snapshot()?;
    if snapshot.metadata().configuration().get(COLUMN_MAPPING).is_none_or(|mode| mode == "none") {
        return Ok(None);
    }
    let schema = snapshot.schema();
    let mut names = BTreeMap::new();
    for field in schema.fields() {
        if has_renamed_fields(field.data_type()) {
            bail!(
                "another engine renamed fields within the column `{}`, which silverd cannot read; query the table with that \
                 engine",
                field.name()
            );
        }
        names.insert(field.name().clone(), physical_name(field).to_owned());
    }
    Ok(names.iter().any(|(logical, physical)| logical != physical).then_some(names))
}

fn physical_name(field: &StructField) -> &str {
    match field.metadata.get(PHYSICAL_NAME) {
        Some(MetadataValue::String(name)) => name,
        _ => field.name(),
    }
}

fn has_renamed_fields(ty: &DataType) -> bool {
    match ty {
        DataType::Struct(fields) => {
            fields.fields().any(|field| physical_name(field) != field.name() || has_renamed_fields(field.data_type()))
        }
        DataType::Array(array) => has_renamed_fields(array.element_type()),
        DataType::Map(map) => has_renamed_fields(map.key_type()) || has_renamed_fields(map.value_type()),
        _ => false,
    }
}
