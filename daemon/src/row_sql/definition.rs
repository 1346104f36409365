//! What decides the rows of a table with SQL, as the bytes that are kept of each version.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use silverd_core::config::{SilverTable, SqlInput, SqlTransform};
use silverd_core::input::interface_wit;

/// The SQL of a table, with what it reads of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// The version of this form.
    silverd_sql: u32,
    pub(super) sql: String,
    /// WIT with the record `input`.
    pub(super) input: String,
    /// Columns that have a value in every row, whatever the SQL gives.
    pub(super) not_null: Vec<String>,
}

const FORM: u32 = 1;

impl Definition {
    /// What pipeline.toml says of a table. Its paths are relative to `base_dir`.
    pub(crate) fn of(table: &SilverTable, transform: &SqlTransform, base_dir: &Path) -> anyhow::Result<Self> {
        let input = match &transform.input.value {
            SqlInput::Fields(input) => interface_wit("silverd:sql", "event", input),
            SqlInput::File(path) => {
                let path = base_dir.join(path);
                std::fs::read_to_string(&path)
                    .with_context(|| format!("read the input's WIT file {}", path.display()))?
            }
        };
        let dedup = table.dedup.iter().flat_map(|dedup| dedup.by.iter());
        let mut not_null: Vec<String> = std::iter::once(&*table.event_time).chain(dedup).cloned().collect();
        not_null.sort();
        not_null.dedup();
        Ok(Self { silverd_sql: FORM, sql: transform.sql.value.clone(), input, not_null })
    }

    /// The definition in the file of a version; `None` if the file is something else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let definition: Self = serde_json::from_slice(bytes).ok()?;
        (definition.silverd_sql == FORM).then_some(definition)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}
