//! RFC 2822, the form of e-mail and HTTP: `Sat, 16 Aug 2025 14:50:49 +0000`.

use super::calendar::{TimeOfDay, days_since_epoch, instant};
use super::clock::{offset_minutes, two_digits};
use crate::MismatchKind::{self, Malformed};

const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Names of days and months count in any letter case. A weekday that is not the day's own contradicts it: `Malformed`.
#[inline(never)]
pub(super) fn parse(text: &[u8]) -> Result<i64, MismatchKind> {
    let (days, time) = day_and_time(text).ok_or(Malformed)?;
    instant(days, time)
}

fn day_and_time(text: &[u8]) -> Option<(i32, TimeOfDay)> {
    let (weekday, text) = match text {
        [a, b, c, b',', rest @ ..] => (Some(index_of([*a, *b, *c], &WEEKDAYS)?), rest.trim_ascii_start()),
        _ => (None, text),
    };
    let (day, text) = word(text)?;
    let day = match *day {
        [ones] => two_digits(b'0', ones)?,
        [tens, ones] => two_digits(tens, ones)?,
        _ => return None,
    };
    let (month, text) = word(text)?;
    let month = index_of(*month.as_array()?, &MONTHS)? + 1;
    let (year, text) = word(text)?;
    let [century, century2, year, year2] = *year else { return None };
    let year = two_digits(century, century2)? * 100 + two_digits(year, year2)?;
    let days = days_since_epoch(year, month, day)?;
    // 1970-01-01 was a Thursday.
    if weekday.is_some_and(|weekday| days.rem_euclid(7) as u32 != weekday) {
        return None;
    }
    let (time, zone) = word(text)?;
    let (hour, minute, second) = match *time {
        [h, h2, b':', m, m2] => (two_digits(h, h2)?, two_digits(m, m2)?, 0),
        [h, h2, b':', m, m2, b':', s, s2] => (two_digits(h, h2)?, two_digits(m, m2)?, two_digits(s, s2)?),
        _ => return None,
    };
    Some((days, TimeOfDay { hour, minute, second, micros: 0, offset_minutes: offset_minutes(zone)? }))
}

/// The text before the next space, and what follows the spaces. `None` if nothing follows.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (word, rest) = text.split_at(text.iter().position(|byte| *byte == b' ')?);
    let rest = rest.trim_ascii_start();
    (!rest.is_empty()).then_some((word, rest))
}

fn index_of(name: [u8; 3], names: &[&[u8; 3]]) -> Option<u32> {
    names.iter().position(|known| known.eq_ignore_ascii_case(&name)).map(|index| index as u32)
}
