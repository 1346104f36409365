//! Batches of rows as attachments of messages.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

/// Batches of one schema, as bytes. `None` if there are none.
pub(crate) fn encode(batches: &[RecordBatch]) -> Result<Option<Vec<u8>>, ArrowError> {
    let Some(first) = batches.first() else { return Ok(None) };
    let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut writer = StreamWriter::try_new(Vec::with_capacity(bytes), &first.schema())?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner().map(Some)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    StreamReader::try_new(bytes, None)?.collect()
}
