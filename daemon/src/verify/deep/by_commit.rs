//! The strategy for tables with deduplication: which event is the duplicate depends on the events before it, so the
//! commits of the table are transformed one by one, in order and completely.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use silverd_core::chunk::{self, Chunk};
use silverd_core::offsets::{LogPartition, Ranges};

use super::blocks::Block;
use super::comparison::{Comparison, Destination};
use super::strategy::{Strategy, Unit, units};
use crate::tables::dedup::Dedup;

pub(super) struct ByCommit {
    dedup: Dedup,
    /// The chunks of the current group.
    chunks: Vec<Chunk>,
}

impl ByCommit {
    pub(super) fn new(dedup: Dedup) -> Self {
        Self { dedup, chunks: Vec::new() }
    }
}

impl Strategy for ByCommit {
    /// One group per read of Bronze, which has as many commits as fit into a chunk.
    fn groups(&self, comparison: &Comparison<'_>, _: Option<&BTreeSet<Block>>) -> Vec<Vec<Unit>> {
        let of_commit = |ranges: Ranges| units(ranges.iter().flat_map(|(log, range)| comparison.spans(log, range)));
        let mut units = comparison.verifier.commit_ranges().iter().flat_map(of_commit).peekable();
        let mut groups = Vec::new();
        while let Some(first) = units.next() {
            let (mut group, mut offsets) = (vec![first], 0);
            while offsets < comparison.rows_max as i64 {
                let Some(unit) = units.next_if(|unit| follows(&group, &unit.ranges)) else { break };
                offsets += unit.ranges.total();
                group.push(unit);
            }
            groups.push(group);
        }
        groups
    }

    fn add_chunk(
        &mut self,
        _: &mut Comparison<'_>,
        _: &[Unit],
        chunk: Chunk,
        _: &mut Destination<'_>,
    ) -> anyhow::Result<()> {
        self.chunks.push(chunk);
        Ok(())
    }

    fn finish_group(
        &mut self,
        comparison: &mut Comparison<'_>,
        group: &[Unit],
        destination: &mut Destination<'_>,
    ) -> anyhow::Result<()> {
        let chunks = std::mem::take(&mut self.chunks);
        for chunks in chunks.chunk_by(|a, b| cluster_of(a) == cluster_of(b)) {
            for unit in group {
                if let Some(chunk) = select(chunks, &unit.ranges)? {
                    comparison.transform(&chunk, unit.plugin, Some(&mut self.dedup), destination)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether each of these ranges starts where the last range of its log partition in the group ends.
fn follows(group: &[Unit], ranges: &Ranges) -> bool {
    let end = |log: &LogPartition| group.iter().rev().find_map(|unit| unit.ranges.get(log)).map(|range| range.end);
    ranges.iter().all(|(log, range)| end(log).is_none_or(|end| end == range.start))
}

fn cluster_of(chunk: &Chunk) -> Option<&str> {
    chunk.ranges.iter().next().map(|(log, _)| &*log.cluster)
}

/// The records of some ranges, from several chunks of one cluster; `None` if there are none.
fn select(chunks: &[Chunk], ranges: &Ranges) -> anyhow::Result<Option<Chunk>> {
    let Some(cluster) = chunks.first().and_then(cluster_of) else { return Ok(None) };
    let (ranges, _) = ranges.split_cluster(cluster);
    let parts: Vec<RecordBatch> = chunks.iter().map(|chunk| chunk.select(&ranges).records).collect();
    let records = concat_batches(&chunk::schema(), &parts)?;
    Ok((records.num_rows() > 0).then_some(Chunk { records, ranges }))
}
