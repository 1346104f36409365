//! The window in which duplicates are told: the keys of the rows that a table has, by their event time.
//!
//! A row is a duplicate if the table has a row of the same key whose event time is at most `within` away. The table is
//! all that counts: what is in memory here is a copy of parts of it, cut into *spans* of event time as long as `within`,
//! which are read from the table when an event needs them, and may be let go at any time.
//!
//! | span of event time             | in memory | what an event in reach of it does          |
//! |--------------------------------|-----------|--------------------------------------------|
//! | before or behind all rows      | no        | takes it as empty                          |
//! | has rows, was not read yet     | no        | [`Window::lacks`] it: reads it from the table |
//! | was read, or was empty         | yes       | looks into it                              |
//! | was let go to be read again    | no        | lacks it                                   |
//! | was let go to be forgotten     | no        | takes it as empty                          |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::ops::RangeInclusive;

use crate::config::WhenFull;

/// A keyed 128-bit hash of the columns that name an event. Nobody outside can make two of them meet.
pub type Key = u128;

/// The number of a span: event time divided by its length.
type SpanId = i64;

/// The keys of a table's rows, as far as they are in memory.
pub struct Window {
    /// Microseconds.
    within: i64,
    memory_bytes_max: usize,
    when_full: WhenFull,
    spans: BTreeMap<SpanId, Span>,
    forgotten: BTreeSet<SpanId>,
    /// The oldest and newest event time in the table.
    reach: Option<(i64, i64)>,
    /// Counts the chunks, to tell which spans were of use last.
    turn: u64,
}

/// So many spans without a row are remembered as empty at once; more are read, which finds nothing.
const STEPPED_OVER_MAX: i64 = 16;

#[derive(Default)]
struct Span {
    keys: HashMap<Key, Times, BuildHasherDefault<KeyHasher>>,
    used: u64,
}

/// The event times of the rows of one key within one span: one, almost always.
enum Times {
    One(i64),
    More(Box<[i64]>),
}

impl Window {
    /// The window of a table whose rows lie in `reach`, event time in microseconds; `None` for an empty table.
    pub fn new(within_ms: u64, memory_bytes_max: usize, when_full: WhenFull, reach: Option<(i64, i64)>) -> Self {
        let within = i64::try_from(within_ms).unwrap_or(i64::MAX / 4000).saturating_mul(1000).max(1);
        Self { within, memory_bytes_max, when_full, spans: BTreeMap::new(), forgotten: BTreeSet::new(), reach, turn: 0 }
    }

    /// The ranges of event time that must be read from the table before events of these `times` can be judged.
    pub fn lacks(&self, times: impl IntoIterator<Item = i64>) -> Vec<RangeInclusive<i64>> {
        let Some((oldest, newest)) = self.reach else { return Vec::new() };
        let (oldest, newest) = (self.span_of(oldest), self.span_of(newest));
        let wanted: BTreeSet<SpanId> = times.into_iter().map(|time| self.span_of(time)).collect();
        let wanted: BTreeSet<SpanId> = wanted.iter().flat_map(|span| span - 1..=span + 1).collect();
        let lacking = wanted.into_iter().filter(|span| {
            (oldest..=newest).contains(span) && !self.spans.contains_key(span) && !self.forgotten.contains(span)
        });
        let mut ranges: Vec<RangeInclusive<SpanId>> = Vec::new();
        for span in lacking {
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == span => *last = *last.start()..=span,
                _ => ranges.push(span..=span),
            }
        }
        ranges.into_iter().map(|spans| self.start_of(*spans.start())..=self.end_of(*spans.end())).collect()
    }

    /// Takes in what the table has of a range that was lacking.
    pub fn fill(&mut self, range: &RangeInclusive<i64>, rows: impl IntoIterator<Item = (Key, i64)>) {
        for span in self.span_of(*range.start())..=self.span_of(*range.end()) {
            self.spans.entry(span).or_default().used = self.turn;
        }
        for (key, time) in rows.into_iter().filter(|(_, time)| range.contains(time)) {
            self.put(key, time);
        }
    }

    /// True if the table has a row of this key in reach of this event time.
    pub fn has(&mut self, key: Key, time: i64) -> bool {
        let span = self.span_of(time);
        let (within, turn) = (self.within, self.turn);
        let near = |times: &Times| times.iter().any(|other| other.abs_diff(time) <= within.unsigned_abs());
        // Most often the span itself is the answer; its neighbours are looked into where it is not.
        [span, span - 1, span + 1].into_iter().any(|span| {
            self.spans.get_mut(&span).is_some_and(|span| {
                span.used = turn;
                span.keys.get(&key).is_some_and(near)
            })
        })
    }

    /// A row that the table gets.
    pub fn put(&mut self, key: Key, time: i64) {
        self.extend(time);
        let (span, turn) = (self.span_of(time), self.turn);
        let span = self.spans.entry(span).or_default();
        span.used = turn;
        match span.keys.entry(key) {
            std::collections::hash_map::Entry::Vacant(entry) => drop(entry.insert(Times::One(time))),
            std::collections::hash_map::Entry::Occupied(mut entry) => entry.get_mut().push(time),
        }
    }

    /// Widens the reach to a time. Spans that are stepped over on the way are empty, and need not be read to know it.
    fn extend(&mut self, time: i64) {
        let (oldest, newest) = self.reach.unwrap_or((time, time));
        self.reach = Some((oldest.min(time), newest.max(time)));
        let empty = if time > newest {
            self.span_of(newest) + 1..self.span_of(time)
        } else {
            self.span_of(time) + 1..self.span_of(oldest)
        };
        if empty.end.saturating_sub(empty.start) <= STEPPED_OVER_MAX {
            for span in empty {
                self.spans.entry(span).or_default().used = self.turn;
            }
        }
    }

    /// Ends a chunk's turn: lets go of spans that were of no use lately, until the rest fits the memory. Tells how many.
    pub fn shed(&mut self) -> usize {
        let (mut bytes, mut shed) = (self.memory_bytes(), 0);
        while bytes > self.memory_bytes_max && self.spans.len() > 1 {
            let Some((id, _)) = self.spans.iter().min_by_key(|(id, span)| (span.used, **id)).map(|(id, s)| (*id, s))
            else {
                break;
            };
            if let Some(span) = self.spans.remove(&id) {
                bytes -= span.memory_bytes();
                shed += 1;
            }
            if self.when_full == WhenFull::Forget {
                self.forgotten.insert(id);
            }
        }
        self.turn += 1;
        shed
    }

    /// Lets go of nothing from now on.
    pub fn keep_all(&mut self) {
        self.memory_bytes_max = usize::MAX;
    }

    /// True where spans that were let go are read again.
    pub fn reloads(&self) -> bool {
        self.when_full == WhenFull::Reload
    }

    pub fn keys(&self) -> usize {
        self.spans.values().map(|span| span.keys.len()).sum()
    }

    /// What the spans hold, with the room that their tables keep.
    pub fn memory_bytes(&self) -> usize {
        self.spans.values().map(Span::memory_bytes).sum()
    }

    fn span_of(&self, time: i64) -> SpanId {
        time.div_euclid(self.within)
    }

    fn start_of(&self, span: SpanId) -> i64 {
        span.saturating_mul(self.within)
    }

    fn end_of(&self, span: SpanId) -> i64 {
        self.start_of(span).saturating_add(self.within - 1)
    }
}

impl Span {
    fn memory_bytes(&self) -> usize {
        // A table of std keeps a byte beside each entry, and an eighth free.
        let entry = size_of::<(Key, Times)>() + 1;
        self.keys.capacity() * 8 / 7 * entry + size_of::<Self>()
    }
}

impl Times {
    fn iter(&self) -> impl Iterator<Item = i64> {
        match self {
            Times::One(time) => std::slice::from_ref(time).iter().copied(),
            Times::More(times) => times.iter().copied(),
        }
    }

    fn push(&mut self, time: i64) {
        match self {
            Times::One(first) => *self = Times::More([*first, time].into()),
            Times::More(times) => *times = times.iter().copied().chain([time]).collect(),
        }
    }
}

/// A key is a hash already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// Makes keys. The same bytes give the same key for as long as this lives, and nobody outside knows which.
pub struct Keys([std::hash::RandomState; 2]);

impl Default for Keys {
    fn default() -> Self {
        Self([std::hash::RandomState::new(), std::hash::RandomState::new()])
    }
}

impl Keys {
    pub fn of(&self, bytes: &[u8]) -> Key {
        let [high, low] = &self.0;
        (u128::from(high.hash_one(bytes)) << 64) | u128::from(low.hash_one(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn window(when_full: WhenFull) -> Window {
        Window::new(10_000, 1 << 20, when_full, None)
    }

    #[test]
    fn a_duplicate_is_within_reach_of_a_row_before_or_behind_it() {
        let mut window = window(WhenFull::Reload);
        window.put(1, 100 * SECOND);
        for (time, expected) in [(90, true), (89, false), (100, true), (110, true), (111, false)] {
            assert_eq!(window.has(1, time * SECOND), expected, "{time}");
            assert!(!window.has(2, time * SECOND));
        }
        window.put(1, 80 * SECOND);
        window.put(1, 112 * SECOND);
        assert!(window.has(1, 70 * SECOND) && window.has(1, 122 * SECOND) && !window.has(1, 123 * SECOND));
    }

    #[test]
    fn what_is_outside_of_the_table_is_not_read() {
        let mut window = Window::new(10_000, 1 << 20, WhenFull::Reload, Some((100 * SECOND, 149 * SECOND)));
        assert_eq!(window.lacks([50 * SECOND, 170 * SECOND]), []);
        assert_eq!(window.lacks([89 * SECOND]), []);
        assert_eq!(window.lacks([99 * SECOND]), [100 * SECOND..=110 * SECOND - 1]);
        let range = 100 * SECOND..=130 * SECOND - 1;
        assert_eq!(window.lacks([111 * SECOND, 119 * SECOND]), std::slice::from_ref(&range));
        window.fill(&range, [(7, 129 * SECOND), (7, 131 * SECOND)]);
        assert_eq!(window.lacks([111 * SECOND]), []);
        assert!(window.has(7, 120 * SECOND));
        // A row outside of the range was not asked for: its span must be read as a whole.
        assert_eq!(window.lacks([125 * SECOND]), [130 * SECOND..=140 * SECOND - 1]);
    }

    #[test]
    fn what_is_let_go_is_read_again_or_forgotten() {
        for when_full in [WhenFull::Reload, WhenFull::Forget] {
            let mut window = Window::new(10_000, 40_000, when_full, None);
            (0..600).for_each(|key| window.put(key, 5 * SECOND));
            window.shed();
            (0..600).for_each(|key| window.put(key, 15 * SECOND));
            assert_eq!(window.shed(), 1);
            assert!(window.memory_bytes() <= 40_000 && !window.has(3, 4 * SECOND) && window.has(3, 24 * SECOND));
            let lacking = window.lacks([5 * SECOND]);
            assert_eq!(lacking.len(), usize::from(when_full == WhenFull::Reload));
        }
    }

    #[test]
    fn a_key_takes_some_64_bytes() {
        let mut window = window(WhenFull::Reload);
        (0..100_000).for_each(|key| window.put(key, SECOND));
        let each = window.memory_bytes() / 100_000;
        assert!((33..=80).contains(&each), "{each}");
    }

    proptest! {
        /// Whatever memory there is, an exact window says the same as a look through all rows of the table.
        #[test]
        fn it_says_what_the_table_says(
            events in prop::collection::vec((0u128..12, 0i64..400), 1..300),
            chunk in 1usize..20,
            memory in 1usize..4_000,
        ) {
            let mut table: Vec<(Key, i64)> = Vec::new();
            let mut window = Window::new(10_000, memory, WhenFull::Reload, None);
            for events in events.chunks(chunk) {
                for range in window.lacks(events.iter().map(|(_, time)| time * SECOND)) {
                    window.fill(&range, table.clone());
                }
                for (key, time) in events.iter().map(|(key, time)| (*key, time * SECOND)) {
                    let expected = table.iter().any(|(k, t)| *k == key && t.abs_diff(time) <= 10 * SECOND as u64);
                    prop_assert_eq!(window.has(key, time), expected);
                    if !expected {
                        table.push((key, time));
                        window.put(key, time);
                    }
                }
                window.shed();
                prop_assert!(window.memory_bytes() <= memory || window.spans.len() == 1);
            }
        }
    }
}
