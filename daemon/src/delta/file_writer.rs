//! Parquet files that may be larger than memory: written row group by row group.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake_core::logstore::ObjectStoreRef;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt};
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;

use super::conform::conform;
use super::day::new_file_path;
use super::file::{Encoder, NewFile};
use super::stats::{NanColumns, stats};

/// Bytes of one part of an upload. A smaller file is written whole.
const PART_BYTES: usize = 4 << 20;

/// Writes one file, which appears in the table's folder only once it is complete.
pub(crate) struct FileWriter<'e> {
    encoder: &'e Encoder,
    writer: ArrowWriter<EncodedBytes>,
    encoded: EncodedBytes,
    upload: Upload,
    event_date: Option<String>,
    nans: NanColumns,
}

impl Encoder {
    /// Starts a file of one day.
    pub(crate) fn file_writer(&self, store: ObjectStoreRef, event_date: &str) -> anyhow::Result<FileWriter<'_>> {
        let encoded = EncodedBytes::default();
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(encoded.clone(), self.schema.clone(), options)?;
        let path = Path::parse(new_file_path(event_date, self.extension))?;
        let upload = Upload { store, path, parts: None, buffered: Vec::new(), size: 0 };
        Ok(FileWriter {
            encoder: self,
            writer,
            encoded,
            upload,
            event_date: Some(event_date.to_owned()),
            nans: NanColumns::default(),
        })
    }
}

impl FileWriter<'_> {
    /// Adds rows; a row group ends where the encoder's properties say.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        let rows = conform(rows, &self.encoder.schema)?;
        self.nans.add(&rows);
        self.writer.write(&rows)?;
        self.upload.push(self.encoded.take()).await
    }

    pub(crate) async fn write_row_group(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        self.nans.add(rows);
        self.writer.write(rows)?;
        self.writer.flush()?;
        self.upload.push(self.encoded.take()).await
    }

    /// Completes the file. `modified_ms` is the modification time that the log records for it.
    pub(crate) async fn finish(mut self, modified_ms: i64) -> anyhow::Result<NewFile> {
        let metadata = self.writer.close()?;
        self.upload.push(self.encoded.take()).await?;
        let path = self.upload.path.to_string();
        let size = self.upload.finish().await?;
        Ok(NewFile {
            path,
            rows: metadata.file_metadata().num_rows() as u64,
            event_date: self.event_date,
            size,
            stats: stats(&self.encoder.schema, &metadata, &self.nans).to_string(),
            modified_ms,
        })
    }
}

/// What the encoder wrote and the upload has not taken yet.
#[derive(Clone, Default)]
struct EncodedBytes(Arc<Mutex<Vec<u8>>>);

impl EncodedBytes {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Write for EncodedBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A multipart upload. Dropped before it is complete, it leaves no file.
struct Upload {
    store: ObjectStoreRef,
    path: Path,
    parts: Option<Box<dyn MultipartUpload>>,
    buffered: Vec<u8>,
    size: u64,
}

impl Upload {
    async fn push(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.size += bytes.len() as u64;
        self.buffered.extend(bytes);
        if self.buffered.len() < PART_BYTES {
            return Ok(());
        }
        self.upload_part().await.with_context(|| format!("write {}", self.path))
    }

    async fn upload_part(&mut self) -> anyhow::Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => self.parts.insert(self.store.put_multipart(&self.path).await?),
        };
        parts.put_part(Bytes::from(std::mem::take(&mut self.buffered)).into()).await?;
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<u64> {
        let done = async {
            if self.parts.is_none() {
                self.store.put(&self.path, Bytes::from(std::mem::take(&mut self.buffered)).into()).await?;
                return anyhow::Ok(());
            }
            if !self.buffered.is_empty() {
                self.upload_part().await?;
            }
            if let Some(parts) = &mut self.parts {
                parts.complete().await?;
            }
            Ok(())
        };
        done.await.with_context(|| format!("write {}", self.path))?;
        Ok(self.size)
    }
}
