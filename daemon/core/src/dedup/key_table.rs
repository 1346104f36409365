//! A compact hash table of keys and event times: 16 bytes a slot, at most 32 a row.
//!
//! A slot holds a part of the key's hash and the event time within the span. Several times of one key are several slots.
//!
//! ```text
//!   128 bits:  ┌─ the highest bits of the key ─┬─ event time in the span ─┐
//!                        at least 64                as many as needed
//! ```

use super::Key;

/// Of 20 slots, at most so many are used.
const LOAD_MAX: usize = 15;
const SLOTS_MIN: usize = 8;

pub(super) struct KeyTable {
    /// 0 is an empty slot.
    slots: Vec<u128>,
    rows: usize,
    time_bits: u32,
}

impl KeyTable {
    /// For event times below `span`, in microseconds.
    pub(super) fn new(span: i64) -> Self {
        // The next bit keeps a slot from being 0.
        let time_bits = (64 - span.unsigned_abs().leading_zeros()).min(63) + 1;
        Self { slots: Vec::new(), rows: 0, time_bits }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u128>()
    }

    pub(super) fn insert(&mut self, key: Key, time: u64) {
        if (self.rows + 1) * 20 > self.slots.len() * LOAD_MAX {
            self.grow();
        }
        let slot = self.prefix(key) | 1 << (self.time_bits - 1) | u128::from(time);
        insert_slot(&mut self.slots, slot);
        self.rows += 1;
    }

    /// The times of a key.
    pub(super) fn times(&self, key: Key) -> impl Iterator<Item = u64> {
        let (prefix, mask) = (self.prefix(key), (1u128 << (self.time_bits - 1)) - 1);
        let start = if self.slots.is_empty() { 0 } else { home(prefix, self.slots.len()) };
        let chain = self.slots[start..].iter().chain(&self.slots[..start]).take_while(|slot| **slot != 0);
        chain
            .filter(move |slot| *slot >> self.time_bits == prefix >> self.time_bits)
            .map(move |slot| (slot & mask) as u64)
    }

    fn prefix(&self, key: Key) -> u128 {
        key >> self.time_bits << self.time_bits
    }

    /// By half: at least half of the slots are used.
    fn grow(&mut self) {
        let mut slots = vec![0; (self.slots.len() + self.slots.len() / 2).max(SLOTS_MIN)];
        self.slots.iter().filter(|slot| **slot != 0).for_each(|slot| insert_slot(&mut slots, *slot));
        self.slots = slots;
    }
}

/// The first slot of a chain: the highest 64 bits, as a share of all slots.
fn home(slot: u128, slots: usize) -> usize {
    (((slot >> 64) * slots as u128) >> 64) as usize
}

fn insert_slot(slots: &mut [u128], slot: u128) {
    let mut at = home(slot, slots.len());
    while slots[at] != 0 {
        at = if at + 1 == slots.len() { 0 } else { at + 1 };
    }
    slots[at] = slot;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_takes_at_most_32_bytes() {
        let mut table = KeyTable::new(600_000_000);
        let key = |row: u64| u128::from(row.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(row);
        for row in 0..200_000 {
            table.insert(key(row), row);
            assert!(row < 100 || table.memory_bytes() <= 32 * table.rows(), "{} rows", table.rows());
        }
        assert!((0..200_000).all(|row| table.times(key(row)).eq([row])));
        assert_eq!(table.times(key(200_000)).count(), 0);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map(
            rows in prop::collection::vec((0u64..50, any::<u64>()), 0..200),
            span in prop_oneof![1i64..100, Just(600_000_000), Just(i64::MAX / 4)],
        ) {
            // Keys that share their highest bits are in one chain.
            let key = |key: u64| u128::from(key % 5) << 126 | u128::from(key) << 80;
            let (mut table, mut map) = (KeyTable::new(span), HashMap::<u64, Vec<u64>>::new());
            for (number, time) in rows {
                let time = time % span.unsigned_abs();
                table.insert(key(number), time);
                map.entry(number).or_default().push(time);
            }
            for number in 0..50 {
                let mut found: Vec<_> = table.times(key(number)).collect();
                let mut expected = map.remove(&number).unwrap_or_default();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
