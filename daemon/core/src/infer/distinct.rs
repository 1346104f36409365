//! Counts the distinct values of a path, with a bounded memory.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A set of at most so many values is listed.
const LISTED_MAX: usize = 12;
/// More distinct values than this are not counted.
const COUNTED_MAX: usize = 1_000;
/// A value that is longer, in bytes, is not one of a small set.
const VALUE_BYTES_MAX: usize = 120;
/// From this share of distinct values on, a path may identify its event.
const MOSTLY: f64 = 0.95;

/// The values of a path, each as it is written in JSON.
pub(super) struct Distinct {
    values: u64,
    /// The values with their counts, while there are few.
    small: Option<BTreeMap<String, u64>>,
    hashes: HashSet<u64>,
    /// How many values there were when the last hash was added that there is room for.
    full_at: Option<u64>,
}

impl Default for Distinct {
    fn default() -> Self {
        Self { values: 0, small: Some(BTreeMap::new()), hashes: HashSet::new(), full_at: None }
    }
}

impl Distinct {
    pub(super) fn add(&mut self, value: &str) {
        self.values += 1;
        if let Some(small) = &mut self.small {
            let has_room = small.len() < LISTED_MAX && value.len() <= VALUE_BYTES_MAX;
            match small.get_mut(value) {
                Some(count) => *count += 1,
                None if has_room => drop(small.insert(value.to_owned(), 1)),
                None => self.small = None,
            }
        }
        if self.full_at.is_none() {
            let mut hasher = DefaultHasher::new();
            value.hash(&mut hasher);
            self.hashes.insert(hasher.finish());
            self.full_at = (self.hashes.len() == COUNTED_MAX).then_some(self.values);
        }
    }

    /// How many there are; at least so many, if [`is_full`](Self::is_full).
    pub(super) fn count(&self) -> u64 {
        self.hashes.len() as u64
    }

    pub(super) fn is_full(&self) -> bool {
        self.full_at.is_some()
    }

    /// Whether hardly a value is there twice.
    pub(super) fn is_mostly_distinct(&self) -> bool {
        let of = self.full_at.unwrap_or(self.values);
        of > 0 && self.hashes.len() as f64 >= MOSTLY * of as f64
    }

    /// The values with their counts, the most frequent first, if they are few and not almost all different.
    pub(super) fn listed(&self) -> Option<Vec<(&str, u64)>> {
        let small = self.small.as_ref()?;
        let mut listed: Vec<_> = small.iter().map(|(value, count)| (value.as_str(), *count)).collect();
        listed.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        (!listed.is_empty()).then_some(listed)
    }
}
