//! Numbers since 1970, in units that are distinguished by their magnitude.

use super::calendar::{days_since_epoch, within_years};
use crate::MismatchKind::{self, Malformed, OutOfRange};
use crate::decimal::{Decimal, Remainder};
use crate::number::whole;

/// The first numbers that are not seconds, milliseconds, microseconds. Each begins in 1973, and ends in 5138.
const MILLIS_FROM: u64 = 100_000_000_000;
const MICROS_FROM: u64 = 100_000_000_000_000;
const NANOS_FROM: u64 = 100_000_000_000_000_000;

/// Which numbers are large enough to be one since 1970.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Smallest {
    Any,
    /// A smaller one is days since 1970 as likely, or a day without signs between.
    NineDigits,
}

impl Smallest {
    #[inline]
    fn excludes(self, number: u64) -> bool {
        self == Smallest::NineDigits && number < 100_000_000
    }
}

/// The microseconds since 1970 of a number in its text.
#[inline]
pub(super) fn micros(text: &[u8], smallest: Smallest) -> Result<i64, MismatchKind> {
    let Some((negative, number)) = whole(text) else { return other_form(text, smallest) };
    if smallest.excludes(number) || (!negative && reads_as_calendar(number)) {
        return Err(Malformed);
    }
    let micros = match number {
        0..MILLIS_FROM => number * 1_000_000,
        MILLIS_FROM..MICROS_FROM => number * 1_000,
        MICROS_FROM..NANOS_FROM => number,
        // The microsecond in which it is, not the one nearest to zero.
        _ if negative => number.div_ceil(1_000),
        _ => number / 1_000,
    };
    // Below 10^17.
    within_years(if negative { -(micros as i64) } else { micros as i64 })
}

/// A number with a fraction, an exponent or more than 19 digits.
#[inline(never)]
fn other_form(text: &[u8], smallest: Smallest) -> Result<i64, MismatchKind> {
    let number = Decimal::parse(text).ok_or(Malformed)?;
    let (units, rest) = number.scaled(0).ok_or(OutOfRange)?;
    let units = u64::try_from(units).unwrap_or(u64::MAX); // nanoseconds, like all numbers that large
    let is_positive_integer = !number.negative && rest == Remainder::Zero;
    if smallest.excludes(units) || (is_positive_integer && reads_as_calendar(units)) {
        return Err(Malformed);
    }
    let decimals = match units {
        0..MILLIS_FROM => 6,
        MILLIS_FROM..MICROS_FROM => 3,
        MICROS_FROM..NANOS_FROM => 0,
        _ => -3,
    };
    let (micros, rest) = number.scaled(decimals).ok_or(OutOfRange)?;
    let micros = i64::try_from(micros).map_err(|_| OutOfRange)?;
    if !number.negative {
        return within_years(micros);
    }
    within_years(-micros - i64::from(rest != Remainder::Zero))
}

/// Whether the number reads as a year, a month, a day or a time of the years 1900 to 2099: `YYYY`, `YYYYMM`, and so on, to
/// `YYYYMMDDhhmmss` and the same with milliseconds. `YYYYMMDDhh` is not among them: today's seconds have ten digits.
#[inline]
fn reads_as_calendar(number: u64) -> bool {
    match number {
        1_900..2_100 => true,
        190_000..210_000 => is_day_and_time(number * 100 + 1, 0),
        19_000_000..21_000_000 => is_day_and_time(number, 0),
        190_000_000_000..210_000_000_000 => is_day_and_time(number / 10_000, number % 10_000 * 100),
        19_000_000_000_000..21_000_000_000_000 => is_day_and_time(number / 1_000_000, number % 1_000_000),
        19_000_000_000_000_000..21_000_000_000_000_000 => {
            is_day_and_time(number / 1_000_000_000, number / 1_000 % 1_000_000)
        }
        _ => false,
    }
}

/// Whether `day` is a `YYYYMMDD` and `time` an `hhmmss`.
#[cold]
fn is_day_and_time(day: u64, time: u64) -> bool {
    let (year, month, day) = (day / 10_000, day / 100 % 100, day % 100);
    let is_day = days_since_epoch(year as u32, month as u32, day as u32).is_some();
    is_day && time / 10_000 < 24 && time / 100 % 100 < 60 && time % 100 < 60
}
