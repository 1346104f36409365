//! Files that may be larger than what is held in memory: written row group by row group.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake_core::logstore::ObjectStoreRef;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use uuid::Uuid;

use super::file::{Encoder, NewFile, stats};

/// What is put into the table's folder in one go; a smaller file is put whole.
const PART_BYTES: usize = 4 << 20;

/// A file that is being written, and is not there before it is whole.
pub struct FileWriter<'e> {
    encoder: &'e Encoder,
    writer: ArrowWriter<Shared>,
    encoded: Shared,
    upload: Upload,
    event_date: Option<String>,
}

impl Encoder {
    /// Begins a file of one day.
    pub fn stream(&self, store: ObjectStoreRef, event_date: &str) -> anyhow::Result<FileWriter<'_>> {
        let encoded = Shared::default();
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(encoded.clone(), self.schema.clone(), options)?;
        let path = Path::parse(format!("event_date={event_date}/part-{}.{}", Uuid::new_v4(), self.extension))?;
        let upload = Upload { store, path, parts: None, waiting: Vec::new(), size: 0 };
        Ok(FileWriter { encoder: self, writer, encoded, upload, event_date: Some(event_date.to_owned()) })
    }
}

impl FileWriter<'_> {
    /// Writes a row group.
    pub async fn group(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        self.writer.write(rows)?;
        self.writer.flush()?;
        self.upload.push(self.encoded.take()).await
    }

    /// Ends the file. `modified_ms` is the age that it shall have.
    pub async fn finish(mut self, modified_ms: i64) -> anyhow::Result<NewFile> {
        let metadata = self.writer.close()?;
        self.upload.push(self.encoded.take()).await?;
        let path = self.upload.path.to_string();
        let size = self.upload.finish().await?;
        Ok(NewFile {
            path,
            rows: metadata.file_metadata().num_rows() as u64,
            event_date: self.event_date,
            size,
            stats: stats(&self.encoder.schema, &metadata).to_string(),
            modified_ms,
        })
    }
}

/// Bytes on their way from the encoder to the store.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file in parts; dropped before its end, it leaves nothing.
struct Upload {
    store: ObjectStoreRef,
    path: Path,
    parts: Option<Box<dyn MultipartUpload>>,
    waiting: Vec<u8>,
    size: u64,
}

impl Upload {
    async fn push(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.size += bytes.len() as u64;
        self.waiting.extend(bytes);
        if self.waiting.len() < PART_BYTES {
            return Ok(());
        }
        self.part().await.with_context(|| format!("write {}", self.path))
    }

    async fn part(&mut self) -> anyhow::Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => self.parts.insert(self.store.put_multipart(&self.path).await?),
        };
        parts.put_part(Bytes::from(std::mem::take(&mut self.waiting)).into()).await?;
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<u64> {
        let done = async {
            if self.parts.is_none() {
                self.store.put(&self.path, Bytes::from(std::mem::take(&mut self.waiting)).into()).await?;
                return anyhow::Ok(());
            }
            if !self.waiting.is_empty() {
                self.part().await?;
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
