//! Timestamps and dates.

mod calendar;
mod clock;
mod epoch;
mod iso;
mod rfc2822;
#[cfg(test)]
mod tests;

use crate::text::trim;
use crate::{Mismatch, MismatchKind, Scalar};
use calendar::MICROS_PER_DAY;

/// A timestamp in microseconds since 1970-01-01T00:00:00 UTC, in the years 0001 to 9999.
///
/// | form | accepted |
/// |---|---|
/// | ISO 8601, as text | `YYYY-MM-DD`, then `T`, `t` or one space, then `HH:MM` or `HH:MM:SS`; or `YYYYMMDDTHHMMSS`; or a day alone, which is its midnight |
/// | RFC 2822, as text | `Sat, 16 Aug 2025 14:50:49 +0000`, with or without the weekday |
/// | fraction | any number of digits after `.` or `,`; what is behind the microseconds is cut |
/// | zone | `Z`, `UTC`, `GMT`, `UT`, `±HH`, `±HHMM`, `±HH:MM`, after a space or not; UTC if absent (RFC 2822 needs one) |
/// | 24:00:00 | the end of the day |
/// | 23:59:60 in UTC | a leap second, which a Unix timestamp cannot represent: it counts as the second after it |
/// | number since 1970, as a number or as text | seconds below 10^11, milliseconds below 10^14, microseconds below 10^17, and else nanoseconds; a fraction and an exponent count |
///
/// Text of eight digits is the day `YYYYMMDD`. Every other whole number that reads as a year, a month, a day or a time of
/// the years 1900 to 2099 without signs between (`2025`, `202508`, `20250816`, `20250816145049`) is ambiguous and not read.
/// Neither are names of zones, such as `CET`.
///
/// # Errors
/// `OutOfRange` for an instant outside of the years 0001 to 9999, `Malformed` for anything else.
#[inline]
pub fn timestamp(value: Scalar<'_>) -> Result<i64, Mismatch> {
    micros(value, epoch::Smallest::Any).map_err(|kind| mismatch(kind, TIMESTAMP))
}

/// A date in days since 1970-01-01: `YYYY-MM-DD`, the text `YYYYMMDD`, or the day in UTC of a [`timestamp`] in any form.
///
/// A number since 1970 needs nine digits: a smaller one could also be days since 1970, or a day without signs between.
///
/// # Errors
/// Those of [`timestamp`].
#[inline]
pub fn date(value: Scalar<'_>) -> Result<i32, Mismatch> {
    match micros(value, epoch::Smallest::NineDigits) {
        // The supported years have less than 2^22 days.
        Ok(micros) => Ok(micros.div_euclid(MICROS_PER_DAY) as i32),
        Err(kind) => Err(mismatch(kind, DATE)),
    }
}

/// What is expected, for each kind of mismatch.
type Expected = [&'static str; 2];

const TIMESTAMP: Expected =
    ["a timestamp such as 2025-08-16T14:50:49.401Z or 1755355849401", "a timestamp of the years 0001 to 9999"];
const DATE: Expected = ["a date such as 2025-08-16", "a date of the years 0001 to 9999"];

#[cold]
fn mismatch(kind: MismatchKind, [malformed, out_of_range]: Expected) -> Mismatch {
    match kind {
        MismatchKind::Malformed => Mismatch::malformed(malformed),
        MismatchKind::OutOfRange => Mismatch::out_of_range(out_of_range),
    }
}

#[inline(always)]
fn micros(value: Scalar<'_>, smallest: epoch::Smallest) -> Result<i64, MismatchKind> {
    match value {
        Scalar::Text(text) => {
            let text = trim(text).as_bytes();
            match text {
                [_, _, _, _, b'-', _, _, b'-', ..] => iso::extended(text),
                _ => other_form(text, smallest),
            }
        }
        Scalar::Number(text) => epoch::micros(text.as_bytes(), smallest),
        Scalar::Null | Scalar::Bool(_) => Err(MismatchKind::Malformed),
    }
}

/// Text that does not begin as `YYYY-MM-DD` does.
#[inline(never)]
fn other_form(text: &[u8], smallest: epoch::Smallest) -> Result<i64, MismatchKind> {
    if text.len() >= 8
        && text[..8].iter().all(u8::is_ascii_digit)
        && text.get(8).is_none_or(|byte| iso::separates(*byte))
    {
        return iso::basic(text);
    }
    match epoch::micros(text, smallest) {
        Err(MismatchKind::Malformed) => rfc2822::parse(text),
        found => found,
    }
}
