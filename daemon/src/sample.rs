//! The newest events of a table, read back from Bronze: what a plugin is tried on.

use anyhow::Context;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use deltalake_core::logstore::LogStoreRef;
use silverd_core::chunk::{self, Chunk};
use silverd_core::offsets::Ranges;
use silverd_core::route::Router;

use crate::delta::{RowGroups, files_of};
use crate::replay::as_chunk;

/// How far back is looked: records that are read before the search is given up.
const RECORDS_MAX: usize = 2_000_000;

/// The newest `count` events that the router gives to table `index`, the oldest of them first; fewer if Bronze has no
/// more, or has them too far back. The chunk covers no ranges.
pub async fn newest(bronze: &LogStoreRef, router: &Router, index: usize, count: usize) -> anyhow::Result<Chunk> {
    let mut files = files_of(bronze).await.context("list bronze's files")?;
    files.sort_by(|a, b| (b.modified_ms, &b.path).cmp(&(a.modified_ms, &a.path)));
    let (mut found, mut left, mut read) = (Vec::<RecordBatch>::new(), count, 0);
    'search: for file in &files {
        let mut groups = RowGroups::open(bronze.object_store(None), file.path.clone(), file.size)
            .await
            .with_context(|| format!("open {}", file.path))?;
        while let Some(batches) = groups.last().await.with_context(|| format!("read {}", file.path))? {
            let batches = batches.iter().map(as_chunk).collect::<anyhow::Result<Vec<_>>>()?;
            let records = concat_batches(&chunk::schema(), &batches)?;
            read += records.num_rows();
            let chunk = Chunk { records, ranges: Ranges::default() };
            let routes = router.route(chunk.values().iter());
            let mine = &routes.tables[index];
            let newest = &mine[mine.len().saturating_sub(left)..];
            left -= newest.len();
            found.push(take_record_batch(&chunk.records, &UInt32Array::from(newest.to_vec()))?);
            if left == 0 || read >= RECORDS_MAX {
                break 'search;
            }
        }
    }
    found.reverse();
    Ok(Chunk { records: concat_batches(&chunk::schema(), &found)?, ranges: Ranges::default() })
}
