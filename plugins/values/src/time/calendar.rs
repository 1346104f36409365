//! The Gregorian calendar, and the instants of the supported years.

use crate::MismatchKind;

pub(super) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(super) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: the range that all Delta readers support.
pub(super) const MICROS_MIN: i64 = -62_135_596_800_000_000;
pub(super) const MICROS_MAX: i64 = 253_402_300_799_999_999;

/// A time of day as written, with the distance of its zone from UTC.
#[derive(Clone, Copy)]
pub(super) struct TimeOfDay {
    pub(super) hour: u32,
    pub(super) minute: u32,
    pub(super) second: u32,
    pub(super) micros: u32,
    pub(super) offset_minutes: i32,
}

/// Days since 1970-01-01 of a day of the years 0000 to 9999. `None` if the calendar does not have the day.
///
/// The year starts in March here, so that the leap day is its last day and every five months have 153 days; see Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
#[inline]
pub(super) fn days_since_epoch(year: u32, month: u32, day: u32) -> Option<i32> {
    if !(1..=12).contains(&month) || day < 1 || (day > 28 && day > days_in_month(year, month)) {
        return None;
    }
    let is_before_march = u32::from(month < 3);
    // 400 years, which have 146,097 days, keep the January of the year 0 positive.
    let (year, month) = (year + 400 - is_before_march, month + 12 * is_before_march - 3);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    Some(days as i32 - (719_468 + 146_097))
}

#[inline]
pub(super) fn days_in_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The instant in microseconds since 1970-01-01T00:00:00 UTC.
#[inline]
pub(super) fn instant(days: i32, time: TimeOfDay) -> Result<i64, MismatchKind> {
    let TimeOfDay { hour, minute, second, micros, offset_minutes } = time;
    if (hour > 23 || minute > 59 || second > 59) && !is_end_of_day(time) && !is_leap_second(time) {
        return Err(MismatchKind::Malformed);
    }
    let minutes = i64::from(days) * 1_440 + i64::from(hour * 60 + minute) - i64::from(offset_minutes);
    within_years((minutes * 60 + i64::from(second)) * MICROS_PER_SECOND + i64::from(micros))
}

/// An offset can move the first or the last day out of the supported years.
#[inline]
pub(super) fn within_years(micros: i64) -> Result<i64, MismatchKind> {
    if (MICROS_MIN..=MICROS_MAX).contains(&micros) { Ok(micros) } else { Err(MismatchKind::OutOfRange) }
}

/// 24:00:00, which is 00:00:00 of the next day.
#[cold]
fn is_end_of_day(time: TimeOfDay) -> bool {
    (time.hour, time.minute, time.second, time.micros) == (24, 0, 0, 0)
}

/// 23:59:60 in UTC. Other zones have it at the same instant, at another time of day. Whether that day had a leap second is
/// not checked: the list of them grows.
#[cold]
fn is_leap_second(time: TimeOfDay) -> bool {
    let TimeOfDay { hour, minute, second, offset_minutes, .. } = time;
    let minutes_in_utc = (hour * 60 + minute) as i32 - offset_minutes;
    hour <= 23 && minute <= 59 && second == 60 && minutes_in_utc.rem_euclid(1_440) == 1_439
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_one_day_after_the_previous_day() {
        let mut expected = (MICROS_MIN / MICROS_PER_DAY) as i32;
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_since_epoch(year, month, day), Some(expected), "{year}-{month}-{day}");
                    expected += 1;
                }
                assert_eq!(days_since_epoch(year, month, 0), None, "{year}-{month}-0");
                let after = days_in_month(year, month) + 1;
                assert_eq!(days_since_epoch(year, month, after), None, "{year}-{month}-{after}");
            }
            assert_eq!(days_since_epoch(year, 0, 1), None);
            assert_eq!(days_since_epoch(year, 13, 1), None);
        }
        assert_eq!(i64::from(expected - 1), MICROS_MAX.div_euclid(MICROS_PER_DAY));
    }

    #[test]
    fn the_year_0_ends_where_the_year_1_begins() {
        let first = days_since_epoch(1, 1, 1).expect("a day");
        assert_eq!(days_since_epoch(0, 12, 31), Some(first - 1));
        assert_eq!(days_since_epoch(0, 1, 1), Some(first - 366));
    }
}
