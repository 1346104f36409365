//! Counts wrong tokens by the address that they come from. After too many, no token is taken from there for a while.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Different wrong tokens of an address within `WINDOW`.
const GUESSES_MAX: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Beyond these, the address that was counted first is forgotten.
const ADDRESSES_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Guesses {
    by_address: Mutex<HashMap<IpAddr, Tries>>,
    hasher: RandomState,
}

struct Tries {
    since: Instant,
    /// A client with an old token sends it again and again: that is one guess.
    tokens: Vec<u64>,
}

impl Guesses {
    /// For how long no token is taken from the address.
    pub(super) fn blocked_seconds(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let tries = self.by_address.lock();
        let tries = tries.get(&network(address)).filter(|tries| tries.tokens.len() >= GUESSES_MAX)?;
        let left = WINDOW.checked_sub(now.duration_since(tries.since))?;
        Some(left.as_secs() + 1)
    }

    /// Counts a wrong token. True if it is the one too many.
    pub(super) fn add(&self, address: IpAddr, token: &str, now: Instant) -> bool {
        let by_address = &mut *self.by_address.lock();
        let address = network(address);
        let is_over = |tries: &Tries| now.duration_since(tries.since) >= WINDOW;
        if !by_address.contains_key(&address) && by_address.len() >= ADDRESSES_MAX {
            by_address.retain(|_, tries| !is_over(tries));
            if by_address.len() >= ADDRESSES_MAX
                && let Some(first) = by_address.iter().min_by_key(|(_, tries)| tries.since).map(|(first, _)| *first)
            {
                by_address.remove(&first);
            }
        }
        let tries = by_address.entry(address).or_insert_with(|| Tries::new(now));
        if is_over(tries) {
            *tries = Tries::new(now);
        }
        let token = self.hasher.hash_one(token);
        if tries.tokens.contains(&token) {
            return false;
        }
        tries.tokens.push(token);
        tries.tokens.len() == GUESSES_MAX
    }
}

impl Tries {
    fn new(now: Instant) -> Self {
        Self { since: now, tokens: Vec::new() }
    }
}

/// A site has a whole network of IPv6 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_blocked_for_a_while() {
        let (guesses, guesser, now) = (Guesses::default(), address("10.0.0.1"), Instant::now());
        for number in 1..=GUESSES_MAX {
            assert_eq!(guesses.blocked_seconds(guesser, now), None);
            assert_eq!(guesses.add(guesser, &number.to_string(), now), number == GUESSES_MAX);
        }
        assert_eq!(guesses.blocked_seconds(guesser, now), Some(61));
        assert_eq!(guesses.blocked_seconds(address("10.0.0.2"), now), None);
        assert_eq!(guesses.blocked_seconds(guesser, now + WINDOW), Some(1));
        let later = now + WINDOW + Duration::from_millis(1);
        assert_eq!(guesses.blocked_seconds(guesser, later), None);
        assert!(!guesses.add(guesser, "again", later));
    }

    #[test]
    fn an_old_token_is_one_guess() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..100 {
            assert!(!guesses.add(address("::1"), "the token of last year", now));
        }
        assert_eq!(guesses.blocked_seconds(address("::1"), now), None);
    }

    #[test]
    fn a_network_is_one_address_and_their_number_is_bounded() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for number in 0..GUESSES_MAX {
            guesses.add(address(&format!("fd00::{number:x}")), &number.to_string(), now);
        }
        assert!(guesses.blocked_seconds(address("fd00::ffff"), now).is_some());
        for number in 0..2 * ADDRESSES_MAX as u32 {
            guesses.add(IpAddr::from(number.to_be_bytes()), "x", now);
        }
        assert_eq!(guesses.by_address.lock().len(), ADDRESSES_MAX);
    }
}
