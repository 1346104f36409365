//! When a delivery that failed is tried again, and when it is given up.
//!
//! | answer | what follows |
//! |---|---|
//! | 200 to 299 | delivered |
//! | 408, 425, 429, 500 to 599 | another try |
//! | 300 to 399, 401, 403, 404, 407 | another try: the address or the login is wrong, which somebody can correct |
//! | any other | refused: the same request would get the same answer |

const FIRST_WAIT_MS: u64 = 1_000;
const WAIT_MS_MAX: u64 = 5 * 60 * 1_000;

/// A delivery is given up this long after its first try failed.
pub const GIVE_UP_AFTER_MS: i64 = 24 * 60 * 60 * 1_000;

/// What the status of an HTTP answer means for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Delivered,
    Retry,
    Refused,
}

pub fn answer_of_status(status: u16) -> Answer {
    match status {
        200..=299 => Answer::Delivered,
        300..=399 | 401 | 403 | 404 | 407 | 408 | 425 | 429 | 500..=599 => Answer::Retry,
        _ => Answer::Refused,
    }
}

/// The milliseconds up to the next try after so many failed ones: one second, then twice as long each time, up to five
/// minutes; and up to a quarter less, so that many deliveries do not come all at once. The same for the same arguments.
pub fn wait_ms(id: &str, failed_tries: u32) -> u64 {
    let doublings = failed_tries.saturating_sub(1).min(16);
    let wait = (FIRST_WAIT_MS << doublings).min(WAIT_MS_MAX);
    wait - wait * (hash(id, failed_tries) % 1_000) / 4_000
}

/// FNV-1a.
fn hash(id: &str, tries: u32) -> u64 {
    let bytes = id.bytes().chain(tries.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) >> 8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_some_answers_are_worth_another_try() {
        for (status, expected) in [
            (200, Answer::Delivered),
            (202, Answer::Delivered),
            (204, Answer::Delivered),
            (301, Answer::Retry),
            (307, Answer::Retry),
            (400, Answer::Refused),
            (401, Answer::Retry),
            (404, Answer::Retry),
            (408, Answer::Retry),
            (410, Answer::Refused),
            (425, Answer::Retry),
            (429, Answer::Retry),
            (500, Answer::Retry),
            (503, Answer::Retry),
            (599, Answer::Retry),
            (600, Answer::Refused),
        ] {
            assert_eq!(answer_of_status(status), expected, "{status}");
        }
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        for (failed, longest) in [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (9, 256), (10, 300), (1_000, 300)] {
            let wait = wait_ms("0a1b2c", failed);
            assert!((longest * 750..=longest * 1_000).contains(&wait), "{failed}: {wait}");
        }
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_repeatable(id in "[0-9a-f]{1,64}", failed in 0u32..) {
            let wait = wait_ms(&id, failed);
            prop_assert!((750..=WAIT_MS_MAX).contains(&wait));
            prop_assert_eq!(wait, wait_ms(&id, failed));
        }
    }

    #[test]
    fn different_notifications_wait_differently() {
        let waits: std::collections::BTreeSet<u64> = (0..100).map(|id| wait_ms(&format!("{id:x}"), 9)).collect();
        assert!(waits.len() > 50, "{waits:?}");
    }
}
