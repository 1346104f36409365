//! Random numbers from a seed, so that a failure can be repeated.

/// Marsaglia's xorshift64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From `min` to `max`.
    pub fn between(&mut self, min: i64, max: i64) -> i64 {
        let span = max.abs_diff(min);
        if span == u64::MAX { self.next() as i64 } else { min.wrapping_add_unsigned(self.below(span + 1)) }
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
