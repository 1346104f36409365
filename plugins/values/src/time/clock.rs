//! What ISO 8601 and RFC 2822 have in common: two digits, a fraction of a second, a zone.

/// The number that two digits write.
#[inline]
pub(super) fn two_digits(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// The microseconds of a fraction, which may be absent, and the rest. Digits behind the microseconds are cut.
#[inline]
pub(super) fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let [b'.' | b',', text @ ..] = text else { return Some((0, text)) };
    let (mut micros, mut count) = (0, 0);
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        if count < 6 {
            micros = micros * 10 + u32::from(digit);
        }
        count += 1;
    }
    const UNITS: [u32; 7] = [0, 100_000, 10_000, 1_000, 100, 10, 1];
    (count > 0).then(|| (micros * UNITS[count.min(6)], &text[count..]))
}

/// The minutes by which the zone at the end of a text is ahead of UTC. UTC if there is none.
#[inline]
pub(super) fn offset_minutes(text: &[u8]) -> Option<i32> {
    match text {
        [] | [b'Z' | b'z'] => Some(0),
        _ => other_offset(text),
    }
}

fn other_offset(text: &[u8]) -> Option<i32> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let (sign, hours, minutes) = match *text {
        [sign @ (b'+' | b'-'), h, h2] => (sign, two_digits(h, h2)?, 0),
        [sign @ (b'+' | b'-'), h, h2, m, m2] | [sign @ (b'+' | b'-'), h, h2, b':', m, m2] => {
            (sign, two_digits(h, h2)?, two_digits(m, m2)?)
        }
        _ => return is_utc(text).then_some(0),
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = (hours * 60 + minutes) as i32;
    Some(if sign == b'-' { -offset } else { offset })
}

/// The names of UTC. Other names of zones are ambiguous: there are three zones `CST`.
fn is_utc(name: &[u8]) -> bool {
    [&b"Z"[..], b"UTC", b"GMT", b"UT"].iter().any(|utc| utc.eq_ignore_ascii_case(name))
}
