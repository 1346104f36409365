//! A table's metadata and schema at one version, and how they change to take rows of other columns.

use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Metadata, MetadataExt, MetadataValue, Protocol, StructField, StructType};
use serde_json::Value;
use silverd_core::schema::COMMENT;
use silverd_core::schema::evolve::{Fit, evolve};
use silverd_core::zone::Zone;

use super::create::{check_partitioning, event_date_comment};
use super::day::EVENT_DATE;
use super::features::Features;
use super::schema;
use super::zone::with_zone;

/// A table's metadata, and the columns in it.
#[derive(Clone)]
pub(super) struct TableDefinition {
    pub(super) metadata: Metadata,
    schema: StructType,
    protocol: Protocol,
    features: Features,
}

impl TableDefinition {
    /// Fails if silverd cannot write the table.
    pub(super) fn of_loaded(table: &DeltaTable) -> anyhow::Result<Self> {
        let snapshot = table.snapshot()?;
        let (metadata, protocol) = (snapshot.metadata().clone(), snapshot.protocol().clone());
        check_partitioning(&metadata)?;
        Self::new(metadata, snapshot.schema().as_ref().clone(), protocol)
    }

    fn new(metadata: Metadata, schema: StructType, protocol: Protocol) -> anyhow::Result<Self> {
        let features = Features::of(&protocol, &metadata, &schema)?;
        Ok(Self { metadata, schema, protocol, features })
    }

    /// What a commit has to observe.
    pub(super) fn features(&self) -> &Features {
        &self.features
    }

    /// How rows of these columns fit into the table, and the table's definition afterwards, if it changes.
    pub(super) fn evolve(&self, columns: &[StructField]) -> anyhow::Result<(Fit, Option<Self>)> {
        let fit = evolve(&schema::table_columns(self.schema.fields()), &schema::table_columns(columns))?;
        if fit.changes.is_empty() && !schema::has_required_within_arrays(&self.schema)? {
            return Ok((fit, None));
        }
        let schema = schema::evolved_schema(&self.schema, &fit.columns)?;
        let metadata = self.metadata.clone().with_schema(&schema)?;
        Ok((fit, Some(Self::new(metadata, schema, self.protocol.clone())?)))
    }

    /// The same columns, with the days of a zone.
    pub(super) fn in_zone(&self, zone: Zone) -> anyhow::Result<Self> {
        let fields = self.schema.fields().cloned().map(|mut field| {
            if field.name() == EVENT_DATE {
                field.metadata.insert(COMMENT.to_owned(), MetadataValue::String(event_date_comment(zone)));
            }
            field
        });
        let schema = StructType::try_new(fields)?;
        let metadata = with_zone(self.metadata.clone().with_schema(&schema)?, zone)?;
        Self::new(metadata, schema, self.protocol.clone())
    }

    /// The same columns in other metadata.
    pub(super) fn with_metadata(&self, metadata: &Metadata) -> anyhow::Result<Self> {
        Self::new(metadata.clone().with_schema(&self.schema)?, self.schema.clone(), self.protocol.clone())
    }

    /// Whether other metadata differ in the table's properties at most.
    pub(super) fn differs_in_properties_only(&self, metadata: &Metadata) -> bool {
        without_properties(&self.metadata) == without_properties(metadata)
    }
}

/// The schema is JSON text within the metadata, whose keys may come in another order: it is compared as JSON.
fn without_properties(metadata: &Metadata) -> Value {
    let mut value = serde_json::to_value(metadata).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("configuration");
        if let Some(schema) = fields.get_mut("schemaString") {
            let parsed = schema.as_str().and_then(|text| serde_json::from_str(text).ok());
            *schema = parsed.unwrap_or_default();
        }
    }
    value
}
