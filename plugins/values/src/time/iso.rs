//! ISO 8601, with fixed positions. Nearly every event has a timestamp in this form, so its digits are read eight at a time.

use super::calendar::{TimeOfDay, days_since_epoch, instant};
use super::clock::{fraction, offset_minutes, two_digits};
use crate::MismatchKind::{self, Malformed};

/// `2025-08-16`, alone or with a time: `2025-08-16T14:50`, `2025-08-16 14:50:49.401+02:00`.
///
/// Always inlined into the two functions that need it, because a result that is passed through memory takes a tenth of the
/// time.
#[inline(always)]
pub(super) fn extended(text: &[u8]) -> Result<i64, MismatchKind> {
    let Some((head, rest)) = text.split_first_chunk::<16>() else { return day_alone(text) };
    let (days, hour, minute) = day_and_minute(head).ok_or(Malformed)?;
    let (second, micros, rest) = match rest {
        [b':', tens, ones, rest @ ..] => {
            let second = two_digits(*tens, *ones).ok_or(Malformed)?;
            let (micros, rest) = fraction(rest).ok_or(Malformed)?;
            (second, micros, rest)
        }
        _ => (0, 0, rest),
    };
    let offset_minutes = offset_minutes(rest).ok_or(Malformed)?;
    instant(days, TimeOfDay { hour, minute, second, micros, offset_minutes })
}

/// `20250816`, alone or with a time: `20250816T1450`, `20250816T145049.401+0200`.
pub(super) fn basic(text: &[u8]) -> Result<i64, MismatchKind> {
    let (day, time) = text.split_first_chunk::<8>().ok_or(Malformed)?;
    let [y, y2, y3, y4, m, m2, d, d2] = *day;
    let mut head = [y, y2, y3, y4, b'-', m, m2, b'-', d, d2, b'T', b'0', b'0', b':', b'0', b'0'];
    let (second, micros, rest) = match *time {
        [] => (0, 0, time),
        [_, h, h2, m, m2, ref rest @ ..] => {
            (head[11], head[12], head[14], head[15]) = (h, h2, m, m2);
            match rest {
                [tens @ b'0'..=b'9', ones, rest @ ..] => {
                    let second = two_digits(*tens, *ones).ok_or(Malformed)?;
                    let (micros, rest) = fraction(rest).ok_or(Malformed)?;
                    (second, micros, rest)
                }
                _ => (0, 0, rest),
            }
        }
        _ => return Err(Malformed),
    };
    let (days, hour, minute) = day_and_minute(&head).ok_or(Malformed)?;
    let offset_minutes = offset_minutes(rest).ok_or(Malformed)?;
    instant(days, TimeOfDay { hour, minute, second, micros, offset_minutes })
}

/// Whether the character may stand between the day and the time.
#[inline]
pub(super) fn separates(byte: u8) -> bool {
    matches!(byte, b'T' | b't' | b' ')
}

/// `2025-08-16`
#[inline]
fn day_alone(text: &[u8]) -> Result<i64, MismatchKind> {
    let day: &[u8; 10] = text.try_into().map_err(|_| Malformed)?;
    let mut head = *b"0000-00-00T00:00";
    head[..10].copy_from_slice(day);
    let (days, hour, minute) = day_and_minute(&head).ok_or(Malformed)?;
    instant(days, TimeOfDay { hour, minute, second: 0, micros: 0, offset_minutes: 0 })
}

/// The day, the hour and the minute of `YYYY-MM-DDTHH:MM`.
#[inline]
fn day_and_minute(head: &[u8; 16]) -> Option<(i32, u32, u32)> {
    const YEAR_AND_MONTH: Pattern = Pattern::new(*b"0000-00-");
    const DAY_AND_TIME: Pattern = Pattern::new(*b"00?00:00");
    let head = u128::from_le_bytes(*head);
    let (first, second) = (head as u64, (head >> 64) as u64);
    if !separates((second >> 16) as u8) {
        return None;
    }
    let [century, _, year, _, _, month, _, _] = YEAR_AND_MONTH.pairs(first)?;
    let [day, _, _, hour, _, _, minute, _] = DAY_AND_TIME.pairs(second)?;
    let days = days_since_epoch(u32::from(century) * 100 + u32::from(year), u32::from(month), u32::from(day))?;
    Some((days, u32::from(hour), u32::from(minute)))
}

/// What eight bytes must be: a digit where the pattern has a `0`, anything where it has a `?`, and else the same.
struct Pattern {
    /// The bytes, and which bits of them count.
    bytes: u64,
    mask: u64,
    /// What sets the high bit of a value above 9, or above 0 where the pattern has no digit.
    limits: u64,
}

impl Pattern {
    const fn new(pattern: [u8; 8]) -> Self {
        let (mut bytes, mut mask, mut limits) = (pattern, [0xff; 8], [0x7f; 8]);
        let mut at = 0;
        while at < 8 {
            match pattern[at] {
                b'0' => limits[at] = 0x7f - 9,
                b'?' => (bytes[at], mask[at]) = (0, 0),
                _ => {}
            }
            at += 1;
        }
        Self { bytes: u64::from_le_bytes(bytes), mask: u64::from_le_bytes(mask), limits: u64::from_le_bytes(limits) }
    }

    /// For each byte the number that it writes together with the byte after it. `None` if the text is not as the pattern.
    #[inline(always)]
    fn pairs(&self, text: u64) -> Option<[u8; 8]> {
        const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);
        // A digit becomes its value, and all else 0.
        let values = (text & self.mask) ^ self.bytes;
        // A byte with a high bit may carry into the next one, and is found by its own high bit.
        if (values.wrapping_add(self.limits) | values) & HIGH_BITS != 0 {
            return None;
        }
        // At most 99 in each byte: nothing is carried.
        Some((values * 10 + (values >> 8)).to_le_bytes())
    }
}
