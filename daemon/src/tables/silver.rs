//! A Silver table: its folder and columns, and how its rows are split into files.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use silverd_core::config::{Compression, SilverTable};
use silverd_core::rows::file_schema;
use silverd_core::schema::evolve::Fit;
use silverd_core::schema::{Kind, TableSchema, added};
use silverd_core::zone::Zone;

use super::column::column;
use crate::delta::{Table, TableSpec, is_table, writer_properties};
use crate::plugin::Plugin;

pub(crate) fn table_spec(config: &SilverTable, schema: &TableSchema, base_dir: &Path) -> TableSpec {
    TableSpec {
        name: config.name.to_string(),
        path: base_dir.join(&*config.path),
        schema: file_schema(schema),
        doc: schema.doc.clone(),
        time_zone: config.time_zone,
    }
}

/// How a plugin's rows fit the existing table, whatever zone its days are of; `None` if there is no table yet.
///
/// # Errors
///
/// If the plugin cannot write the existing table.
pub(crate) async fn check_fit(config: &SilverTable, plugin: &Plugin, base_dir: &Path) -> anyhow::Result<Option<Fit>> {
    let spec = table_spec(config, &plugin.schema, base_dir);
    Ok(if is_table(&spec.path) { Some(Table::open_in_any_zone(&spec).await?.fit().clone()) } else { None })
}

/// The rows of some batches by their days. Each day's rows are copied when they are asked for: there may be many days.
pub(crate) struct RowsByDay<'b> {
    batches: &'b [RecordBatch],
    /// By day (days since the epoch): the index of the batch, and its rows; `None` for all of them.
    days: BTreeMap<i32, Vec<(usize, Option<UInt32Array>)>>,
}

impl<'b> RowsByDay<'b> {
    /// Splits the batches by the days of a timestamp column in a zone.
    pub(crate) fn split(batches: &'b [RecordBatch], event_time: &str, zone: Zone) -> anyhow::Result<Self> {
        let mut days = BTreeMap::<i32, Vec<(usize, Option<UInt32Array>)>>::new();
        let mut day_of = zone.days();
        for (at, batch) in batches.iter().enumerate() {
            let times = column(batch, event_time)?.as_primitive::<TimestampMicrosecondType>().values();
            let first = times.first().map_or(0, |time| day_of.of(*time));
            if times.iter().all(|time| day_of.of(*time) == first) {
                days.entry(first).or_default().push((at, None));
                continue;
            }
            let mut rows = BTreeMap::<i32, Vec<u32>>::new();
            for (row, time) in times.iter().enumerate() {
                rows.entry(day_of.of(*time)).or_default().push(row as u32);
            }
            for (day, rows) in rows {
                days.entry(day).or_default().push((at, Some(rows.into())));
            }
        }
        Ok(Self { batches, days })
    }

    pub(crate) fn days(&self) -> impl Iterator<Item = i32> {
        self.days.keys().copied()
    }

    /// The rows of a day.
    pub(crate) fn rows(&self, day: i32) -> anyhow::Result<Vec<RecordBatch>> {
        let take = |(at, rows): &(usize, Option<UInt32Array>)| match rows {
            Some(rows) => Ok(take_record_batch(&self.batches[*at], rows)?),
            None => Ok(self.batches[*at].clone()),
        };
        self.days.get(&day).into_iter().flatten().map(take).collect()
    }
}

/// The Parquet properties of a Silver table's files: dictionaries for enums and repeated values, delta encoding for
/// offsets.
pub(crate) fn properties(compression: &Compression, schema: &TableSchema) -> anyhow::Result<WriterProperties> {
    let enums = schema.columns.iter().filter(|column| matches!(column.kind, Kind::Enum(_)));
    properties_with(compression, enums.map(|column| column.name.as_str()))
}

/// As [`properties`], for a table whose enum columns have these names.
pub fn properties_with<'a>(
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
