//! Amounts of money in hundredths.

use crate::currency::{strip_after, strip_before};
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
        Scalar::Text(text) => ordinary(trim(text).as_bytes()).map_or_else(|| other_text(trim(text)), Ok),
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

/// Text in another form.
#[cold]
fn other_text(text: &str) -> Result<i64, Mismatch> {
    // The sign stands before the currency or after it.
    let (minus, text) = match text.as_bytes() {
        [b'-', ..] => (Some(true), text[1..].trim_start()),
        [b'+', ..] => (Some(false), text[1..].trim_start()),
        _ => (None, text),
    };
    let amount = match (strip_before(text), strip_after(text)) {
        (Some(amount), None) | (None, Some(amount)) => amount,
        (None, None) => text,
        (Some(_), Some(_)) => return Err(MALFORMED),
    };
    let (own_minus, amount) = match amount.as_bytes() {
        [b'-' | b'+', ..] if minus.is_some() => return Err(MALFORMED),
        [b'-', ..] => (true, &amount[1..]),
        [b'+', ..] => (false, &amount[1..]),
        _ => (false, amount),
    };
    let minus = minus.unwrap_or(own_minus);
    if let Some(hundredths) = ordinary(amount.as_bytes()).filter(|_| !amount.starts_with(['-', '+'])) {
        return Ok(if minus { -hundredths } else { hundredths });
    }
    rounded(&without_sign(minus, amount)?)
}

/// The amount of a text without sign and currency.
fn without_sign(negative: bool, text: &str) -> Result<Decimal, Mismatch> {
    if text.contains(['e', 'E']) {
        let mut number = Decimal::parse(text.as_bytes()).filter(|_| !text.starts_with(['-', '+'])).ok_or(MALFORMED)?;
        number.negative = negative;
        return Ok(number);
    }
    let (integer, fraction) = match decimal_sign(text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    let Some(thousands) = thousands(integer) else { return Err(MALFORMED) };
    let is_number = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !(integer.is_empty() && fraction.is_empty());
    if !is_number || text.ends_with(',') {
        return Err(MALFORMED);
    }
    let could_be_group = thousands == Thousands::Together && is_first_group(integer);
    if could_be_group && fraction.len() == 3 {
        return Err(AMBIGUOUS);
    }
    Ok(Decimal::from_digits(negative, integer.as_bytes(), fraction.as_bytes()))
}

/// Where the decimal sign is: the last one of dots and commas, or the only one. Several of one kind separate thousands.
fn decimal_sign(text: &str) -> Option<usize> {
    match (text.rfind('.'), text.rfind(',')) {
        (Some(dot), Some(comma)) => Some(dot.max(comma)),
        (last, None) => last.filter(|at| text.find('.') == Some(*at)),
        (None, last) => last.filter(|at| text.find(',') == Some(*at)),
    }
}

/// How the thousands of an integer are written.
#[derive(PartialEq)]
enum Thousands {
    Together,
    Separated,
}

/// `None` if the text is not an integer, or its groups are wrong. The integer may be empty.
fn thousands(integer: &str) -> Option<Thousands> {
    const SEPARATORS: [char; 8] = ['.', ',', ' ', '\u{a0}', '\u{2009}', '\u{202f}', '\'', '\u{2019}'];
    let Some(separator) = integer.chars().find(|letter| !letter.is_ascii_digit()) else {
        return Some(Thousands::Together);
    };
    let mut groups = integer.split(separator);
    let right = SEPARATORS.contains(&separator)
        && groups.next().is_some_and(is_first_group)
        && groups.all(|group| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit()));
    right.then_some(Thousands::Separated)
}

/// One to three digits, not a leading zero.
fn is_first_group(text: &str) -> bool {
    (1..=3).contains(&text.len()) && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: Scalar<'_>, expected: Result<i64, Mismatch>) {
        assert_eq!(money(value), expected, "{value:?}");
    }

    #[test]
    fn numbers_and_numbers_as_text_are_read_exactly() {
        let check = |text: &str, expected: i64| {
            check(Scalar::Number(text), Ok(expected));
            check(Scalar::Text(text), Ok(expected));
        };
        check("178.59", 17_859);
        check("19.99", 1_999);
        check("0.07", 7);
        check("1.1", 110);
        check("5", 500);
        check("-5.25", -525);
        check("-0.00", 0);
        check("-0", 0);
        check("-0.01", -1);
        check("5.0000", 500);
        check("1.10000000000000000000000000000", 110);
        check("1e2", 10_000);
        check("1.999e1", 1_999);
        check("1999E-2", 1_999);
        check("9999999999999.99", 999_999_999_999_999);
        check("10000000000000", 1_000_000_000_000_000);
        check("10000000000001", 1_000_000_000_000_100);
        check("9999999999999999.99", 999_999_999_999_999_999);
        check("-9999999999999999.99", -999_999_999_999_999_999);
        check("9999999999999999.994", 999_999_999_999_999_999);
        check("0e400", 0);
    }

    #[test]
    fn more_decimals_of_a_number_are_rounded_by_its_binary_value() {
        let check = |text: &str, expected: i64| check(Scalar::Number(text), Ok(expected));
        check("1.004", 100);
        check("1.006", 101);
        check("1.005", 100);
        check("1.255", 125);
        check("2.675", 268);
        check("0.285", 28);
        check("0.005", 1);
        check("-0.005", -1);
        check("1e-400", 0);
        check("-1.005e0", -100);
        // Beyond 10^13, where an f64 has no hundredths, a half is rounded away from zero.
        check("1000000000000001.005", 100_000_000_000_000_101);
        check("-1000000000000001.004999999999999999999999999999", -100_000_000_000_000_100);
    }

    #[test]
    fn more_decimals_of_a_text_are_rounded_and_halves_away_from_zero() {
        let check = |text: &str, expected: i64| check(Scalar::Text(text), Ok(expected));
        check("0.005", 1);
        check("-0.005", -1);
        check("0.285", 29);
        check("0,284", 28);
        check("1234.565", 123_457);
        check("1,234.565", 123_457);
        check("1.2345", 123);
        check("1,2350", 124);
        check("0.0049999999999999999999999999999999999999999999", 0);
    }

    #[test]
    fn currencies_are_ignored() {
        for text in [
            "19.99 EUR",
            "EUR 19.99",
            "eur 19.99",
            "19.99EUR",
            "EUR19.99",
            "€19.99",
            "€ 19.99",
            "19.99 €",
            "19.99€",
            "$19.99",
            "$ 19.99",
            "£19.99",
            "19,99 €",
            "19,99\u{a0}€",
            "+19.99 USD",
            "$+19.99",
            "+$19.99",
            " 19.99 CHF\n",
        ] {
            check(Scalar::Text(text), Ok(1_999));
        }
        for text in ["-19.99 EUR", "-$19.99", "$-19.99", "- $ 19.99", "EUR -19.99", "-€19,99"] {
            check(Scalar::Text(text), Ok(-1_999));
        }
        check(Scalar::Text("1.5e3 JPY"), Ok(150_000));
    }

    #[test]
    fn decimal_commas_and_separated_thousands_are_read() {
        let check = |text: &str, expected: i64| check(Scalar::Text(text), Ok(expected));
        check("19,99", 1_999);
        check("19,9", 1_990);
        check("-0,50", -50);
        check(",50", 50);
        check(".50", 50);
        check("5.", 500);
        check("+5", 500);
        check("007.50", 750);
        check("1234,5", 123_450);
        check("1234,567", 123_457);
        check("1,234.56", 123_456);
        check("1.234,56", 123_456);
        check("1.234,5", 123_450);
        check("1,234.", 123_400);
        check("1,234,567", 123_456_700);
        check("1.234.567", 123_456_700);
        check("1,234,567.891", 123_456_789);
        check("1.234.567,89", 123_456_789);
        check("1 234,56", 123_456);
        check("1 234.56", 123_456);
        check("1 234", 123_400);
        check("1\u{a0}234\u{a0}567,89\u{a0}€", 123_456_789);
        check("1\u{202f}234,56 EUR", 123_456);
        check("CHF 1'234'567.89", 123_456_789);
        check("1\u{2019}234", 123_400);
        check("12 345,678", 1_234_568);
    }

    #[test]
    fn one_sign_before_three_digits_is_ambiguous() {
        for text in ["1.234", "1,234", "12.345", "123,456", "-1.234", "1.234 EUR", "€1,234", "999.995", "1.000"] {
            check(Scalar::Text(text), Err(AMBIGUOUS));
        }
        check(Scalar::Number("1.234"), Ok(123));
        check(Scalar::Text("0.234"), Ok(23));
        check(Scalar::Text("1234.234"), Ok(123_423));
        check(Scalar::Text("1.234e0"), Ok(123));
    }

    #[test]
    fn what_is_no_amount_is_malformed() {
        for text in [
            "",
            " ",
            "-",
            "+",
            "€",
            "EUR",
            "free",
            "5 mln",
            "5 EURO",
            "5 XXX",
            "99¢",
            "R$ 5",
            "USD $5",
            "$5 USD",
            "--5",
            "-$-5",
            "$+-5e1",
            "5-",
            "(5.00)",
            "5 %",
            "1,",
            ".",
            ",",
            "1,23,456",
            "12,34,567.89",
            "1234,567.89",
            "1,2345.6",
            "0,123,456",
            "1.234,567.8",
            "1,234.56,7",
            "1 234'567",
            "1 23",
            "1  234",
            "1,234,5",
            "1.5.2",
            "1'2",
            "1_000",
            "0x10",
            "１",
            "1 2",
            "1 234 EUR 5",
            "NaN",
            "Infinity",
            "1e",
            "e5",
            "1,5e3",
            "true",
        ] {
            check(Scalar::Text(text), Err(MALFORMED));
        }
        check(Scalar::Number("five"), Err(MALFORMED));
        check(Scalar::Bool(true), Err(MALFORMED));
        check(Scalar::Null, Err(MALFORMED));
    }

    #[test]
    fn amounts_beyond_the_column_are_out_of_range() {
        for text in [
            "10000000000000000",
            "-10000000000000000",
            "9999999999999999.995",
            "-9999999999999999.995",
            "1e16",
            "1e400",
            "18446744073709551615",
            "100000000000000000000000000000000000000000",
        ] {
            check(Scalar::Number(text), Err(OUT_OF_RANGE));
            check(Scalar::Text(text), Err(OUT_OF_RANGE));
        }
        check(Scalar::Text("10,000,000,000,000,000 USD"), Err(OUT_OF_RANGE));
    }

    #[test]
    fn floats_are_rounded_as_numbers_are() {
        let check = |units: f64, expected: Option<i64>| assert_eq!(money_from_f64(units).ok(), expected, "{units}");
        check(178.59, Some(17_859));
        check(1.005, Some(100));
        check(2.675, Some(268));
        check(-0.0, Some(0));
        check(1e13, Some(1_000_000_000_000_000));
        check(-1e13, Some(-1_000_000_000_000_000));
        check(10_000_000_000_001.0, None);
        check(f64::NAN, None);
        check(f64::INFINITY, None);
    }
}
