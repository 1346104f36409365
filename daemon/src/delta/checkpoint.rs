//! Reading checkpoints: the actions in them, and whether one is intact. A checkpoint is one Parquet file, or several parts, or
//! (v2) a Parquet or JSON file whose sidecars name the data files.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::ReaderBuilder;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::log::LOG_FOLDER;
use super::parquet_reader::caught;

/// Shows some columns, such as `add.path`, of all parts of a checkpoint and of their sidecars.
pub(crate) async fn read_checkpoint(
    store: &dyn ObjectStore,
    parts: &[Path],
    columns: &[&str],
    mut show: impl FnMut(&RecordBatch) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let mut sidecars = BTreeSet::new();
    let with_sidecars: Vec<_> = columns.iter().copied().chain(["sidecar.path"]).collect();
    for part in parts {
        let read = read_part(store, part, &with_sidecars, |batch| {
            sidecars.extend(action_texts(batch, "sidecar", "path")?.into_iter().flatten());
            show(batch)
        });
        caught(read).await.with_context(|| format!("read checkpoint {part}"))?;
    }
    for sidecar in sidecars {
        let path = Path::from(format!("{LOG_FOLDER}/_sidecars/{sidecar}"));
        let read = read_part(store, &path, columns, &mut show);
        caught(read).await.with_context(|| format!("read sidecar {path}"))?;
    }
    Ok(())
}

async fn read_part(
    store: &dyn ObjectStore,
    part: &Path,
    columns: &[&str],
    mut show: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bytes = store.get(part).await?.bytes().await?;
    if part.as_ref().ends_with(".json") {
        return read_lines(&bytes, &mut show);
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    for batch in builder.with_projection(mask).build()? {
        show(&batch?)?;
    }
    Ok(())
}

/// The actions of a checkpoint in JSON, one in a line.
fn read_lines(bytes: &Bytes, mut show: impl FnMut(&RecordBatch) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut reader = ReaderBuilder::new(Arc::new(json_schema())).build(bytes.as_ref())?;
    let mut is_empty = true;
    while let Some(batch) = reader.next().transpose()? {
        is_empty = false;
        show(&batch)?;
    }
    if is_empty {
        bail!("it has no action");
    }
    Ok(())
}

/// All columns that silverd reads of a checkpoint.
fn json_schema() -> Schema {
    let field = |name: &str, ty| Field::new(name, ty, true);
    let action = |name: &str, fields: Vec<Field>| field(name, DataType::Struct(Fields::from(fields)));
    let entries = vec![Field::new("key", DataType::Utf8, false), field("value", DataType::Utf8)];
    let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
    let properties = DataType::Map(Arc::new(entries), false);
    Schema::new(vec![
        action(
            "add",
            vec![field("path", DataType::Utf8), field("size", DataType::Int64), field("stats", DataType::Utf8)],
        ),
        action("remove", vec![field("path", DataType::Utf8), field("deletionTimestamp", DataType::Int64)]),
        action("txn", vec![field("appId", DataType::Utf8), field("version", DataType::Int64)]),
        action("metaData", vec![field("id", DataType::Utf8), field("configuration", properties)]),
        action("protocol", vec![field("minReaderVersion", DataType::Int32)]),
        action("sidecar", vec![field("path", DataType::Utf8)]),
    ])
}

/// Reads a checkpoint that is one file to its end, and checks that it describes exactly one table.
pub(crate) async fn verify_checkpoint(store: &dyn ObjectStore, path: &Path) -> anyhow::Result<()> {
    verify_parts(store, std::slice::from_ref(path)).await
}

/// Reads all parts of a checkpoint to their ends, and checks that they describe exactly one table.
pub(super) async fn verify_parts(store: &dyn ObjectStore, parts: &[Path]) -> anyhow::Result<()> {
    let (mut tables, mut protocols) = (0, 0);
    let columns = ["add.path", "add.size", "txn.appId", "txn.version", "metaData.id", "protocol.minReaderVersion"];
    read_checkpoint(store, parts, &columns, |batch| {
        tables += action_texts(batch, "metaData", "id")?.iter().flatten().count();
        protocols += action_texts(batch, "protocol", "minReaderVersion")?.iter().flatten().count();
        Ok(())
    })
    .await?;
    anyhow::ensure!(
        tables == 1 && protocols == 1,
        "the checkpoint has {tables} `metaData` and {protocols} `protocol` actions, expected one of each"
    );
    Ok(())
}

/// One field of an action in a checkpoint, as text: `None` in a row of another action, nothing at all if the checkpoint
/// lacks the field.
pub(crate) fn action_texts(batch: &RecordBatch, action: &str, field: &str) -> anyhow::Result<Vec<Option<String>>> {
    let Some(action) = batch.column_by_name(action).and_then(|column| column.as_struct_opt()) else {
        return Ok(Vec::new());
    };
    let Some(column) = action.column_by_name(field) else { return Ok(Vec::new()) };
    let column = cast(column, &DataType::Utf8)?;
    let texts = column.as_string::<i32>();
    Ok((0..texts.len())
        .map(|row| (action.is_valid(row) && texts.is_valid(row)).then(|| texts.value(row).to_owned()))
        .collect())
}
