//! Finds the events that a plugin version wrote, from the table's log.

use std::path::Path;

use anyhow::bail;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use silverd_core::config::SilverTable;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};
use tracing::warn;

use crate::delta::{TableReader, list_log, silverd_info};
use crate::tables::event_set::EventSet;

/// How many entries of the log are read at the same time.
const CONCURRENT_READS: usize = 8;

/// The full digest of the plugin version whose digest starts with `digest`, and the events that it wrote; `None` if it
/// wrote none.
///
/// # Errors
///
/// If several versions start with `digest`.
pub(crate) async fn events_written_by(
    config: &SilverTable,
    base_dir: &Path,
    digest: &str,
) -> anyhow::Result<Option<(String, EventSet)>> {
    let Some(reader) = TableReader::open(&base_dir.join(&*config.path))? else { return Ok(None) };
    let log = list_log(reader.log().object_store(None).as_ref()).await?;
    let Some((first, newest)) = log.commits.keys().next().zip(log.commits.keys().next_back()) else { return Ok(None) };
    if *first > 0 {
        let table = &config.name;
        warn!(
            %table,
            "the log starts with version {first}, so it does not name the plugins of earlier rows. Rebuild their days with \
             `silverd rebuild {table} --from DATE --to DATE`"
        );
    }
    let (mut full, mut all) = (None::<String>, Vec::new());
    let entries = stream::iter(*first..=*newest).map(|version| read_info(reader.log(), version));
    let mut entries = std::pin::pin!(entries.buffered(CONCURRENT_READS));
    while let Some(info) = entries.try_next().await? {
        let Some(writer) = info["plugin"]["digest"].as_str().filter(|writer| writer.starts_with(digest)) else {
            continue;
        };
        if full.as_deref().is_some_and(|full| full != writer) {
            bail!("several plugin versions start with {digest}: give more of the digest");
        }
        full = Some(writer.to_owned());
        all.extend([&info["ranges"], &info["correction"]["ranges"]].map(parse_ranges));
    }
    Ok(full.map(|digest| (digest, EventSet::of_ranges(&all))))
}

/// What silverd wrote into the info of a commit; null if the commit was cleaned up, or is by another writer.
async fn read_info(log: &LogStoreRef, version: u64) -> anyhow::Result<Value> {
    let Some(bytes) = log.read_commit_entry(version).await? else { return Ok(Value::Null) };
    Ok(silverd_info(get_actions(version, &bytes)?).unwrap_or_default())
}

/// The inverse of `ranges_json`.
fn parse_ranges(json: &Value) -> Ranges {
    let parse = |(log, range): (&String, &Value)| {
        let (start, end) = (range[0].as_i64()?, range[1].as_i64()?);
        Some((log.parse::<LogPartition>().ok()?, OffsetRange::new(start, end)))
    };
    json.as_object().into_iter().flatten().filter_map(parse).collect()
}
