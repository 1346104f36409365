//! Compares the expected rows of a table with those that it has, block by block: by a fingerprint of each block, and
//! row by row for a few blocks that differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use crate::verify::fingerprint::{Fingerprint, describe_differences, describe_row};

/// The most blocks that are compared row by row.
pub(super) const ROW_DIFF_BLOCKS_MAX: usize = 4;
/// The offsets of a block.
const BLOCK_OFFSETS: i64 = 1 << 16;
/// The most rows that are shown.
const EXAMPLES_MAX: usize = 10;

/// The rows of some offsets of a log partition, or the rows of a day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Block {
    Offsets(LogPartition, i64),
    Day(i32),
}

impl Block {
    pub(super) fn of_offset(log: &LogPartition, offset: i64) -> Self {
        Self::Offsets(log.clone(), offset.div_euclid(BLOCK_OFFSETS))
    }

    /// The offsets of a block; `None` for a day.
    pub(super) fn ranges(&self) -> Option<Ranges> {
        match self {
            Self::Offsets(log, block) => {
                let start = (block * BLOCK_OFFSETS).max(0);
                Some(Ranges::from_iter([(log.clone(), OffsetRange::new(start, start + BLOCK_OFFSETS))]))
            }
            Self::Day(_) => None,
        }
    }
}

/// Which of the two sets of rows a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowSet {
    Expected,
    Found,
}

impl RowSet {
    fn other(self) -> Self {
        match self {
            Self::Expected => Self::Found,
            Self::Found => Self::Expected,
        }
    }
}

/// The fingerprints of the expected and the found rows of all blocks.
#[derive(Default)]
pub(super) struct BlockFingerprints(HashMap<Block, [Fingerprint; 2]>);

impl BlockFingerprints {
    pub(super) fn add(&mut self, set: RowSet, block: &Block, row_hash: u128) {
        match self.0.get_mut(block) {
            Some(fingerprints) => fingerprints[set as usize].add(row_hash),
            None => self.0.entry(block.clone()).or_default()[set as usize].add(row_hash),
        }
    }

    /// The blocks that differ, in order.
    pub(super) fn differing(&self) -> Vec<Block> {
        let differing: BTreeSet<&Block> =
            self.0.iter().filter(|(_, [expected, found])| expected != found).map(|(block, _)| block).collect();
        differing.into_iter().cloned().collect()
    }
}

/// A row of a normalized batch, with its origin.
pub(super) struct Row<'b> {
    pub(super) log: &'b LogPartition,
    pub(super) offset: i64,
    pub(super) hash: u128,
    pub(super) batch: &'b RecordBatch,
    pub(super) index: usize,
}

/// Compares the rows of some blocks one by one.
pub(super) struct RowDiff {
    pub(super) blocks: BTreeSet<Block>,
    unmatched: BTreeMap<RowKey, [Vec<UnmatchedRow>; 2]>,
}

/// What rows have in common that may be two versions of the same row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RowKey {
    Origin(LogPartition, i64),
    /// The rows of a day have no comparable origin: only equal rows belong together.
    Hash(u128),
}

struct UnmatchedRow {
    hash: u128,
    /// A copy of the row, so that the rest of its batch can be freed.
    row: RecordBatch,
}

/// The differences of the compared blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) missing: u64,
    pub(super) unexpected: u64,
    pub(super) changed: u64,
    pub(super) examples: Vec<String>,
}

impl RowDiff {
    pub(super) fn new(blocks: impl IntoIterator<Item = Block>) -> Self {
        Self { blocks: blocks.into_iter().collect(), unmatched: BTreeMap::new() }
    }

    /// Adds a row, and keeps it until an equal row of the other set is added.
    pub(super) fn add(&mut self, set: RowSet, by_day: bool, row: &Row<'_>) {
        let key = if by_day { RowKey::Hash(row.hash) } else { RowKey::Origin(row.log.clone(), row.offset) };
        let sets = self.unmatched.entry(key.clone()).or_default();
        let others = &mut sets[set.other() as usize];
        match others.iter().position(|other| other.hash == row.hash) {
            Some(at) => drop(others.swap_remove(at)),
            None => sets[set as usize].push(UnmatchedRow { hash: row.hash, row: copy(row.batch, row.index) }),
        }
        if sets.iter().all(Vec::is_empty) {
            self.unmatched.remove(&key);
        }
    }

    /// The rows without an equal row in the other set.
    pub(super) fn finish(self) -> Difference {
        let mut difference = Difference::default();
        for (key, [expected, found]) in self.unmatched {
            let pairs = expected.len().min(found.len());
            difference.changed += pairs as u64;
            difference.missing += (expected.len() - pairs) as u64;
            difference.unexpected += (found.len() - pairs) as u64;
            let origin = match key {
                RowKey::Origin(log, offset) => format!("{log}, offset {offset}, "),
                RowKey::Hash(_) => String::new(),
            };
            let mut add_example = |text: String| {
                if difference.examples.len() < EXAMPLES_MAX {
                    difference.examples.push(format!("{origin}{text}"));
                }
            };
            for (expected, found) in expected.iter().zip(&found) {
                add_example(describe_differences((&expected.row, 0), (&found.row, 0)));
            }
            expected[pairs..].iter().for_each(|row| add_example(format!("missing: {}", describe_row((&row.row, 0)))));
            found[pairs..].iter().for_each(|row| add_example(format!("unexpected: {}", describe_row((&row.row, 0)))));
        }
        difference
    }
}

fn copy(batch: &RecordBatch, row: usize) -> RecordBatch {
    let index = UInt32Array::from(vec![row as u32]);
    take_record_batch(batch, &index).unwrap_or_else(|_| batch.slice(row, 1))
}
