//! Reading checkpoints: the actions in them, and whether one is intact.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Reads a checkpoint that is one file to its end, and checks that it describes exactly one table.
pub(crate) async fn verify_checkpoint(store: &dyn ObjectStore, path: &Path) -> anyhow::Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(store.get(path).await?.bytes().await?)?;
    let columns = ["add.path", "add.size", "txn.appId", "txn.version", "metaData.id", "protocol.minReaderVersion"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let (mut tables, mut protocols) = (0, 0);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        tables += action_texts(&batch, "metaData", "id")?.iter().flatten().count();
        protocols += action_texts(&batch, "protocol", "minReaderVersion")?.iter().flatten().count();
    }
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
