//! What another engine may have switched on in a table: what silverd does about it, or why it cannot write the table.
//!
//! | feature | silverd |
//! |---|---|
//! | `appendOnly` | commits nothing that removes rows |
//! | `invariants`, `checkConstraints` | checks the rows of each commit |
//! | `changeDataFeed` | appends, which need no change files; commits nothing that replaces rows |
//! | `deletionVectors` | reads the files without the deleted rows; writes none |
//! | `inCommitTimestamp` | writes them |
//! | `v2Checkpoint`, `vacuumProtocolCheck`, `domainMetadata`, `clustering`, `timestampNtz`, `allowColumnDefaults` | reads them; they ask nothing of its commits |
//! | `typeWidening` | writes the table if no column was widened by another engine |
//! | `generatedColumns`, `identityColumns` | writes the table if no column is one |
//! | `columnMapping` | writes the table if its mode is `none` |
//! | every other | does not write the table |

use anyhow::bail;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Metadata, Protocol, StructType};
use deltalake_core::logstore::LogStoreRef;
use serde::Deserialize;

use super::definition::TableDefinition;

/// The versions in which a protocol names its features.
const READER_VERSION_MAX: i32 = 3;
const WRITER_VERSION_MAX: i32 = 7;
/// The way out that every table has.
const OTHER_FOLDER: &str =
    "Or set another `path` in pipeline.toml: silverd makes a Silver table's rows again from bronze there";
/// What each writer version before 7 brings.
const OF_VERSIONS: [(i32, &[&str]); 5] = [
    (2, &["appendOnly", "invariants"]),
    (3, &["checkConstraints"]),
    (4, &["changeDataFeed", "generatedColumns"]),
    (5, &["columnMapping"]),
    (6, &["identityColumns"]),
];
/// They ask nothing of a writer that appends files.
const HARMLESS: [&str; 9] = [
    "deletionVectors",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "domainMetadata",
    "clustering",
    "timestampNtz",
    "timestampWithoutTimezone",
    "checkpointProtection",
    "allowColumnDefaults",
];
/// By which another engine gives columns other names in the files.
pub(super) const COLUMN_MAPPING: &str = "delta.columnMapping.mode";
const CONSTRAINT: &str = "delta.constraints.";

/// Why silverd cannot write a table that another engine changed. It lasts until somebody changes the table again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotWritable(pub(crate) String);

/// Why silverd cannot write a table; `None` also if its log cannot be read.
pub(crate) async fn not_writable(log: &LogStoreRef) -> Option<NotWritable> {
    let mut table = DeltaTable::new(log.clone());
    table.load().await.ok()?;
    TableDefinition::of_loaded(&table).err()?.downcast().ok()
}

/// What a commit has to observe.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Features {
    /// Rows may be added, not removed.
    pub(super) append_only: bool,
    /// Rows that are replaced need change files, which silverd does not write.
    pub(super) change_data_feed: bool,
    pub(super) in_commit_timestamps: bool,
    pub(super) constraints: Vec<Constraint>,
}

/// A condition that every row must satisfy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constraint {
    pub(super) name: String,
    pub(super) sql: String,
}

impl Features {
    /// Fails if rows cannot be replaced or removed.
    pub(super) fn check_removal(&self) -> anyhow::Result<()> {
        let (property, why) = match self {
            Self { append_only: true, .. } => ("delta.appendOnly", "allows no removal of rows"),
            Self { change_data_feed: true, .. } => (
                "delta.enableChangeDataFeed",
                "needs change files for rows that are replaced, which silverd does not write",
            ),
            _ => return Ok(()),
        };
        bail!(
            "another engine set `{property}` of the table to `true`, which {why}. Set it to `false` there (in Spark: ALTER \
             TABLE … SET TBLPROPERTIES ('{property}' = 'false')) while silverd changes the rows"
        )
    }

    /// Fails if silverd cannot write such a table.
    pub(super) fn of(protocol: &Protocol, metadata: &Metadata, schema: &StructType) -> anyhow::Result<Self> {
        let (reader, writer) = (protocol.min_reader_version(), protocol.min_writer_version());
        if reader > READER_VERSION_MAX || writer > WRITER_VERSION_MAX {
            let text = format!(
                "the table requires protocol versions {reader} and {writer}, and silverd knows {READER_VERSION_MAX} and \
                 {WRITER_VERSION_MAX}: another engine upgraded the table. {OTHER_FOLDER}"
            );
            bail!(NotWritable(text));
        }
        let names: Vec<String> = match protocol.writer_features() {
            Some(features) => features.iter().map(ToString::to_string).collect(),
            None => {
                let versions = OF_VERSIONS.iter().filter(|(version, _)| *version <= writer);
                versions.flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned())).collect()
            }
        };
        let mut found = Self::default();
        for name in &names {
            found.add(name, metadata, schema)?;
        }
        Ok(found)
    }

    fn add(&mut self, feature: &str, metadata: &Metadata, schema: &StructType) -> anyhow::Result<()> {
        let properties = metadata.configuration();
        let is_set = |key: &str| properties.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let column_with =
            |key: &str| schema.fields().find(|field| field.metadata().keys().any(|name| name.starts_with(key)));
        match feature {
            "appendOnly" => self.append_only = is_set("delta.appendOnly"),
            "changeDataFeed" => self.change_data_feed = is_set("delta.enableChangeDataFeed"),
            "inCommitTimestamp" => self.in_commit_timestamps = is_set("delta.enableInCommitTimestamps"),
            "invariants" => self.constraints.extend(invariants(schema)?),
            "checkConstraints" => self.constraints.extend(properties.iter().filter_map(|(key, sql)| {
                let name = key.strip_prefix(CONSTRAINT)?.to_owned();
                Some(Constraint { name, sql: sql.clone() })
            })),
            "columnMapping" => {
                if let Some(mode) = properties.get(COLUMN_MAPPING).filter(|mode| *mode != "none") {
                    refuse(feature, &format!("`{COLUMN_MAPPING}` is `{mode}`"))?;
                }
            }
            "generatedColumns" | "identityColumns" | "typeWidening" | "typeWidening-preview" => {
                let key = match feature {
                    "generatedColumns" => "delta.generationExpression",
                    "identityColumns" => "delta.identity.",
                    _ => "delta.typeChanges",
                };
                if let Some(column) = column_with(key) {
                    refuse(feature, &format!("the column `{}` has `{key}`", column.name()))?;
                }
            }
            "rowTracking" => refuse(feature, "each row has an id there")?,
            name if HARMLESS.contains(&name) => {}
            name => refuse(name, "silverd does not know it")?,
        }
        Ok(())
    }
}

fn refuse(feature: &str, why: &str) -> anyhow::Result<()> {
    bail!(NotWritable(format!(
        "another engine switched on the table feature `{feature}` ({why}), with which silverd cannot write. Switch it off \
         there (in Spark: ALTER TABLE … DROP FEATURE {feature}, or the property by UNSET TBLPROPERTIES). {OTHER_FOLDER}"
    )))
}

/// The invariants of columns, as Delta had them before constraints.
fn invariants(schema: &StructType) -> anyhow::Result<Vec<Constraint>> {
    #[derive(Deserialize)]
    struct Outer {
        expression: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        expression: String,
    }
    let mut found = Vec::new();
    for field in schema.fields() {
        let Some(text) = field.metadata().get("delta.invariants") else { continue };
        let text = text.to_string();
        let Ok(Outer { expression }) = serde_json::from_str(&text) else {
            bail!("the invariant of column `{}` cannot be read: {text}", field.name());
        };
        found.push(Constraint { name: format!("invariant of {}", field.name()), sql: expression.expression });
    }
    Ok(found)
}
