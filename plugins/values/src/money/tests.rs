//! Forms of amounts.

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
