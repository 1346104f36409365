//! Deduplication: the keys of a table's rows, by event time.
//!
//! A row is a duplicate if the table has a row with the same key and an event time at most `within` apart. The table
//! alone decides: memory only caches parts of it, in *spans* of event time as long as `within`. A span is read from the
//! table when an event needs it, and can be evicted at any time.
//!
//! | span of event time                 | in memory | for an event whose duplicates could be in it |
//! |------------------------------------|-----------|----------------------------------------------|
//! | before or after all rows           | no        | it counts as empty                           |
//! | has rows, not read yet             | no        | [`Window::missing_ranges`] asks for it       |
//! | was read, or was empty             | yes       | its keys are looked up                       |
//! | evicted, with `WhenFull::Reload`   | no        | [`Window::missing_ranges`] asks for it       |
//! | evicted, with `WhenFull::Forget`   | no        | it counts as empty                           |

mod key_table;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::RangeInclusive;

use crate::config::WhenFull;
use key_table::KeyTable;

/// A keyed 128-bit hash of the columns that identify an event. Without the key nobody can construct a collision.
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
    extent: Option<(i64, i64)>,
    /// Counts the chunks; spans that were used in the fewest recent chunks are evicted first.
    chunk: u64,
}

/// If an insert skips at most this many spans, they are stored as empty; more are read from the table, which finds
/// nothing.
const SKIPPED_SPANS_MAX: i64 = 16;

struct Span {
    /// The event times are those after the span's start.
    keys: KeyTable,
    last_used: u64,
}

impl Window {
    /// The window of a table whose event times range over `extent`, in microseconds; `None` for an empty table.
    pub fn new(within_ms: u64, memory_bytes_max: usize, when_full: WhenFull, extent: Option<(i64, i64)>) -> Self {
        let within = i64::try_from(within_ms).unwrap_or(i64::MAX / 4000).saturating_mul(1000).max(1);
        let (spans, forgotten) = (BTreeMap::new(), BTreeSet::new());
        Self { within, memory_bytes_max, when_full, spans, forgotten, extent, chunk: 0 }
    }

    /// The ranges of event time that must be read from the table before events with these times can be looked up.
    pub fn missing_ranges(&self, times: impl IntoIterator<Item = i64>) -> Vec<RangeInclusive<i64>> {
        let Some((oldest, newest)) = self.extent else { return Vec::new() };
        let (oldest, newest) = (self.span_of(oldest), self.span_of(newest));
        let wanted: BTreeSet<SpanId> = times.into_iter().map(|time| self.span_of(time)).collect();
        let wanted: BTreeSet<SpanId> = wanted.iter().flat_map(|span| span - 1..=span + 1).collect();
        let missing = wanted.into_iter().filter(|span| {
            (oldest..=newest).contains(span) && !self.spans.contains_key(span) && !self.forgotten.contains(span)
        });
        let mut ranges: Vec<RangeInclusive<SpanId>> = Vec::new();
        for span in missing {
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == span => *last = *last.start()..=span,
                _ => ranges.push(span..=span),
            }
        }
        ranges.into_iter().map(|spans| self.start_of(*spans.start())..=self.end_of(*spans.end())).collect()
    }

    /// Stores what the table has in a range that was missing.
    pub fn load(&mut self, range: &RangeInclusive<i64>, rows: impl IntoIterator<Item = (Key, i64)>) {
        for span in self.span_of(*range.start())..=self.span_of(*range.end()) {
            self.use_span(span);
        }
        for (key, time) in rows.into_iter().filter(|(_, time)| range.contains(time)) {
            self.insert(key, time);
        }
    }

    /// Whether the table has a row with this key and an event time at most `within` apart.
    pub fn contains(&mut self, key: Key, time: i64) -> bool {
        let span = self.span_of(time);
        let (within, chunk) = (self.within, self.chunk);
        // Most duplicates are in the span itself, so it comes before its neighbours.
        [span, span - 1, span + 1].into_iter().any(|id| {
            let start = id.saturating_mul(within);
            self.spans.get_mut(&id).is_some_and(|span| {
                span.last_used = chunk;
                let mut times = span.keys.times(key).map(|after| start.saturating_add_unsigned(after));
                times.any(|other| other.abs_diff(time) <= within.unsigned_abs())
            })
        })
    }

    /// Adds a row that the table gets.
    pub fn insert(&mut self, key: Key, time: i64) {
        self.extend(time);
        let id = self.span_of(time);
        let after = time.abs_diff(self.start_of(id));
        self.use_span(id).keys.insert(key, after);
    }

    /// A span, which is empty if it was not in memory.
    fn use_span(&mut self, id: SpanId) -> &mut Span {
        let within = self.within;
        let span = self.spans.entry(id).or_insert_with(|| Span { keys: KeyTable::new(within), last_used: 0 });
        span.last_used = self.chunk;
        span
    }

    /// Extends the table's extent to a time. The spans in between are empty, and need not be read to know it.
    fn extend(&mut self, time: i64) {
        let (oldest, newest) = self.extent.unwrap_or((time, time));
        self.extent = Some((oldest.min(time), newest.max(time)));
        let empty = if time > newest {
            self.span_of(newest) + 1..self.span_of(time)
        } else {
            self.span_of(time) + 1..self.span_of(oldest)
        };
        if empty.end.saturating_sub(empty.start) <= SKIPPED_SPANS_MAX {
            for span in empty {
                self.use_span(span);
            }
        }
    }

    /// Ends a chunk: evicts the least recently used spans until the rest fits into memory. Returns how many.
    pub fn evict(&mut self) -> usize {
        let (mut bytes, mut evicted) = (self.memory_bytes(), 0);
        while bytes > self.memory_bytes_max && self.spans.len() > 1 {
            let Some((id, _)) =
                self.spans.iter().min_by_key(|(id, span)| (span.last_used, **id)).map(|(id, span)| (*id, span))
            else {
                break;
            };
            if let Some(span) = self.spans.remove(&id) {
                bytes -= span.memory_bytes();
                evicted += 1;
            }
            if self.when_full == WhenFull::Forget {
                self.forgotten.insert(id);
            }
        }
        self.chunk += 1;
        evicted
    }

    /// Evicts nothing from now on.
    pub fn disable_eviction(&mut self) {
        self.memory_bytes_max = usize::MAX;
    }

    /// Whether evicted spans are read from the table again.
    pub fn reloads(&self) -> bool {
        self.when_full == WhenFull::Reload
    }

    pub fn keys(&self) -> usize {
        self.spans.values().map(|span| span.keys.rows()).sum()
    }

    /// Memory of all spans, with the unused capacity of their hash tables.
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
        self.keys.memory_bytes() + size_of::<Self>()
    }
}

/// Computes keys with a random hash key: equal bytes have equal keys for the lifetime of this value only.
pub struct KeyFunction([std::hash::RandomState; 2]);

impl Default for KeyFunction {
    fn default() -> Self {
        Self([std::hash::RandomState::new(), std::hash::RandomState::new()])
    }
}

impl KeyFunction {
    pub fn key(&self, bytes: &[u8]) -> Key {
        let [high, low] = &self.0;
        (u128::from(high.hash_one(bytes)) << 64) | u128::from(low.hash_one(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Keys are hashes.
    fn key(number: u128) -> Key {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn window(when_full: WhenFull) -> Window {
        Window::new(10_000, 1 << 20, when_full, None)
    }

    #[test]
    fn a_duplicate_is_at_most_within_before_or_after_a_row() {
        let mut window = window(WhenFull::Reload);
        window.insert(key(1), 100 * SECOND);
        for (time, expected) in [(90, true), (89, false), (100, true), (110, true), (111, false)] {
            assert_eq!(window.contains(key(1), time * SECOND), expected, "{time}");
            assert!(!window.contains(key(2), time * SECOND));
        }
        window.insert(key(1), 80 * SECOND);
        window.insert(key(1), 112 * SECOND);
        assert!(
            window.contains(key(1), 70 * SECOND)
                && window.contains(key(1), 122 * SECOND)
                && !window.contains(key(1), 123 * SECOND)
        );
    }

    #[test]
    fn spans_outside_of_the_table_are_not_read() {
        let mut window = Window::new(10_000, 1 << 20, WhenFull::Reload, Some((100 * SECOND, 149 * SECOND)));
        assert_eq!(window.missing_ranges([50 * SECOND, 170 * SECOND]), []);
        assert_eq!(window.missing_ranges([89 * SECOND]), []);
        assert_eq!(window.missing_ranges([99 * SECOND]), [100 * SECOND..=110 * SECOND - 1]);
        let range = 100 * SECOND..=130 * SECOND - 1;
        assert_eq!(window.missing_ranges([111 * SECOND, 119 * SECOND]), std::slice::from_ref(&range));
        window.load(&range, [(key(7), 129 * SECOND), (key(7), 131 * SECOND)]);
        assert_eq!(window.missing_ranges([111 * SECOND]), []);
        assert!(window.contains(key(7), 120 * SECOND));
        // The row outside of the range was ignored: its span must be read as a whole.
        assert_eq!(window.missing_ranges([125 * SECOND]), [130 * SECOND..=140 * SECOND - 1]);
    }

    #[test]
    fn evicted_spans_are_read_again_or_forgotten() {
        for when_full in [WhenFull::Reload, WhenFull::Forget] {
            let mut window = Window::new(10_000, 24_000, when_full, None);
            (0..600).for_each(|number| window.insert(key(number), 5 * SECOND));
            window.evict();
            (0..600).for_each(|number| window.insert(key(number), 15 * SECOND));
            assert_eq!(window.evict(), 1);
            assert!(
                window.memory_bytes() <= 24_000
                    && !window.contains(key(3), 4 * SECOND)
                    && window.contains(key(3), 24 * SECOND)
            );
            let missing = window.missing_ranges([5 * SECOND]);
            assert_eq!(missing.len(), usize::from(when_full == WhenFull::Reload));
        }
    }

    #[test]
    fn a_key_takes_at_most_32_bytes() {
        let mut window = window(WhenFull::Reload);
        (0..100_000).for_each(|number| window.insert(key(number), SECOND));
        let each = window.memory_bytes() / 100_000;
        assert!((16..=32).contains(&each), "{each}");
    }

    proptest! {
        /// With any amount of memory, the window agrees with a search through all rows of the table.
        #[test]
        fn the_window_agrees_with_the_table(
            events in prop::collection::vec((0u128..12, 0i64..400), 1..300),
            chunk in 1usize..20,
            memory in 1usize..4_000,
        ) {
            let mut table: Vec<(Key, i64)> = Vec::new();
            let mut window = Window::new(10_000, memory, WhenFull::Reload, None);
            for events in events.chunks(chunk) {
                for range in window.missing_ranges(events.iter().map(|(_, time)| time * SECOND)) {
                    window.load(&range, table.clone());
                }
                for (key, time) in events.iter().map(|(number, time)| (key(*number), time * SECOND)) {
                    let expected = table.iter().any(|(k, t)| *k == key && t.abs_diff(time) <= 10 * SECOND as u64);
                    prop_assert_eq!(window.contains(key, time), expected);
                    if !expected {
                        table.push((key, time));
                        window.insert(key, time);
                    }
                }
                window.evict();
                prop_assert!(window.memory_bytes() <= memory || window.spans.len() == 1);
            }
        }
    }
}
