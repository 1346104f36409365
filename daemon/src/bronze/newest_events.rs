//! Reads the newest events of a table from Bronze, to try a plugin on them.

use anyhow::Context;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use deltalake_core::logstore::LogStoreRef;
use silverd_core::chunk::{self, Chunk};
use silverd_core::offsets::Ranges;
use silverd_core::route::Router;

use super::read_window::to_chunk_schema;
use crate::delta::{RowGroups, list_files};

/// The search ends after so many records.
const RECORDS_MAX: usize = 2_000_000;

/// The newest `count` events that the router sends to table `index`, oldest first. Fewer if Bronze has no more, or if
/// they are too old. The chunk covers no ranges.
pub(crate) async fn newest(bronze: &LogStoreRef, router: &Router, index: usize, count: usize) -> anyhow::Result<Chunk> {
    let mut files = list_files(bronze).await.context("list bronze files")?;
    files.sort_by(|a, b| (b.modified_ms, &b.path).cmp(&(a.modified_ms, &a.path)));
    let (mut found, mut left, mut read) = (Vec::<RecordBatch>::new(), count, 0);
    'search: for file in &files {
        let mut groups = RowGroups::open(bronze.object_store(None), file.path.clone(), file.size)
            .await
            .with_context(|| format!("open {}", file.path))?;
        while let Some(batches) = groups.read_last_unread().await.with_context(|| format!("read {}", file.path))? {
            // The batches of a row group stay apart: its events may be larger than one batch can hold.
            for batch in batches.iter().rev() {
                let chunk = Chunk { records: to_chunk_schema(batch)?, ranges: Ranges::default() };
                read += chunk.records.num_rows();
                let routes = router.route(&chunk);
                let rows = &routes.tables[index];
                let newest = &rows[rows.len().saturating_sub(left)..];
                left -= newest.len();
                found.push(take_record_batch(&chunk.records, &UInt32Array::from(newest.to_vec()))?);
                if left == 0 || read >= RECORDS_MAX {
                    break 'search;
                }
            }
        }
    }
    found.reverse();
    Ok(Chunk { records: concat_batches(&chunk::schema(), &found)?, ranges: Ranges::default() })
}
