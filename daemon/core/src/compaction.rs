//! Which small files of a day to compact, and when: in tiers, so that each row is rewritten only a few times.
//!
//! The *depth* of a file is the number of compactions of [`FAN_IN`] files between it and a full file, which has at
//! least half of the target size:
//!
//! | size, with a target of 128 MiB | depth | compacted                                                       |
//! |--------------------------------|-------|-----------------------------------------------------------------|
//! | 64 MiB and more                | 0     | never again                                                     |
//! | 8 MiB …                        | 1     | 8 or more files of a depth become one file of a lower depth,    |
//! | 1 MiB …                        | 2     | the oldest first, and never more than the target size           |
//! | 128 KiB …                      | 3     |                                                                 |
//! | 16 KiB …                       | 4     |                                                                 |
//! | less                           | 5     |                                                                 |
//!
//! So a day has at most about five times seven small files in addition to the full ones, and a row is rewritten at most
//! five times. Once a day is complete, its remaining small files are compacted too, except a file that is much larger
//! than all smaller ones together: a late event must not cause the rewrite of a large file.

/// This many files of one depth are worth a compaction.
pub const FAN_IN: usize = 8;
const DEPTH_MAX: u32 = 5;
/// The most input files of one compaction.
const INPUTS_MAX: usize = 512;
/// A file of a complete day is left alone if it is more than this many times larger than all smaller ones together.
const TAIL_RATIO: u64 = 4;

/// The files to compact next, as indexes into `sizes`; empty if nothing is to be done. `sizes` has the files of one
/// day, the oldest first. `is_complete` says that the day most likely gets no more events.
pub fn next_compaction(sizes: &[u64], target: u64, is_complete: bool) -> Vec<usize> {
    for wanted in (1..=DEPTH_MAX).rev() {
        let candidates: Vec<usize> = (0..sizes.len()).filter(|at| depth(sizes[*at], target) == wanted).collect();
        if candidates.len() >= FAN_IN {
            return that_fit(&candidates, sizes, target);
        }
    }
    if is_complete { remaining(sizes, target) } else { Vec::new() }
}

fn depth(size: u64, target: u64) -> u32 {
    let full = (target / 2).max(1);
    (0..DEPTH_MAX).find(|depth| size.saturating_mul(1 << (3 * depth)) >= full).unwrap_or(DEPTH_MAX)
}

/// As many of the files as fit into one, from the first on. Two always fit: none of them has half of the target.
fn that_fit(files: &[usize], sizes: &[u64], target: u64) -> Vec<usize> {
    let mut room = target;
    let fits = files.iter().take(INPUTS_MAX).take_while(|at| {
        let rest = room.checked_sub(sizes[**at]);
        room = rest.unwrap_or(0);
        rest.is_some()
    });
    fits.copied().collect()
}

/// The small files that are left at the end of a day.
fn remaining(sizes: &[u64], target: u64) -> Vec<usize> {
    let mut small: Vec<usize> = (0..sizes.len()).filter(|at| depth(sizes[*at], target) > 0).collect();
    small.sort_by_key(|at| (sizes[*at], *at));
    let (mut sum, mut count) = (0, 0);
    for (at, file) in small.iter().enumerate() {
        if at > 0 && sizes[*file] <= sum * TAIL_RATIO {
            count = at + 1;
        }
        sum += sizes[*file];
    }
    small.truncate(count);
    small.sort_unstable();
    let inputs = that_fit(&small, sizes, target);
    if inputs.len() < 2 { Vec::new() } else { inputs }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: u64 = 128 << 20;
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    #[test]
    fn depth_follows_the_table() {
        let sizes = [64 * MIB, 64 * MIB - 1, 8 * MIB, MIB, 128 * KIB, 16 * KIB, 16 * KIB - 1, 0];
        assert_eq!(sizes.map(|size| depth(size, TARGET)), [0, 1, 1, 2, 3, 4, 5, 5]);
        assert_eq!(depth(u64::MAX, TARGET), 0);
    }

    #[track_caller]
    fn check(sizes: &[u64], is_complete: bool, inputs: &[usize]) {
        assert_eq!(next_compaction(sizes, TARGET, is_complete), inputs, "{sizes:?}");
    }

    #[test]
    fn files_of_one_depth_are_compacted_oldest_first() {
        check(&[], true, &[]);
        check(&[KIB; 7], false, &[]);
        check(&[KIB; 8], false, &[0, 1, 2, 3, 4, 5, 6, 7]);
        // The smallest first; files of other depths stay.
        check(&[&[MIB; 8][..], &[KIB; 8]].concat(), false, &[8, 9, 10, 11, 12, 13, 14, 15]);
        check(&[&[100 * MIB][..], &[KIB; 8]].concat(), false, &[1, 2, 3, 4, 5, 6, 7, 8]);
        // No file larger than the target.
        check(&[50 * MIB; 8], false, &[0, 1]);
        check(&[64 * MIB; 20], true, &[]);
    }

    #[test]
    fn the_rest_of_a_complete_day_is_compacted() {
        check(&[5 * MIB, KIB], false, &[]);
        check(&[MIB, MIB, 5 * MIB], true, &[0, 1, 2]);
        // A late event does not cause the rewrite of a large file.
        check(&[60 * MIB, KIB], true, &[]);
        check(&[60 * MIB, KIB, KIB], true, &[1, 2]);
        check(&[60 * MIB, KIB, KIB, 10 * MIB], true, &[1, 2]);
        check(&[40 * MIB, 40 * MIB, 40 * MIB, 40 * MIB], true, &[0, 1, 2]);
        check(&[KIB], true, &[]);
    }

    const SECONDS: u64 = 20_000;

    /// Simulates hours of commits of about this size, one per second, and a compaction every ten seconds. Returns the
    /// most small files at a time, the files at the end, and how often a byte was rewritten.
    fn hours(commit: u64) -> (usize, usize, f64) {
        let (mut files, mut most, mut bytes_compacted) = (Vec::<u64>::new(), 0, 0);
        let mut compact = |files: &mut Vec<u64>, is_complete: bool| {
            loop {
                let inputs = next_compaction(files, TARGET, is_complete);
                if inputs.is_empty() {
                    return;
                }
                assert!(inputs.len() >= 2 && inputs.is_sorted());
                let sum: u64 = inputs.iter().map(|at| files[*at]).sum();
                assert!(sum <= TARGET);
                bytes_compacted += sum;
                let mut at = 0..;
                files.retain(|_| inputs.binary_search(&at.next().unwrap_or(0)).is_err());
                files.insert(inputs[0], sum);
            }
        };
        for second in 0..SECONDS {
            files.push(commit - commit / 4 + (second * 7_919 % (commit / 2).max(1)));
            most = most.max(files.len() - files.iter().filter(|size| depth(**size, TARGET) == 0).count());
            if second % 10 == 9 {
                compact(&mut files, false);
            }
        }
        compact(&mut files, true);
        (most, files.len(), bytes_compacted as f64 / (SECONDS * commit) as f64)
    }

    #[test]
    fn a_day_of_commits_has_few_files_and_few_rewrites() {
        for commit in [2 * KIB, 20 * KIB, 300 * KIB, 4 * MIB] {
            let (most, left, rewrites) = hours(commit);
            let full = (SECONDS * commit / TARGET) as usize;
            assert!(most <= 5 * FAN_IN + 10, "{commit}: {most} small files");
            assert!(left <= 2 * full + 6, "{commit}: {left} files are left, {full} full ones are expected");
            assert!(rewrites <= 5.0, "{commit}: every byte was rewritten {rewrites} times");
        }
    }
}
