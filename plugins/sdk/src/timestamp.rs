//! A parser for ISO 8601 timestamps. Every event has one, and general parsers take several times as long.

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: the range that all Delta readers support.
const MICROS_MIN: i64 = -62_135_596_800_000_000;
const MICROS_MAX: i64 = 253_402_300_799_999_999;

/// Parses an ISO 8601 timestamp such as `2025-08-16T14:50:49.401333+02:00` into microseconds since 1970-01-01T00:00:00
/// UTC.
///
/// | part | accepted |
/// |---|---|
/// | date | `YYYY-MM-DD`, a day of the calendar, years 0001 to 9999 |
/// | separator | `T`, `t` or one space |
/// | time | `HH:MM`, `HH:MM:SS`, and a fraction of any length after `.` or `,`, truncated to microseconds |
/// | offset | `Z`, `z`, `±HH`, `±HHMM`, `±HH:MM`; UTC if absent |
///
/// `None` for anything else, and for a leap second (`:60`), which a Unix timestamp cannot represent.
///
/// ```
/// use silverd_plugin::timestamp::parse_iso_8601;
///
/// assert_eq!(parse_iso_8601("1970-01-01T01:00:01+01:00"), Some(1_000_000));
/// assert_eq!(parse_iso_8601("yesterday"), None);
/// ```
pub fn parse_iso_8601(text: &str) -> Option<i64> {
    let mut scan = Scan { rest: text.as_bytes() };
    let year = scan.number(4)?;
    scan.one_of(b"-")?;
    let month = scan.number(2)?;
    scan.one_of(b"-")?;
    let day = scan.number(2)?;
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    scan.one_of(b"Tt ")?;
    let hour = scan.number(2)?;
    scan.one_of(b":")?;
    let minute = scan.number(2)?;
    let (mut second, mut micros) = (0, 0);
    if scan.one_of(b":").is_some() {
        second = scan.number(2)?;
        if scan.one_of(b".,").is_some() {
            micros = scan.fraction_micros()?;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let offset_minutes = scan.offset_minutes()?;
    if !scan.rest.is_empty() {
        return None;
    }
    let seconds =
        days_since_epoch(year, month, day) * SECONDS_PER_DAY + hour * 3600 + (minute - offset_minutes) * 60 + second;
    // An offset can move the first or the last day out of the supported years.
    Some(seconds * MICROS_PER_SECOND + micros).filter(|micros| (MICROS_MIN..=MICROS_MAX).contains(micros))
}

/// The text that is not parsed yet.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    /// Consumes exactly `digits` digits.
    #[inline]
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (head, rest) = self.rest.split_at_checked(digits)?;
        let mut number = 0;
        for byte in head {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + i64::from(digit);
        }
        self.rest = rest;
        Some(number)
    }

    /// Consumes one byte if it is one of `accepted`.
    #[inline]
    fn one_of(&mut self, accepted: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        if !accepted.contains(first) {
            return None;
        }
        self.rest = rest;
        Some(*first)
    }

    /// Consumes one or more digits, of which the first six count.
    fn fraction_micros(&mut self) -> Option<i64> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let mut micros = self.number(digits.min(6))?;
        for _ in digits..6 {
            micros *= 10;
        }
        self.rest = &self.rest[digits.saturating_sub(6)..];
        Some(micros)
    }

    /// Consumes the offset, which may be absent.
    fn offset_minutes(&mut self) -> Option<i64> {
        let Some(sign) = self.one_of(b"Zz+-") else { return Some(0) };
        if matches!(sign, b'Z' | b'z') {
            return Some(0);
        }
        let hours = self.number(2)?;
        let minutes = if self.one_of(b":").is_some() || !self.rest.is_empty() { self.number(2)? } else { 0 };
        if hours > 23 || minutes > 59 {
            return None;
        }
        let offset = hours * 60 + minutes;
        Some(if sign == b'-' { -offset } else { offset })
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a day in the Gregorian calendar, from year 1.
///
/// The year starts in March here, so that the leap day is its last day and every five months have 153 days; see Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_with_and_without_offset_are_parsed() {
        let check = |text: &str, expected: i64| assert_eq!(parse_iso_8601(text), Some(expected), "{text}");
        check("1970-01-01T00:00:00Z", 0);
        check("1969-12-31T23:59:59.999999Z", -1);
        check("2025-08-16T14:50:49.401333", 1_755_355_849_401_333);
        check("2025-08-16T14:50:49.401333Z", 1_755_355_849_401_333);
        check("2025-08-16 14:50:49,401333z", 1_755_355_849_401_333);
        check("2025-08-16t16:50:49.401333+02:00", 1_755_355_849_401_333);
        check("2025-08-16T16:50:49.401333+0200", 1_755_355_849_401_333);
        check("2025-08-16T09:20:49.401333-05:30", 1_755_355_849_401_333);
        check("2025-08-16T16:50:49.4013339999+02", 1_755_355_849_401_333);
        check("2025-08-16T14:50:49.4", 1_755_355_849_400_000);
        check("2025-08-16T14:50:49", 1_755_355_849_000_000);
        check("2025-08-16T14:50", 1_755_355_800_000_000);
        check("2025-08-16T14:50-00:00", 1_755_355_800_000_000);
        check("2024-02-29T00:00:00Z", 1_709_164_800_000_000);
        check("2000-02-29T00:00:00Z", 951_782_400_000_000);
        check("0001-01-01T00:00:00Z", MICROS_MIN);
        check("9999-12-31T23:59:59.999999Z", MICROS_MAX);
    }

    #[test]
    fn invalid_text_is_not_parsed() {
        let check = |text: &str| assert_eq!(parse_iso_8601(text), None, "{text}");
        for text in [
            "",
            "today",
            "2025-08-16",
            "2025-08-16T",
            "2025-08-16T14",
            "1755355849",
            "20250816T145049Z",
            "2025-00-16T14:50:49Z",
            "2025-13-16T14:50:49Z",
            "2025-08-00T14:50:49Z",
            "2025-08-32T14:50:49Z",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2025-04-31T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2025-08-16T24:00:00Z",
            "2025-08-16T14:60:49Z",
            "2025-08-16T14:50:60Z",
            "2025-08-16T14:50:49.Z",
            "2025-08-16T14:50:49+24:00",
            "2025-08-16T14:50:49+02:60",
            "2025-08-16T14:50:49+2",
            "2025-08-16T14:50:49+02:",
            "2025-08-16T14:50:49Zulu",
            "2025-08-16T14:50:49 Z",
            " 2025-08-16T14:50:49Z",
            "2025-08-16T14:50:4",
            "+2025-08-16T14:50:49Z",
            "2025-8-16T14:50:49Z",
            "2025-08-16T1４:50:49Z",
            "12025-08-16T14:50:49Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            check(text);
        }
    }

    #[test]
    fn every_day_is_one_day_after_the_previous_day() {
        let mut expected = MICROS_MIN / MICROS_PER_SECOND / SECONDS_PER_DAY;
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_since_epoch(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }
}
