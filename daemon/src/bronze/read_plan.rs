//! Which files to read next, and for which offsets. Files come in the order of their modification times, which is that of
//! their offsets unless the clock was set back; then they are ordered by their offsets.

use std::collections::HashMap;

use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use super::file_part::{FilePart, overlaps_any};
use super::read_window::half_of;

pub(super) struct ReadPlan {
    /// The offsets that are still to be read, of one cluster.
    missing: Ranges,
    files: Vec<FilePart>,
    rows_max: u64,
    bytes_max: u64,
}

impl ReadPlan {
    pub(super) fn new(missing: Ranges, mut files: Vec<FilePart>, rows_max: usize, bytes_max: usize) -> Self {
        files.retain(|file| overlaps_any(&file.offsets, &missing));
        if !is_in_order(&files) {
            files.sort_by(|a, b| place_of(a, &missing).total_cmp(&place_of(b, &missing)));
        }
        Self { missing, files, rows_max: rows_max as u64, bytes_max: bytes_max as u64 }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.missing.is_empty()
    }

    pub(super) fn file(&self, at: usize) -> &FilePart {
        &self.files[at]
    }

    /// How many files to read next, and the ranges to read: those that these files hold completely, or the beginning of
    /// them.
    pub(super) fn window(&self) -> (usize, Ranges) {
        let (mut count, mut rows) = (0, 0);
        while count < self.files.len() && (count == 0 || rows + self.files[count].rows <= self.rows_max) {
            rows += self.files[count].rows;
            count += 1;
        }
        count = count.max(self.first_complete(&self.missing)).min(self.files.len());
        let mut window = self.complete(count, &self.missing);
        // Files with parts of the same offsets hold little completely until most of them are read.
        let is_small = |(rows, bytes)| rows < self.rows_max / 2 && bytes < self.bytes_max / 2;
        while count < self.files.len() && is_small(self.estimate(count, &window)) {
            count = (count * 2).clamp(1, self.files.len());
            window = self.complete(count, &self.missing);
        }
        (count, self.fitting(count, window))
    }

    /// About the rows and bytes that the first `count` files have in a window.
    fn estimate(&self, count: usize, window: &Ranges) -> (u64, u64) {
        let parts = self.files[..count].iter().map(|file| file.estimate(window));
        parts.fold((0, 0), |(rows, bytes), (more_rows, more_bytes)| (rows + more_rows, bytes + more_bytes))
    }

    /// The fewest files that hold some offsets of one of these log partitions completely: no later file has the first
    /// missing offset of it.
    pub(super) fn first_complete(&self, logs: &Ranges) -> usize {
        let mut last = HashMap::<&LogPartition, usize>::new();
        let starts: Vec<_> = self
            .missing
            .iter()
            .filter(|(log, _)| logs.get(log).is_some())
            .map(|(log, range)| (log, range.start))
            .collect();
        for (at, file) in self.files.iter().enumerate() {
            for (log, start) in &starts {
                if file.offsets.get(log).is_some_and(|held| held.contains(*start)) {
                    last.insert(log, at + 1);
                }
            }
        }
        starts.iter().map(|(log, _)| last.get(log).copied().unwrap_or(0)).min().unwrap_or(0)
    }

    /// The part of some ranges that the first `count` files hold completely: a range ends where a file begins that is
    /// not read.
    pub(super) fn complete(&self, count: usize, ranges: &Ranges) -> Ranges {
        let end_of = |log: &LogPartition, range: OffsetRange| {
            let later = self.files[count..].iter().filter_map(|file| file.offsets.get(log));
            let bound = later.filter(|held| held.end > range.start).map(|held| held.start.max(range.start)).min();
            range.end.min(bound.unwrap_or(i64::MAX))
        };
        let ends = ranges.iter().map(|(log, range)| (log, range.start, end_of(log, range)));
        ends.filter(|(_, start, end)| start < end)
            .map(|(log, start, end)| (log.clone(), OffsetRange::new(start, end)))
            .collect()
    }

    /// A window in which the first `count` files have not more than a chunk should have, or the beginning of it: files may
    /// be larger than that, and many of them may have parts of the same offsets.
    fn fitting(&self, count: usize, mut window: Ranges) -> Ranges {
        let is_large = |(rows, bytes)| rows > 2 * self.rows_max || bytes > 2 * self.bytes_max;
        while is_large(self.estimate(count, &window))
            && let Some(half) = half_of(&window)
        {
            window = half;
        }
        window
    }

    /// The ranges were read, which begin where the missing ones do.
    pub(super) fn finish(&mut self, read: &Ranges) {
        let rest = |(log, range): (&LogPartition, OffsetRange)| {
            let start = read.get(log).map_or(range.start, |read| read.end);
            (start < range.end).then(|| (log.clone(), OffsetRange::new(start, range.end)))
        };
        self.missing = self.missing.iter().filter_map(rest).collect();
        self.files.retain(|file| overlaps_any(&file.offsets, &self.missing));
    }
}

/// Whether no file begins before an earlier one, in any log partition.
fn is_in_order(files: &[FilePart]) -> bool {
    let mut last = HashMap::<&LogPartition, i64>::new();
    let mut offsets = files.iter().flat_map(|file| &file.offsets);
    offsets.all(|(log, range)| last.insert(log, range.start).is_none_or(|before| before <= range.start))
}

/// Where a file begins within the missing offsets, from 0 to 1: the mean of its log partitions.
fn place_of(file: &FilePart, missing: &Ranges) -> f64 {
    let places: Vec<f64> = missing
        .iter()
        .filter_map(|(log, range)| {
            let begin = file.offsets.get(log)?.start.clamp(range.start, range.end);
            Some((begin - range.start) as f64 / range.len().max(1) as f64)
        })
        .collect();
    places.iter().sum::<f64>() / places.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use object_store::path::Path;
    use proptest::prelude::*;

    use super::*;
    use crate::delta::FileToRead;

    fn log(partition: i32) -> LogPartition {
        LogPartition::new("c", "t", partition)
    }

    /// The rows of a file, as partitions and offsets.
    type Rows = Vec<(i32, i64)>;

    fn part(rows: &Rows, bytes_per_row: u64) -> FilePart {
        let mut offsets = BTreeMap::<LogPartition, OffsetRange>::new();
        for (partition, offset) in rows {
            let range = offsets.entry(log(*partition)).or_insert(OffsetRange::new(*offset, offset + 1));
            *range = OffsetRange::new(range.start.min(*offset), range.end.max(offset + 1));
        }
        let (path, rows) = (Path::from("a.parquet"), rows.len() as u64);
        let file = FileToRead { path, size: 1, deleted: None };
        FilePart { file, group: None, rows, bytes: rows * bytes_per_row, offsets }
    }

    struct Simulation {
        windows: usize,
        /// Files that were read; one that is read twice counts twice.
        reads: usize,
        rows_largest: usize,
    }

    /// Reads all rows of some files, as replay does. Each row must come once, in the order of its partition.
    fn simulate(files: &[Rows], rows_max: usize, bytes_per_row: u64) -> Simulation {
        let mut ends = BTreeMap::<i32, i64>::new();
        for (partition, offset) in files.iter().flatten() {
            let end = ends.entry(*partition).or_default();
            *end = (*end).max(offset + 1);
        }
        let missing: Ranges =
            ends.iter().map(|(partition, end)| (log(*partition), OffsetRange::new(0, *end))).collect();
        let parts = files.iter().map(|rows| part(rows, bytes_per_row)).collect();
        let mut plan = ReadPlan::new(missing, parts, rows_max, rows_max * 100);
        // The plan may order the files in another way.
        let rows_of: BTreeMap<Vec<(LogPartition, i64, i64)>, Vec<&Rows>> =
            files.iter().fold(BTreeMap::new(), |mut rows_of, rows| {
                rows_of.entry(key(&part(rows, 1))).or_default().push(rows);
                rows_of
            });
        let mut done = Simulation { windows: 0, reads: 0, rows_largest: 0 };
        let mut seen = BTreeSet::new();
        while !plan.is_finished() {
            let (count, window) = plan.window();
            assert!(!window.is_empty(), "a window without offsets");
            let mut rows = BTreeSet::new();
            for at in 0..count {
                let file = plan.file(at);
                if !overlaps_any(&file.offsets, &window) {
                    continue;
                }
                done.reads += 1;
                let in_window = |(partition, offset): &&(i32, i64)| {
                    window.get(&log(*partition)).is_some_and(|r| r.contains(*offset))
                };
                rows.extend(rows_of[&key(file)].iter().flat_map(|rows| rows.iter()).filter(in_window).copied());
            }
            done.windows += 1;
            done.rows_largest = done.rows_largest.max(rows.len());
            for row in rows {
                assert!(seen.insert(row), "{row:?} was read twice");
            }
            plan.finish(&window);
        }
        assert_eq!(seen.len(), files.iter().flatten().collect::<BTreeSet<_>>().len(), "a row was not read");
        done
    }

    fn key(file: &FilePart) -> Vec<(LogPartition, i64, i64)> {
        file.offsets.iter().map(|(log, range)| (log.clone(), range.start, range.end)).collect()
    }

    /// Files of fifty rows each, of two partitions, as commits write them.
    fn commits(count: i64) -> Vec<Rows> {
        (0..count).map(|at| (0..25).flat_map(|row| [(0, at * 25 + row), (1, at * 25 + row)]).collect()).collect()
    }

    /// However the clock was set back and forth, a file is read about once. In the order of the modification times alone,
    /// each window would have to read all files that seem older.
    #[test]
    fn a_clock_that_is_set_back_and_forth_costs_little() {
        let files = commits(400);
        let regular = simulate(&files, 500, 1);
        assert_eq!((regular.reads, regular.windows), (400, 40));
        let reversed: Vec<_> = files.iter().rev().cloned().collect();
        let set_back: Vec<_> = files[200..].iter().chain(&files[..200]).cloned().collect();
        let swinging: Vec<_> = (0..400).map(|at| files[(at * 163) % 400].clone()).collect();
        for (name, files) in [("reversed", reversed), ("set back", set_back), ("swinging", swinging)] {
            let done = simulate(&files, 500, 1);
            assert!(done.reads <= 2 * regular.reads, "{name}: {} reads", done.reads);
            assert!(done.windows <= 2 * regular.windows, "{name}: {} windows", done.windows);
        }
    }

    /// A compacted file has forty events of 20 MiB, and a chunk may have 20 MiB: all sizes are a thousand times smaller.
    #[test]
    fn large_events_take_a_window_each() {
        let files = vec![(0..40).map(|offset| (0, offset)).collect::<Rows>()];
        let done = simulate(&files, 200, 20_000);
        assert!(done.rows_largest <= 2, "{} rows", done.rows_largest);
    }

    /// The files of many days have parts of the same offsets: a window is a part of all of them, and not all their rows.
    #[test]
    fn files_of_many_days_are_read_in_windows() {
        const DAYS: i64 = 60;
        let day = |day: i64| (0..100).map(|at| (0, at * DAYS + day)).collect::<Rows>();
        let files: Vec<_> = (0..DAYS).map(day).collect();
        let done = simulate(&files, 500, 1);
        assert!(done.rows_largest <= 1_000, "{} rows", done.rows_largest);
        assert!(done.windows <= 24, "{} windows", done.windows);
    }

    proptest! {
        #[test]
        fn every_row_is_read_once(
            rows in prop::collection::vec((0i32..3, 0usize..12), 1..200),
            order in any::<prop::sample::Index>(),
            rows_max in 1usize..60,
            bytes_per_row in 1u64..300,
        ) {
            // The rows get the next offsets of their partitions, and go to any file.
            let (mut next, mut files) = ([0i64; 3], vec![Rows::new(); 12]);
            for (partition, file) in rows {
                files[file].push((partition, next[partition as usize]));
                next[partition as usize] += 1;
            }
            files.retain(|rows| !rows.is_empty());
            let at = order.index(files.len());
            files.rotate_left(at);
            simulate(&files, rows_max, bytes_per_row);
        }
    }
}
