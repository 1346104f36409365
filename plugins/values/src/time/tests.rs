//! Forms of timestamps and dates.

use super::calendar::{MICROS_MAX, MICROS_MIN};
use super::*;
use crate::MismatchKind::{Malformed, OutOfRange};

/// 2025-08-16T14:50:49Z
const SECONDS: i64 = 1_755_355_849;
const MICROS: i64 = SECONDS * 1_000_000;

#[track_caller]
fn check(value: Scalar<'_>, expected: Result<i64, MismatchKind>) {
    assert_eq!(timestamp(value).map_err(|mismatch| mismatch.kind), expected, "{value:?}");
}

#[track_caller]
fn check_text(text: &str, expected: i64) {
    check(Scalar::Text(text), Ok(expected));
}

#[track_caller]
fn check_date(value: Scalar<'_>, expected: Result<i32, MismatchKind>) {
    assert_eq!(date(value).map_err(|mismatch| mismatch.kind), expected, "{value:?}");
}

#[test]
fn iso_8601_is_read_with_and_without_an_offset() {
    check_text("1970-01-01T00:00:00Z", 0);
    check_text("1969-12-31T23:59:59.999999Z", -1);
    check_text("2025-08-16T14:50:49.401333", MICROS + 401_333);
    check_text("2025-08-16T14:50:49.401Z", MICROS + 401_000);
    check_text("2025-08-16T14:50:49.401333Z", MICROS + 401_333);
    check_text("2025-08-16 14:50:49,401333z", MICROS + 401_333);
    check_text("2025-08-16t16:50:49.401333+02:00", MICROS + 401_333);
    check_text("2025-08-16T16:50:49.401333+0200", MICROS + 401_333);
    check_text("2025-08-16T09:20:49.401333-05:30", MICROS + 401_333);
    check_text("2025-08-16T16:50:49.4013339999+02", MICROS + 401_333);
    check_text("2025-08-16T14:50:49.4", MICROS + 400_000);
    check_text("2025-08-16T14:50:49.000000000000000000000000000001Z", MICROS);
    check_text("2025-08-16T14:50:49", MICROS);
    check_text("2025-08-16T14:50", MICROS - 49_000_000);
    check_text("2025-08-16T14:50Z", MICROS - 49_000_000);
    check_text("2025-08-16T14:50-00:00", MICROS - 49_000_000);
    check_text("2024-02-29T00:00:00Z", 1_709_164_800_000_000);
    check_text("2000-02-29T00:00:00Z", 951_782_400_000_000);
    check_text("0001-01-01T00:00:00Z", MICROS_MIN);
    check_text("9999-12-31T23:59:59.999999Z", MICROS_MAX);
}

#[test]
fn every_character_of_iso_8601_is_checked() {
    let form = "2025-08-16T14:50:49Z";
    for (at, expected) in form.bytes().enumerate().take(19) {
        for other in 0..128_u8 {
            let allowed = match expected {
                b'0'..=b'9' => other.is_ascii_digit(),
                b'T' => matches!(other, b'T' | b't' | b' '),
                sign => other == sign,
            };
            let mut text = form.as_bytes().to_vec();
            text[at] = other;
            let text = String::from_utf8(text).expect("ASCII");
            let is_read = timestamp(Scalar::Text(&text)).is_ok();
            assert!(allowed || !is_read, "{text:?}");
            // Not every digit gives a day or a time.
            assert!(is_read || !allowed || expected.is_ascii_digit(), "{text:?}");
        }
    }
}

#[test]
fn names_of_utc_and_a_space_before_the_zone_are_read() {
    check_text("2019-10-01 00:00:00 UTC", 1_569_888_000_000_000);
    for zone in ["UTC", " UTC", " GMT", "GMT", " Z", " z", " utc", " UT", " +00:00", " -0000", " +00", ""] {
        check_text(&format!("2025-08-16 14:50:49{zone}"), MICROS);
        check_text(&format!("2025-08-16 14:50{zone}"), MICROS - 49_000_000);
    }
    check_text("2025-08-16 16:50:49.401 +02:00", MICROS + 401_000);
    check_text("2025-08-16 16:50:49 +0200", MICROS);
    check_text(" \t2025-08-16T14:50:49Z\r\n", MICROS);
    check_text("\u{a0}2025-08-16T14:50:49Z", MICROS);
}

#[test]
fn a_day_alone_is_its_midnight_in_utc() {
    check_text("2025-08-16", 1_755_302_400_000_000);
    check_text("20250816", 1_755_302_400_000_000);
    check_text("0001-01-01", MICROS_MIN);
    check_text("1970-01-01", 0);
}

#[test]
fn the_basic_form_is_read() {
    check_text("20250816T145049Z", MICROS);
    check_text("20250816T145049", MICROS);
    check_text("20250816t145049.401z", MICROS + 401_000);
    check_text("20250816 165049,5 +0200", MICROS + 500_000);
    check_text("20250816T1650+02:00", MICROS - 49_000_000);
    check_text("20250816T1450", MICROS - 49_000_000);
    check_text("20250816T1450 UTC", MICROS - 49_000_000);
}

#[test]
fn rfc_2822_is_read() {
    check_text("Sat, 16 Aug 2025 14:50:49 +0000", MICROS);
    check_text("Sat, 16 Aug 2025 14:50:49 GMT", MICROS);
    check_text("sat,16 AUG 2025  16:50:49  +0200", MICROS);
    check_text("16 Aug 2025 14:50 UT", MICROS - 49_000_000);
    check_text("Fri, 1 Aug 2025 00:00:00 Z", 1_754_006_400_000_000);
    check_text("Fri, 01 Aug 2025 00:00:00 -0000", 1_754_006_400_000_000);
    check_text("Wed, 31 Dec 1969 23:59:59 +0000", -1_000_000);
    for text in [
        "Sun, 16 Aug 2025 14:50:49 +0000",
        "Sat 16 Aug 2025 14:50:49 +0000",
        "Sat, 16 Aug 25 14:50:49 +0000",
        "Sat, 16 Aug 2025 14:50:49",
        "Sat, 16 Aug 2025 14:50:49 EST",
        "Sat, 16 August 2025 14:50:49 +0000",
        "Sat, 31 Apr 2025 14:50:49 +0000",
        "Sat, 16 Aug 2025",
        "Sat, 16 Aug 2025 14:50:49.5 +0000",
        "Saturday, 16-Aug-25 14:50:49 GMT",
        "Sat Aug 16 14:50:49 2025",
        "Sat,",
        "16 Aug",
    ] {
        check(Scalar::Text(text), Err(Malformed));
    }
    check(Scalar::Text("Sat, 01 Jan 0000 00:00:00 +0000"), Err(OutOfRange));
}

#[test]
fn the_end_of_the_day_is_the_next_midnight() {
    check_text("2025-08-16T24:00:00Z", 1_755_388_800_000_000);
    check_text("2025-08-16T24:00", 1_755_388_800_000_000);
    check_text("20250816T240000.000Z", 1_755_388_800_000_000);
    check_text("2025-08-16T24:00:00+02:00", 1_755_381_600_000_000);
    for text in ["2025-08-16T24:00:01Z", "2025-08-16T24:01:00Z", "2025-08-16T24:00:00.1Z", "2025-08-16T25:00:00Z"] {
        check(Scalar::Text(text), Err(Malformed));
    }
    check(Scalar::Text("9999-12-31T24:00:00Z"), Err(OutOfRange));
}

#[test]
fn a_leap_second_counts_as_the_second_after_it() {
    let new_year = 1_483_228_800_000_000;
    check_text("2017-01-01T00:00:00Z", new_year);
    check_text("2016-12-31T23:59:60Z", new_year);
    check_text("2016-12-31T23:59:60.5Z", new_year + 500_000);
    check_text("20161231T235960Z", new_year);
    check_text("2017-01-01T01:59:60+02:00", new_year);
    check_text("2017-01-01T05:29:60+05:30", new_year);
    check_text("2016-12-31T18:59:60-05:00", new_year);
    check_text("Sat, 31 Dec 2016 23:59:60 GMT", new_year);
    for text in [
        "2025-08-16T14:50:60Z",
        "2016-12-31T23:58:60Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31T23:59:61Z",
        "2016-12-31T24:00:60Z",
    ] {
        check(Scalar::Text(text), Err(Malformed));
    }
}

#[test]
fn units_since_1970_are_distinguished_by_magnitude() {
    let check = |number: &str, expected: i64| {
        check(Scalar::Number(number), Ok(expected));
        check(Scalar::Text(number), Ok(expected));
    };
    check("0", 0);
    check("-0", 0);
    check("1", 1_000_000);
    check("-1", -1_000_000);
    check("1755355849", MICROS);
    check("1755355849401", MICROS + 401_000);
    check("1755355849401333", MICROS + 401_333);
    check("1755355849401333999", MICROS + 401_333);
    check("99999999999", 99_999_999_999_000_000);
    check("100000000000", 100_000_000_000_000);
    check("99999999999999", 99_999_999_999_999_000);
    check("100000000000000", 100_000_000_000_000);
    check("99999999999999999", 99_999_999_999_999_999);
    check("100000000000000000", 100_000_000_000_000);
    check("-62135596800", MICROS_MIN);
    check("-62135596800000", MICROS_MIN);
    check("-62135596800000000", MICROS_MIN);
    check("-62135596800000000000", MICROS_MIN);
    check("253402300799999", MICROS_MIN.max(253_402_300_799_999));
    check("253402300799999999999", MICROS_MAX);
}

#[test]
fn fractions_and_exponents_since_1970_are_exact() {
    let check = |number: &str, expected: i64| {
        check(Scalar::Number(number), Ok(expected));
        check(Scalar::Text(number), Ok(expected));
    };
    check("1755355849.401", MICROS + 401_000);
    check("1755355849.4013339999", MICROS + 401_333);
    check("1755355849401.333", MICROS + 401_333);
    check("1755355849401333.9", MICROS + 401_333);
    check("1755355849401333999.9", MICROS + 401_333);
    check("1.755355849401E12", MICROS + 401_000);
    check("1.755355849401333E9", MICROS + 401_333);
    check("1755355849401e-3", MICROS + 401_000);
    check("1e9", 1_000_000_000_000_000);
    // The microsecond in which the instant is, as for text.
    check("-0.0000005", -1);
    check("-0.000001", -1);
    check("-1.5", -1_500_000);
    check("-100000000000000001", -100_000_000_000_001);
    check("0.0000005", 0);
    check("1e-999", 0);
    check("-1e-999", -1);
}

#[test]
fn instants_outside_of_the_years_are_out_of_range() {
    for text in [
        "0000-01-01T00:00:00Z",
        "0000-12-31",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "00000101",
        "-62135596801",
        "-62135596800.0000001",
        "-62135596800001",
        "-62135596800000000001",
        "253402300800000000000",
        "1e21",
        "-1e400",
    ] {
        check(Scalar::Text(text), Err(OutOfRange));
    }
    check(Scalar::Number("9223372036854775808000"), Err(OutOfRange));
    check(Scalar::Number("1e99999999999"), Err(OutOfRange));
}

#[test]
fn text_that_is_no_timestamp_is_malformed() {
    for text in [
        "",
        " ",
        "today",
        "2025-08-16T",
        "2025-08-16T14",
        "2025-08-16Z",
        "2025-08-16+02:00",
        "2025-00-16T14:50:49Z",
        "2025-13-16T14:50:49Z",
        "2025-08-00T14:50:49Z",
        "2025-08-32T14:50:49Z",
        "2025-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2025-04-31T00:00:00Z",
        "0000-00-00 00:00:00",
        "2025-08-16T14:60:49Z",
        "2025-08-16T14:50:49.Z",
        "2025-08-16T14:50:49+24:00",
        "2025-08-16T14:50:49+02:60",
        "2025-08-16T14:50:49+2",
        "2025-08-16T14:50:49+02:",
        "2025-08-16T14:50:49Zulu",
        "2025-08-16T14:50:49  Z",
        "2025-08-16T14:50:49 +",
        "2025-08-16T14:50:49 CET",
        "2025-08-16T14:50:49 EST",
        "2025-08-16T14:50:49 GMT+2",
        "2025-08-16T14:50:49[Europe/Paris]",
        "2025-08-16T14:50:4",
        "2025-08-16T14:50:",
        "2025-08-16T14:50.5",
        "2025-08-16T145049Z",
        "2025-08-16  14:50:49",
        "2025-08-16_14:50:49",
        "+2025-08-16T14:50:49Z",
        "2025-8-16T14:50:49Z",
        "2025-08-16T1４:50:49Z",
        "12025-08-16T14:50:49Z",
        "2025/08/16 14:50:49",
        "16.08.2025",
        "08/16/2025",
        "2025-W33-6",
        "2025-228",
        "20250816T14",
        "20250816T14504",
        "20250816T145049.",
        "20250816T14:50:49Z",
        "20250832",
        "1,755,355,849",
        "1755355849s",
        "NaN",
    ] {
        check(Scalar::Text(text), Err(Malformed));
    }
    check(Scalar::Null, Err(Malformed));
    check(Scalar::Bool(true), Err(Malformed));
}

#[test]
fn whole_numbers_that_read_as_a_day_are_ambiguous() {
    let ambiguous = [
        "1900",
        "2025",
        "2099",
        "202508",
        "202508161450",
        "20250816145049",
        "20250816145049401",
        "2.025e3",
        "2025.0",
        "202508161450.0",
    ];
    for number in ambiguous {
        check(Scalar::Number(number), Err(Malformed));
        check(Scalar::Text(number), Err(Malformed));
    }
    check(Scalar::Number("20250816"), Err(Malformed));
    for (number, expected) in [
        ("1899", 1_899_000_000),
        ("2100", 2_100_000_000),
        ("-2025", -2_025_000_000),
        ("2025.5", 2_025_500_000),
        ("202513", 202_513_000_000),
        ("202508322450", 202_508_322_450_000),
        ("202508162450", 202_508_162_450_000),
        ("202508161460", 202_508_161_460_000),
        ("20250816145060", 20_250_816_145_060_000),
        ("20250832145049401", 20_250_832_145_049_401),
        // Ten digits are today's seconds.
        ("2025081614", 2_025_081_614_000_000),
    ] {
        check(Scalar::Number(number), Ok(expected));
        check(Scalar::Text(number), Ok(expected));
    }
    check(Scalar::Number("20250832"), Ok(20_250_832_000_000));
}

#[test]
fn dates_are_read_from_days_and_from_timestamps() {
    let check = |value: Scalar<'_>, expected: i32| check_date(value, Ok(expected));
    check(Scalar::Text("1970-01-01"), 0);
    check(Scalar::Text("1969-12-31"), -1);
    check(Scalar::Text(" 2025-08-16 "), 20_316);
    check(Scalar::Text("20250816"), 20_316);
    check(Scalar::Text("0001-01-01"), -719_162);
    check(Scalar::Text("9999-12-31"), 2_932_896);
    check(Scalar::Text("2025-08-16T23:59:59.999999Z"), 20_316);
    check(Scalar::Text("2025-08-16T24:00:00Z"), 20_317);
    check(Scalar::Text("2025-08-17T00:30:00+02:00"), 20_316);
    check(Scalar::Text("Sat, 16 Aug 2025 23:30:00 -0100"), 20_317);
    check(Scalar::Text("1755355849"), 20_316);
    check(Scalar::Number("1755355849401"), 20_316);
    check(Scalar::Number("1755355849.401"), 20_316);
    check(Scalar::Number("-100000000.5"), -1_158);
    check(Scalar::Number("100000000"), 1_157);
}

#[test]
fn numbers_that_may_be_days_are_no_dates() {
    for number in ["0", "20316", "99999999", "-99999999", "20316.5", "20250816", "2e4", "20250816145049", "2025"] {
        check_date(Scalar::Number(number), Err(Malformed));
    }
    for text in ["", "2025", "202508", "20316", "20250832", "2025-02-30", "today", "16.08.2025"] {
        check_date(Scalar::Text(text), Err(Malformed));
    }
    check_date(Scalar::Null, Err(Malformed));
    check_date(Scalar::Bool(false), Err(Malformed));
    check_date(Scalar::Text("0000-12-31"), Err(OutOfRange));
    check_date(Scalar::Text("9999-12-31T24:00:00Z"), Err(OutOfRange));
    check_date(Scalar::Number("1e30"), Err(OutOfRange));
}

#[test]
fn mismatches_say_what_was_expected() {
    let check = |found: Mismatch, expected: &str| assert_eq!(found.expected, expected);
    let today = Scalar::Text("today");
    check(timestamp(today).unwrap_err(), "a timestamp such as 2025-08-16T14:50:49.401Z or 1755355849401");
    check(date(today).unwrap_err(), "a date such as 2025-08-16");
    let year_0 = Scalar::Text("0000-01-01");
    check(timestamp(year_0).unwrap_err(), "a timestamp of the years 0001 to 9999");
    check(date(year_0).unwrap_err(), "a date of the years 0001 to 9999");
}
