//! Integers and floating-point numbers.

use crate::decimal::{Decimal, Remainder, digits, split_sign};
use crate::text::trim;
use crate::{Mismatch, MismatchKind, Scalar};

/// An integer from `min` to `max`: a number, or a number as text, whose value is whole: `7`, `"7"`, `7.0`, `7e0`, `"+7"`.
///
/// # Errors
/// `OutOfRange` for an integer that is not between `min` and `max`, `Malformed` for anything else. A text with
/// one sign before three digits (`1,000`, `1.000`) is malformed, because it is 1 or 1000.
#[inline]
pub fn signed(value: Scalar<'_>, min: i64, max: i64) -> Result<i64, Mismatch> {
    let text = number_text(value).ok_or(NOT_AN_INTEGER)?;
    let (negative, magnitude) = match whole(text) {
        Some(number) => number,
        None => other_form(value, text).map_err(|kind| integer_mismatch(kind, signed_range(min, max)))?,
    };
    let number = if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
    match number {
        Some(number) if min <= number && number <= max => Ok(number),
        _ => Err(Mismatch::out_of_range(signed_range(min, max))),
    }
}

/// An integer from 0 to `max`, in the forms of [`signed`]. `-0` is 0.
///
/// # Errors
/// Those of [`signed`].
#[inline]
pub fn unsigned(value: Scalar<'_>, max: u64) -> Result<u64, Mismatch> {
    let text = number_text(value).ok_or(NOT_AN_INTEGER)?;
    let (negative, magnitude) = match whole(text) {
        Some(number) => number,
        None => other_form(value, text).map_err(|kind| integer_mismatch(kind, unsigned_range(max)))?,
    };
    if magnitude > max || (negative && magnitude > 0) {
        return Err(Mismatch::out_of_range(unsigned_range(max)));
    }
    Ok(magnitude)
}

/// A floating-point number: the `f64` that is nearest to a number, or to a number as text.
///
/// # Errors
/// `OutOfRange` if there is no finite `f64` near it (`1e999`), and for `"NaN"` and `"Infinity"`; `Malformed` for anything
/// else. A comma is malformed, because it could be a decimal sign or a group sign.
#[inline]
pub fn float(value: Scalar<'_>) -> Result<f64, Mismatch> {
    let text = match value {
        Scalar::Number(text) => text,
        Scalar::Text(text) => trim(text),
        Scalar::Null | Scalar::Bool(_) => return Err(Mismatch::malformed("a number")),
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(Mismatch::out_of_range("a finite number")),
        Err(_) => Err(Mismatch::malformed("a number")),
    }
}

const NOT_AN_INTEGER: Mismatch = Mismatch::malformed("an integer");

/// The text of a number, or of a text that may be one.
#[inline]
fn number_text(value: Scalar<'_>) -> Option<&[u8]> {
    match value {
        Scalar::Number(text) => Some(text.as_bytes()),
        Scalar::Text(text) => Some(trim(text).as_bytes()),
        Scalar::Null | Scalar::Bool(_) => None,
    }
}

/// The sign and the magnitude of an integer of at most 19 digits, in its ordinary form.
#[inline]
pub(crate) fn whole(text: &[u8]) -> Option<(bool, u64)> {
    let (negative, text) = split_sign(text);
    Some((negative, digits(text)?))
}

#[cold]
fn other_form(value: Scalar<'_>, text: &[u8]) -> Result<(bool, u64), MismatchKind> {
    let number = Decimal::parse(text).ok_or(MismatchKind::Malformed)?;
    match number.scaled(0) {
        _ if matches!(value, Scalar::Text(_)) && may_separate_thousands(text) => Err(MismatchKind::Malformed),
        Some((magnitude, Remainder::Zero)) => {
            Ok((number.negative, u64::try_from(magnitude).map_err(|_| MismatchKind::OutOfRange)?))
        }
        Some(_) => Err(MismatchKind::Malformed),
        None => Err(MismatchKind::OutOfRange),
    }
}

/// Whether the only sign in a number stands before three digits, as in `1.000`.
fn may_separate_thousands(text: &[u8]) -> bool {
    matches!(split_sign(text).1, [b'1'..=b'9', group @ .., b'.', _, _, _] if group.len() <= 2)
}

#[cold]
fn integer_mismatch(kind: MismatchKind, range: &'static str) -> Mismatch {
    match kind {
        MismatchKind::Malformed => NOT_AN_INTEGER,
        MismatchKind::OutOfRange => Mismatch::out_of_range(range),
    }
}

#[cold]
fn signed_range(min: i64, max: i64) -> &'static str {
    const BITS_8: (i64, i64) = (i8::MIN as i64, i8::MAX as i64);
    const BITS_16: (i64, i64) = (i16::MIN as i64, i16::MAX as i64);
    const BITS_32: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);
    match (min, max) {
        BITS_8 => "an integer from -128 to 127",
        BITS_16 => "an integer from -32768 to 32767",
        BITS_32 => "an integer from -2147483648 to 2147483647",
        (i64::MIN, i64::MAX) => "an integer from -9223372036854775808 to 9223372036854775807",
        _ => "an integer in the range of the column",
    }
}

#[cold]
fn unsigned_range(max: u64) -> &'static str {
    const BITS_8: u64 = u8::MAX as u64;
    const BITS_16: u64 = u16::MAX as u64;
    const BITS_32: u64 = u32::MAX as u64;
    match max {
        BITS_8 => "an integer from 0 to 255",
        BITS_16 => "an integer from 0 to 65535",
        BITS_32 => "an integer from 0 to 4294967295",
        u64::MAX => "an integer from 0 to 18446744073709551615",
        _ => "an integer in the range of the column",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_from_whole_numbers() {
        let check = |text: &str, expected: i64| {
            for value in [Scalar::Number(text), Scalar::Text(text)] {
                assert_eq!(signed(value, i64::MIN, i64::MAX), Ok(expected), "{value:?}");
                let expected = u64::try_from(expected).ok();
                assert_eq!(unsigned(value, u64::MAX).ok(), expected, "{value:?}");
            }
        };
        check("7", 7);
        check("+7", 7);
        check("-7", -7);
        check("007", 7);
        check("7.0", 7);
        check("7.", 7);
        check("7e0", 7);
        check("7.50e1", 75);
        check("7E+2", 700);
        check("700e-2", 7);
        check("0", 0);
        check("-0", 0);
        check("-0.0", 0);
        check("0e99999", 0);
        check("9007199254740993", 9_007_199_254_740_993);
        check("9223372036854775807", i64::MAX);
        check("9223372036854775807.000", i64::MAX);
        check("-9223372036854775808", i64::MIN);
        check("-9.223372036854775808e18", i64::MIN);
        check("00000000000000000000000000000000000000000000000000001", 1);
        check("1234.000", 1_234);
        check("0.000", 0);
        assert_eq!(signed(Scalar::Number("1.000"), i64::MIN, i64::MAX), Ok(1));
        assert_eq!(unsigned(Scalar::Text(" 7\n"), u64::MAX), Ok(7));
    }

    #[test]
    fn fractions_and_other_text_are_not_integers() {
        let check = |value: Scalar<'_>| {
            assert_eq!(signed(value, i64::MIN, i64::MAX), Err(NOT_AN_INTEGER), "{value:?}");
            assert_eq!(unsigned(value, u64::MAX), Err(NOT_AN_INTEGER), "{value:?}");
        };
        for text in [
            "",
            " ",
            "-",
            "7.5",
            "7e-1",
            "99999999999999999999.5",
            "1e-400",
            "1,000",
            "1.000",
            "-123.000",
            "1 000",
            "1_000",
            "0x10",
        ] {
            check(Scalar::Text(text));
        }
        for text in ["seven", "7 ", "--7", "+-7", "٧", "NaN", "true"] {
            check(Scalar::Number(text));
        }
        check(Scalar::Number("7.5"));
        check(Scalar::Bool(true));
        check(Scalar::Null);
    }

    #[test]
    fn integers_beyond_the_bounds_are_out_of_range() {
        let check = |text: &str, min: i64, max: i64, expected: &'static str| {
            for value in [Scalar::Number(text), Scalar::Text(text)] {
                assert_eq!(signed(value, min, max), Err(Mismatch::out_of_range(expected)), "{value:?}");
            }
        };
        check("128", -128, 127, "an integer from -128 to 127");
        check("-129.0", -128, 127, "an integer from -128 to 127");
        check("32768", i16::MIN.into(), i16::MAX.into(), "an integer from -32768 to 32767");
        check("2147483648", i32::MIN.into(), i32::MAX.into(), "an integer from -2147483648 to 2147483647");
        check("8", 1, 7, "an integer in the range of the column");
        for text in ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "1e400", "-1e400"] {
            check(text, i64::MIN, i64::MAX, "an integer from -9223372036854775808 to 9223372036854775807");
        }

        let check = |text: &str, max: u64, expected: &'static str| {
            for value in [Scalar::Number(text), Scalar::Text(text)] {
                assert_eq!(unsigned(value, max), Err(Mismatch::out_of_range(expected)), "{value:?}");
            }
        };
        check("256", u8::MAX.into(), "an integer from 0 to 255");
        check("-1", u16::MAX.into(), "an integer from 0 to 65535");
        check("4294967296", u32::MAX.into(), "an integer from 0 to 4294967295");
        check("18446744073709551616", u64::MAX, "an integer from 0 to 18446744073709551615");
        check("8", 7, "an integer in the range of the column");
    }

    #[test]
    fn the_largest_unsigned_integer_is_exact() {
        for value in [Scalar::Number("18446744073709551615"), Scalar::Text("1.8446744073709551615e19")] {
            assert_eq!(unsigned(value, u64::MAX), Ok(u64::MAX), "{value:?}");
        }
    }

    #[test]
    fn floats_are_read_from_numbers_and_text() {
        let check =
            |value: Scalar<'_>, expected: Result<f64, Mismatch>| assert_eq!(float(value), expected, "{value:?}");
        check(Scalar::Number("1.5"), Ok(1.5));
        check(Scalar::Number("-1.50e3"), Ok(-1500.0));
        check(Scalar::Text(" 1.5 "), Ok(1.5));
        check(Scalar::Text("+.5"), Ok(0.5));
        check(Scalar::Text("7"), Ok(7.0));
        check(Scalar::Text("1e-999"), Ok(0.0));
        check(Scalar::Number("1.7976931348623157e308"), Ok(f64::MAX));
        for text in ["1e999", "-1e999", "NaN", "nan", "inf", "-Infinity"] {
            check(Scalar::Text(text), Err(Mismatch::out_of_range("a finite number")));
        }
        check(Scalar::Number("1e999"), Err(Mismatch::out_of_range("a finite number")));
        for text in ["", "1,5", "1.5.0", "one", "1 5", "0x1p3", "1_0"] {
            check(Scalar::Text(text), Err(Mismatch::malformed("a number")));
        }
        check(Scalar::Bool(true), Err(Mismatch::malformed("a number")));
        check(Scalar::Null, Err(Mismatch::malformed("a number")));
    }
}
