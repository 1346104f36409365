//! Which small files of a day are merged, and when: in tiers, so that a row is written anew a few times and no more.
//!
//! A file's *depth* says how many merges of [`FAN_IN`] files lie between it and a full one, which has half of the target
//! size at least:
//!
//! | size, with a target of 128 MiB | depth | merged                                                       |
//! |--------------------------------|-------|--------------------------------------------------------------|
//! | 64 MiB and more                | 0     | never again                                                  |
//! | 8 MiB …                        | 1     | 8 or more of a depth make one file of a lower depth, the     |
//! | 1 MiB …                        | 2     | oldest first, and never one of more than the target size     |
//! | 128 KiB …                      | 3     |                                                              |
//! | 16 KiB …                       | 4     |                                                              |
//! | less                           | 5     |                                                              |
//!
//! So a day has some five times seven small files at most, beside the full ones, and a row is written again five times at
//! most. Once a day is over its tail is merged, too, but for files that are far larger than all smaller ones together: a
//! late event costs no large file.

/// So many files of a depth make a merge worth its while.
pub const FAN_IN: usize = 8;
const DEPTH_MAX: u32 = 5;
/// Files of one merge.
const INPUTS_MAX: usize = 512;
/// A file of a day that is over stays as it is if it is so many times larger than all smaller ones together.
const TAIL_RATIO: u64 = 4;

/// How far a file is from a full one.
fn depth(size: u64, target: u64) -> u32 {
    let full = (target / 2).max(1);
    (0..DEPTH_MAX).find(|depth| size.saturating_mul(1 << (3 * depth)) >= full).unwrap_or(DEPTH_MAX)
}

/// The files to merge next, by their places in `sizes`, which are those of one day's files, the oldest first; none if it
/// is well as it is. `over` says that the day's events have come, most likely.
pub fn next_merge(sizes: &[u64], target: u64, over: bool) -> Vec<usize> {
    for of in (1..=DEPTH_MAX).rev() {
        let same: Vec<usize> = (0..sizes.len()).filter(|at| depth(sizes[*at], target) == of).collect();
        if same.len() >= FAN_IN {
            return up_to(&same, sizes, target);
        }
    }
    if over { tail(sizes, target) } else { Vec::new() }
}

/// As many of the files, from the first on, as one file can hold. Two always fit: none of them has half of the target.
fn up_to(files: &[usize], sizes: &[u64], target: u64) -> Vec<usize> {
    let mut left = target;
    let fits = files.iter().take(INPUTS_MAX).take_while(|at| {
        let rest = left.checked_sub(sizes[**at]);
        left = rest.unwrap_or(0);
        rest.is_some()
    });
    fits.copied().collect()
}

/// What is left small at the end of a day.
fn tail(sizes: &[u64], target: u64) -> Vec<usize> {
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
    let merged = up_to(&small, sizes, target);
    if merged.len() < 2 { Vec::new() } else { merged }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: u64 = 128 << 20;
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    #[test]
    fn depths_are_those_of_the_table() {
        let sizes = [64 * MIB, 64 * MIB - 1, 8 * MIB, MIB, 128 * KIB, 16 * KIB, 16 * KIB - 1, 0];
        assert_eq!(sizes.map(|size| depth(size, TARGET)), [0, 1, 1, 2, 3, 4, 5, 5]);
        assert_eq!(depth(u64::MAX, TARGET), 0);
    }

    #[track_caller]
    fn check(sizes: &[u64], over: bool, merged: &[usize]) {
        assert_eq!(next_merge(sizes, TARGET, over), merged, "{sizes:?}");
    }

    #[test]
    fn files_of_a_depth_are_merged_the_oldest_first() {
        check(&[], true, &[]);
        check(&[KIB; 7], false, &[]);
        check(&[KIB; 8], false, &[0, 1, 2, 3, 4, 5, 6, 7]);
        // The smallest first, and those of other depths stay.
        check(&[&[MIB; 8][..], &[KIB; 8]].concat(), false, &[8, 9, 10, 11, 12, 13, 14, 15]);
        check(&[&[100 * MIB][..], &[KIB; 8]].concat(), false, &[1, 2, 3, 4, 5, 6, 7, 8]);
        // No file of more than the target.
        check(&[50 * MIB; 8], false, &[0, 1]);
        check(&[64 * MIB; 20], true, &[]);
    }

    #[test]
    fn a_day_that_is_over_has_its_tail_merged() {
        check(&[5 * MIB, KIB], false, &[]);
        check(&[MIB, MIB, 5 * MIB], true, &[0, 1, 2]);
        // A late event costs no large file.
        check(&[60 * MIB, KIB], true, &[]);
        check(&[60 * MIB, KIB, KIB], true, &[1, 2]);
        check(&[60 * MIB, KIB, KIB, 10 * MIB], true, &[1, 2]);
        check(&[40 * MIB, 40 * MIB, 40 * MIB, 40 * MIB], true, &[0, 1, 2]);
        check(&[KIB], true, &[]);
    }

    const SECONDS: u64 = 20_000;

    /// Hours of commits of about this size, one a second, and a look every ten seconds: the most files that it has, those
    /// that are left at the end, and how often a byte was written.
    fn hours(commit: u64) -> (usize, usize, f64) {
        let (mut files, mut most, mut merged_bytes) = (Vec::<u64>::new(), 0, 0);
        let mut merge = |files: &mut Vec<u64>, over: bool| {
            loop {
                let merge = next_merge(files, TARGET, over);
                if merge.is_empty() {
                    return;
                }
                assert!(merge.len() >= 2 && merge.is_sorted());
                let sum: u64 = merge.iter().map(|at| files[*at]).sum();
                assert!(sum <= TARGET);
                merged_bytes += sum;
                let place = merge[0];
                let mut at = 0..;
                files.retain(|_| merge.binary_search(&at.next().unwrap_or(0)).is_err());
                files.insert(place, sum);
            }
        };
        for second in 0..SECONDS {
            files.push(commit - commit / 4 + (second * 7_919 % (commit / 2).max(1)));
            most = most.max(files.len() - files.iter().filter(|size| depth(**size, TARGET) == 0).count());
            if second % 10 == 9 {
                merge(&mut files, false);
            }
        }
        merge(&mut files, true);
        (most, files.len(), merged_bytes as f64 / (SECONDS * commit) as f64)
    }

    #[test]
    fn a_day_of_commits_stays_small_and_is_not_written_again_and_again() {
        for commit in [2 * KIB, 20 * KIB, 300 * KIB, 4 * MIB] {
            let (most, left, written) = hours(commit);
            let full = (SECONDS * commit / TARGET) as usize;
            assert!(most <= 5 * FAN_IN + 10, "{commit}: {most} small files");
            assert!(left <= 2 * full + 6, "{commit}: {left} files are left, {full} would be full");
            assert!(written <= 5.0, "{commit}: every byte was written again {written} times");
        }
    }
}
