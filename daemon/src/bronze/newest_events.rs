//! Reads the newest events of Bronze: those of a table, to try a plugin on them, or those of a topic, to look at them.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, ensure};
use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use deltalake_core::DeltaTableBuilder;
use deltalake_core::logstore::LogStoreRef;
use silverd_core::chunk::{self, Chunk};
use silverd_core::infer::{Event, Newest, Place};
use silverd_core::offsets::Ranges;
use silverd_core::route::Router;

use super::read_window::to_chunk_schema;
use crate::delta::{RowGroups, is_table, list_files, table_url};

/// The search ends after so many records.
const RECORDS_MAX: usize = 2_000_000;

/// Opens Bronze to read it.
///
/// # Errors
///
/// If nothing was written to it yet.
pub(crate) fn open(path: &Path) -> anyhow::Result<LogStoreRef> {
    ensure!(
        is_table(path),
        "bronze is empty: there is no table in {} yet. Run `silverd run` or `silverd demo` first",
        path.display()
    );
    Ok(DeltaTableBuilder::from_url(table_url(path)?)?.build()?.log_store())
}

/// The newest `count` events that the router sends to table `index`, oldest first. Fewer if Bronze has no more, or if
/// they are too old. The chunk covers no ranges.
pub(crate) async fn newest(bronze: &LogStoreRef, router: &Router, index: usize, count: usize) -> anyhow::Result<Chunk> {
    let (mut found, mut left) = (Vec::<RecordBatch>::new(), count);
    visit(bronze, |chunk| {
        let routes = router.route(chunk);
        let rows = &routes.tables[index];
        let newest = &rows[rows.len().saturating_sub(left)..];
        left -= newest.len();
        found.push(take_record_batch(&chunk.records, &UInt32Array::from(newest.to_vec()))?);
        Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    found.reverse();
    Ok(Chunk { records: concat_batches(&chunk::schema(), &found)?, ranges: Ranges::default() })
}

/// Adds the newest events of a topic, or of all topics.
pub(crate) async fn add_newest(bronze: &LogStoreRef, topic: Option<&str>, newest: &mut Newest) -> anyhow::Result<()> {
    visit(bronze, |chunk| {
        for row in (0..chunk.records.num_rows()).rev() {
            if newest.is_full() {
                return Ok(ControlFlow::Break(()));
            }
            let of_row = chunk.topics().value(chunk.topic_of(row));
            if topic.is_none_or(|topic| topic == of_row) {
                newest.add(chunk.timestamp(row), event(chunk, row));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
    .await
}

fn event(chunk: &Chunk, row: usize) -> Event {
    let (keys, values, headers) = (chunk.keys(), chunk.values(), chunk.headers());
    let of_row = headers.ends[row] as usize..headers.ends[row + 1] as usize;
    Event {
        place: Place {
            topic: Some(chunk.topics().value(chunk.topic_of(row)).to_owned()),
            partition: Some(chunk.partitions()[row]),
            offset: chunk.offsets()[row],
        },
        has_key: keys.is_valid(row),
        value: values.is_valid(row).then(|| values.value(row).to_vec()),
        headers: of_row.map(|header| headers.names.value(header).to_owned()).collect(),
    }
}

/// Shows the records of Bronze, file by file from the newest, until somebody has seen enough.
async fn visit(
    bronze: &LogStoreRef,
    mut show: impl FnMut(&Chunk) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut files = list_files(bronze).await.context("list bronze files")?;
    files.sort_by(|a, b| (b.modified_ms, &b.path).cmp(&(a.modified_ms, &a.path)));
    let mut read = 0;
    for file in &files {
        let mut groups = RowGroups::open(bronze.object_store(None), file.to_read())
            .await
            .with_context(|| format!("open {}", file.path))?;
        while let Some(batches) = groups.read_last_unread().await.with_context(|| format!("read {}", file.path))? {
            // The batches of a row group stay apart: its events may be larger than one batch can hold.
            for batch in batches.iter().rev() {
                let chunk = Chunk { records: to_chunk_schema(batch)?, ranges: Ranges::default() };
                read += chunk.records.num_rows();
                if show(&chunk)?.is_break() || read >= RECORDS_MAX {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
