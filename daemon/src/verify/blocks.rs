//! The rows that a table should have and those that it has, block by block: a sum for each, and the rows themselves of the
//! few blocks that differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::RecordBatch;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use super::prints::{Sum, brief, differences};

/// Offsets of a block.
const BLOCK: i64 = 1 << 16;
/// Blocks that differ and are looked into.
pub const LOOKED_INTO_MAX: usize = 4;
/// Rows that are shown.
const EXAMPLES_MAX: usize = 10;

/// Some offsets of a log partition, or the rows of a day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Block {
    Offsets(LogPartition, i64),
    Day(i32),
}

impl Block {
    pub fn of_offset(log: &LogPartition, offset: i64) -> Self {
        Self::Offsets(log.clone(), offset.div_euclid(BLOCK))
    }

    /// The offsets of a block; `None` of a day.
    pub fn ranges(&self) -> Option<Ranges> {
        match self {
            Self::Offsets(log, block) => {
                let start = (block * BLOCK).max(0);
                Some(Ranges::from_iter([(log.clone(), OffsetRange::new(start, start + BLOCK))]))
            }
            Self::Day(_) => None,
        }
    }
}

/// A row, and where it came from.
pub struct Row<'b> {
    pub log: &'b LogPartition,
    pub offset: i64,
    pub print: u128,
    pub plain: &'b RecordBatch,
    pub row: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Expected,
    Found,
}

/// The sums of all blocks.
#[derive(Default)]
pub struct Sums(HashMap<Block, [Sum; 2]>);

impl Sums {
    pub fn add(&mut self, side: Side, block: &Block, print: u128) {
        match self.0.get_mut(block) {
            Some(sums) => sums[side as usize].add(print),
            None => self.0.entry(block.clone()).or_default()[side as usize].add(print),
        }
    }

    /// The blocks that differ, in order.
    pub fn differing(&self) -> Vec<Block> {
        let differ: BTreeSet<&Block> = self.0.iter().filter(|(_, [a, b])| a != b).map(|(block, _)| block).collect();
        differ.into_iter().cloned().collect()
    }
}

/// The rows of blocks that differ, which come once more.
pub struct Looked {
    pub blocks: BTreeSet<Block>,
    rows: BTreeMap<(LogPartition, i64), [Vec<Kept>; 2]>,
}

struct Kept {
    print: u128,
    /// One row of its own, so that the rest of its batch may go.
    plain: RecordBatch,
}

/// What was found in the blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub missing: u64,
    pub unexpected: u64,
    pub changed: u64,
    pub examples: Vec<String>,
}

impl Looked {
    pub fn into(blocks: impl IntoIterator<Item = Block>) -> Self {
        Self { blocks: blocks.into_iter().collect(), rows: BTreeMap::new() }
    }

    /// Keeps a row until its equal comes from the other side.
    pub fn add(&mut self, side: Side, by_day: bool, row: &Row<'_>) {
        // Rows of a day have no place: their fingerprints stand for it.
        let key = if by_day { (row.log.clone(), (row.print >> 65) as i64) } else { (row.log.clone(), row.offset) };
        let key = if by_day { (LogPartition::new("", "", 0), key.1) } else { key };
        let sides = self.rows.entry(key.clone()).or_default();
        let others = &mut sides[1 - side as usize];
        match others.iter().position(|kept| kept.print == row.print) {
            Some(at) => drop(others.swap_remove(at)),
            None => sides[side as usize].push(Kept { print: row.print, plain: copy(row.plain, row.row) }),
        }
        if sides.iter().all(Vec::is_empty) {
            self.rows.remove(&key);
        }
    }

    /// What is left without its equal.
    pub fn finish(self) -> Difference {
        let mut difference = Difference::default();
        for ((log, offset), [expected, found]) in self.rows {
            let pairs = expected.len().min(found.len());
            difference.changed += pairs as u64;
            difference.missing += (expected.len() - pairs) as u64;
            difference.unexpected += (found.len() - pairs) as u64;
            let place = if log.topic.is_empty() { String::new() } else { format!("{log}, offset {offset}, ") };
            let mut tell = |text: String| {
                if difference.examples.len() < EXAMPLES_MAX {
                    difference.examples.push(format!("{place}{text}"));
                }
            };
            for (expected, found) in expected.iter().zip(&found) {
                tell(differences((&expected.plain, 0), (&found.plain, 0)));
            }
            expected[pairs..].iter().for_each(|row| tell(format!("missing: {}", brief((&row.plain, 0)))));
            found[pairs..].iter().for_each(|row| tell(format!("unexpected: {}", brief((&row.plain, 0)))));
        }
        difference
    }
}

fn copy(batch: &RecordBatch, row: usize) -> RecordBatch {
    let index = arrow::array::UInt32Array::from(vec![row as u32]);
    arrow::compute::take_record_batch(batch, &index).unwrap_or_else(|_| batch.slice(row, 1))
}
