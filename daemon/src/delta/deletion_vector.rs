//! Deletion vectors: rows of a data file that another engine has deleted without writing the file again.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor as KernelDescriptor;
use deltalake_core::kernel::DeletionVectorDescriptor;
use deltalake_core::logstore::LogStoreRef;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use roaring::RoaringTreemap;

/// The deleted rows of a file, and what the log says of them.
#[derive(Debug)]
pub(crate) struct DeletionVector {
    pub(super) descriptor: DeletionVectorDescriptor,
    /// The positions of the rows in the file.
    rows: RoaringTreemap,
}

impl DeletionVector {
    pub(super) async fn read(log: &LogStoreRef, descriptor: DeletionVectorDescriptor) -> anyhow::Result<Self> {
        let kernel: KernelDescriptor = descriptor.clone().try_into()?;
        let (engine, folder) = (log.engine(None), log.root_url().clone());
        let read = tokio::task::spawn_blocking(move || kernel.read(engine.storage_handler(), &folder)).await?;
        let rows = read.map_err(|error| anyhow!("{error}")).context("read its deletion vector")?;
        Ok(Self { descriptor, rows })
    }

    pub(crate) fn count(&self) -> u64 {
        self.rows.len()
    }

    /// How many of these rows of the file are deleted.
    pub(super) fn count_in(&self, rows: Range<u64>) -> u64 {
        self.rows.range_cardinality(rows)
    }

    /// What is left of these rows of the file, seen from the first of them.
    pub(crate) fn selection(&self, rows: Range<u64>) -> RowSelection {
        let mut selectors = Vec::new();
        let mut next = rows.start;
        let mut deleted = self.rows.iter();
        deleted.advance_to(rows.start);
        for deleted in deleted.take_while(|deleted| *deleted < rows.end) {
            if deleted > next {
                selectors.push(RowSelector::select((deleted - next) as usize));
            }
            selectors.push(RowSelector::skip(1));
            next = deleted + 1;
        }
        if next < rows.end {
            selectors.push(RowSelector::select((rows.end - next) as usize));
        }
        selectors.into()
    }
}

/// The file as it is to be read.
#[derive(Clone, Debug)]
pub(crate) struct FileToRead {
    pub path: object_store::path::Path,
    pub size: u64,
    pub deleted: Option<Arc<DeletionVector>>,
}

#[cfg(test)]
mod tests {
    use deltalake_core::kernel::StorageType;

    use super::*;

    fn check(deleted: &[u64], rows: Range<u64>, expected: &[(usize, bool)]) {
        let descriptor = DeletionVectorDescriptor {
            storage_type: StorageType::Inline,
            path_or_inline_dv: String::new(),
            offset: None,
            size_in_bytes: 0,
            cardinality: deleted.len() as i64,
        };
        let vector = DeletionVector { descriptor, rows: deleted.iter().collect() };
        let selectors: Vec<RowSelector> = vector.selection(rows.clone()).into();
        let found: Vec<_> = selectors.iter().map(|selector| (selector.row_count, selector.skip)).collect();
        assert_eq!(found, expected);
        let skipped: usize = expected.iter().filter(|(_, skip)| *skip).map(|(rows, _)| rows).sum();
        assert_eq!(vector.count_in(rows), skipped as u64);
    }

    #[test]
    fn what_is_left_is_selected() {
        check(&[], 0..5, &[(5, false)]);
        check(&[0, 1, 4], 0..5, &[(2, true), (2, false), (1, true)]);
        check(&[0, 1, 4], 2..4, &[(2, false)]);
        check(&[9, 10], 10..12, &[(1, true), (1, false)]);
        check(&[0], 0..1, &[(1, true)]);
    }
}
