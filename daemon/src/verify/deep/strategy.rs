//! How the events of Bronze are transformed again: which offsets are read together, and which are transformed together.

use std::collections::BTreeSet;

use silverd_core::chunk::Chunk;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use super::blocks::Block;
use super::comparison::{Comparison, Destination};
use crate::bronze::replay_clusters::ReplayClusters;

/// Offsets that one plugin transforms: at most one range of each log partition.
pub(super) struct Unit {
    pub(super) ranges: Ranges,
    /// The index of the plugin's digest in the attribution.
    pub(super) plugin: usize,
}

pub(super) trait Strategy: Send {
    /// The units to transform, in groups that are read from Bronze together. `only` limits them to some blocks, if the
    /// strategy can transform these alone.
    fn groups(&self, comparison: &Comparison<'_>, only: Option<&BTreeSet<Block>>) -> Vec<Vec<Unit>>;

    /// Adds a chunk of a group. It has only records of the compared table.
    fn add_chunk(
        &mut self,
        comparison: &mut Comparison<'_>,
        group: &[Unit],
        chunk: Chunk,
        destination: &mut Destination<'_>,
    ) -> anyhow::Result<()>;

    /// All chunks of the group were added.
    fn finish_group(
        &mut self,
        comparison: &mut Comparison<'_>,
        group: &[Unit],
        destination: &mut Destination<'_>,
    ) -> anyhow::Result<()>;
}

/// Transforms the events of Bronze again: the expected rows go to `destination`.
pub(super) async fn transform_bronze(
    comparison: &mut Comparison<'_>,
    strategy: &mut dyn Strategy,
    only: Option<&BTreeSet<Block>>,
    destination: &mut Destination<'_>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> anyhow::Result<()> {
    let groups = strategy.groups(comparison, only);
    let total = groups.iter().flatten().map(|unit| unit.ranges.total() as u64).sum();
    let mut done = 0;
    for group in groups {
        let (bronze, ranges) = (comparison.bronze.clone(), union(&group));
        let mut replay = ReplayClusters::new(bronze, ranges, comparison.rows_max, comparison.bytes_max);
        while let Some(chunk) = replay.next().await? {
            done += chunk.ranges.total() as u64;
            let chunk = comparison.select_routed(&chunk)?;
            strategy.add_chunk(comparison, &group, chunk, destination)?;
            progress(done, total);
        }
        strategy.finish_group(comparison, &group, destination)?;
    }
    Ok(())
}

/// As few units as possible with these offsets and plugins.
pub(super) fn units(spans: impl IntoIterator<Item = (LogPartition, OffsetRange, usize)>) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (log, range, plugin) in spans {
        match units.iter_mut().find(|unit| unit.plugin == plugin && unit.ranges.get(&log).is_none()) {
            Some(unit) => unit.ranges.insert(log, range),
            None => units.push(Unit { ranges: Ranges::from_iter([(log, range)]), plugin }),
        }
    }
    units
}

/// The ranges of all units. Within a group, those of one log partition follow one another.
fn union(group: &[Unit]) -> Ranges {
    let mut union = Ranges::default();
    for (log, range) in group.iter().flat_map(|unit| unit.ranges.iter()) {
        let start = union.get(log).map_or(range.start, |before: OffsetRange| before.start);
        union.insert(log.clone(), OffsetRange::new(start, range.end));
    }
    union
}
