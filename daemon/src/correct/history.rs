//! Which commits of a table a plugin version made, from the table's log.

use std::path::Path;

use anyhow::bail;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use silverd_core::config::SilverTable;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};
use tracing::warn;

use super::places::Places;
use crate::delta::{Reader, info_in, list};

/// Entries of the log that are read at once.
const READ_AT_ONCE: usize = 8;

/// The events of all commits that were made by the one plugin whose digest begins like this; `None` if there are none.
///
/// # Errors
///
/// If digests of several plugins begin like this.
pub async fn made_by(config: &SilverTable, base: &Path, digest: &str) -> anyhow::Result<Option<(String, Places)>> {
    let Some(reader) = Reader::open(&base.join(&*config.path))? else { return Ok(None) };
    let log = list(reader.log().object_store(None).as_ref()).await?;
    let Some((first, newest)) = log.commits.keys().next().zip(log.commits.keys().next_back()) else { return Ok(None) };
    if *first > 0 {
        let table = &config.name;
        warn!(%table, "the log begins with version {first}: which plugin made what before is not known any more. \
            `silverd rebuild {table} --from DATE --to DATE` makes such days anew");
    }
    let (mut full, mut all) = (None::<String>, Vec::new());
    let entries = stream::iter(*first..=*newest).map(|version| info_at(reader.log(), version));
    let mut entries = std::pin::pin!(entries.buffered(READ_AT_ONCE));
    while let Some(info) = entries.try_next().await? {
        let Some(by) = info["plugin"]["digest"].as_str().filter(|by| by.starts_with(digest)) else { continue };
        if full.as_deref().is_some_and(|full| full != by) {
            bail!("several plugins' digests begin with {digest}: give more of it");
        }
        full = Some(by.to_owned());
        all.extend([&info["ranges"], &info["correction"]["ranges"]].map(ranges));
    }
    Ok(full.map(|digest| (digest, Places::of_ranges(&all))))
}

/// What a commit has left under `silverd` in its info; null for a commit that was cleaned away, or another writer's.
async fn info_at(log: &LogStoreRef, version: u64) -> anyhow::Result<Value> {
    let Some(bytes) = log.read_commit_entry(version).await? else { return Ok(Value::Null) };
    Ok(info_in(get_actions(version, &bytes)?).unwrap_or_default())
}

/// The reverse of `ranges_json`.
fn ranges(json: &Value) -> Ranges {
    let of = |(log, range): (&String, &Value)| {
        let (start, end) = (range[0].as_i64()?, range[1].as_i64()?);
        Some((log.parse::<LogPartition>().ok()?, OffsetRange::new(start, end)))
    };
    json.as_object().into_iter().flatten().filter_map(of).collect()
}
