//! Amounts of money in hundredths.

mod currency;
#[cfg(test)]
mod tests;
mod written;

use crate::decimal::{Decimal, Remainder, digits, split_sign};
use crate::text::trim;
use crate::{Mismatch, Scalar};

/// 10^18 - 1 hundredths: the range of a Delta `decimal(18,2)`.
const HUNDREDTHS_MAX: u128 = 999_999_999_999_999_999;

/// 10^13: below it an `f64` is far more precise than a hundredth.
const F64_UNITS_MAX: f64 = 1e13;

const MALFORMED: Mismatch = Mismatch::malformed("an amount such as 19.99");
const AMBIGUOUS: Mismatch = Mismatch::malformed(
    "an amount such as 19.99 (one sign before three digits could be a decimal sign or separate thousands)",
);
const OUT_OF_RANGE: Mismatch = Mismatch::out_of_range("an amount from -9999999999999999.99 to 9999999999999999.99");

/// An amount in hundredths of the currency's unit, for a Delta `decimal(18,2)`.
///
/// | form | accepted |
/// |---|---|
/// | number | `19.99`, `-5`, `1e2` |
/// | text | the same, with `+` or leading zeros, and with one currency before or after it: a code of ISO 4217 or a symbol; the currency is not kept |
/// | decimal sign in text | a dot or a comma |
/// | thousands in text | separated by the other one of both, by spaces or by apostrophes: `1,234.56`, `1.234,56`, `1 234,56`, `1'234.56`. All groups but the first have three digits |
///
/// One dot or comma before exactly three digits (`"1.234"`, `"1,234"`) has two meanings, and is not read, unless the number
/// before it cannot be a group: `"0.125"`, `"1234.567"`. Several of one kind separate thousands: `"1,234,567"`.
///
/// More than two decimals are rounded to the nearest hundredth. A half is rounded away from zero in text. In a number up to
/// 10^13 the binary value decides, as in [`money_from_f64`].
///
/// # Errors
/// `OutOfRange` for an amount that has more than 16 digits before the dot, `Malformed` for anything else.
#[inline]
pub fn money(value: Scalar<'_>) -> Result<i64, Mismatch> {
    match value {
        Scalar::Number(text) => ordinary(text.as_bytes()).map_or_else(|| number(text), Ok),
        Scalar::Text(text) => ordinary(trim(text).as_bytes()).map_or_else(|| written::amount(trim(text)), Ok),
        Scalar::Null | Scalar::Bool(_) => Err(MALFORMED),
    }
}

/// The amount in hundredths that a JSON number of more than two decimals has, for those who have it as an `f64`. Exact for
/// every number of at most two decimals. If the third decimal is a five, the binary value decides: `1.005` is slightly less
/// than 1.005 in binary, and becomes 1.00.
///
/// # Errors
/// `OutOfRange` beyond 10^13, where an `f64` no longer has hundredths.
#[inline]
pub fn money_from_f64(units: f64) -> Result<i64, Mismatch> {
    let hundredths = (units * 100.0).round();
    if hundredths.is_nan() || hundredths.abs() > F64_UNITS_MAX * 100.0 {
        return Err(Mismatch::out_of_range("an amount of money up to 10^13"));
    }
    Ok(hundredths as i64)
}

/// `19.99`, `5`, `-0.5`: up to 16 digits and two decimals.
#[inline]
fn ordinary(text: &[u8]) -> Option<i64> {
    let (negative, text) = split_sign(text);
    let (units, decimals) = match text {
        [units @ .., b'.', tenths, hundredths] => (units, digits(&[*tenths, *hundredths])?),
        [units @ .., b'.', tenths] => (units, digits(&[*tenths])? * 10),
        units => (units, 0),
    };
    if units.len() > 16 {
        return None;
    }
    let hundredths = (digits(units)? * 100 + decimals) as i64;
    Some(if negative { -hundredths } else { hundredths })
}

/// A number in another form.
#[cold]
fn number(text: &str) -> Result<i64, Mismatch> {
    let number = Decimal::parse(text.as_bytes()).ok_or(MALFORMED)?;
    let has_more_decimals = number.scaled(2).is_some_and(|(_, rest)| rest != Remainder::Zero);
    if has_more_decimals && let Some(hundredths) = text.parse().ok().and_then(|units| money_from_f64(units).ok()) {
        return Ok(hundredths);
    }
    rounded(&number)
}

/// The hundredths, a half rounded away from zero.
fn rounded(number: &Decimal) -> Result<i64, Mismatch> {
    let (hundredths, rest) = number.scaled(2).ok_or(OUT_OF_RANGE)?;
    let hundredths = hundredths + u128::from(rest >= Remainder::Half);
    if hundredths > HUNDREDTHS_MAX {
        return Err(OUT_OF_RANGE);
    }
    Ok(if number.negative { -(hundredths as i64) } else { hundredths as i64 })
}
