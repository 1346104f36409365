//! The strategy for tables without deduplication: an event's rows depend on the event alone, so any range can be
//! transformed on its own, in any order.

use std::collections::BTreeSet;

use silverd_core::chunk::Chunk;
use silverd_core::offsets::Ranges;

use super::blocks::Block;
use super::comparison::{Comparison, Destination};
use super::strategy::{Strategy, Unit, units};

pub(super) struct ByRange;

impl Strategy for ByRange {
    fn groups(&self, comparison: &Comparison<'_>, only: Option<&BTreeSet<Block>>) -> Vec<Vec<Unit>> {
        let units = match only {
            None => units(comparison.all_spans()),
            Some(blocks) => {
                let ranges: Vec<Ranges> = blocks.iter().filter_map(Block::ranges).collect();
                units(ranges.iter().flat_map(Ranges::iter).flat_map(|(log, range)| comparison.spans(log, range)))
            }
        };
        units.into_iter().map(|unit| vec![unit]).collect()
    }

    fn add_chunk(
        &mut self,
        comparison: &mut Comparison<'_>,
        group: &[Unit],
        chunk: Chunk,
        destination: &mut Destination<'_>,
    ) -> anyhow::Result<()> {
        group.iter().try_for_each(|unit| comparison.transform(&chunk, unit.plugin, None, destination))
    }

    fn finish_group(&mut self, _: &mut Comparison<'_>, _: &[Unit], _: &mut Destination<'_>) -> anyhow::Result<()> {
        Ok(())
    }
}
