//! What is written is read back, and arithmetic in `i128` gives the same.

use silverd_values::{Mismatch, MismatchKind, Scalar, date, money, signed, timestamp, unsigned};

use super::format::{self, calendar_day, time_of_day};
use super::random::Random;

const MICROS_MIN: i64 = -62_135_596_800_000_000;
const MICROS_MAX: i64 = 253_402_300_799_999_999;
const MICROS_PER_DAY: i64 = 86_400_000_000;
const HUNDREDTHS_MAX: i128 = 10_i128.pow(18) - 1;

/// Random numbers of every magnitude up to `max`, with either sign.
fn of_any_magnitude(random: &mut Random, max: i64) -> i64 {
    let magnitude = random.between(0, max) >> random.below(63);
    if random.below(2) == 0 { magnitude } else { -magnitude }
}

#[test]
fn every_instant_is_read_back_from_every_form() {
    let mut random = Random::new(1);
    let bounds = [MICROS_MIN, MICROS_MIN + 1, -1, 0, 1, MICROS_MAX - 1, MICROS_MAX];
    let instants = (0..200_000).map(|_| random.between(MICROS_MIN, MICROS_MAX));
    let instants: Vec<i64> = bounds.into_iter().chain(instants).collect();
    for micros in instants {
        let check = |text: &str, expected: i64| assert_eq!(timestamp(Scalar::Text(text)), Ok(expected), "{text}");
        let utc = format::timestamp(micros);
        check(&utc, micros);
        check(&utc.replace('T', " ").replace('Z', " UTC"), micros);
        let day = micros.div_euclid(MICROS_PER_DAY);
        assert_eq!(date(Scalar::Text(&utc)), Ok(day as i32), "{utc}");
        assert_eq!(date(Scalar::Text(&format::date(day))), Ok(day as i32), "{utc}");

        let offset = random.between(-1_439, 1_439);
        let local = micros + offset * 60_000_000;
        let (hour, minute, second, fraction) = time_of_day(local);
        let (year, month, dom) = calendar_day(local.div_euclid(MICROS_PER_DAY));
        if !(1..=9999).contains(&year) {
            continue;
        }
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        check(
            &format!(
                "{year:04}-{month:02}-{dom:02}T{hour:02}:{minute:02}:{second:02},{fraction:06}{sign}{hours:02}:{minutes:02}"
            ),
            micros,
        );
        check(
            &format!(
                "{year:04}{month:02}{dom:02}T{hour:02}{minute:02}{second:02}.{fraction:06} {sign}{hours:02}{minutes:02}"
            ),
            micros,
        );
        let month =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1];
        let weekday =
            ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][local.div_euclid(MICROS_PER_DAY).rem_euclid(7) as usize];
        check(
            &format!(
                "{weekday}, {dom:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} {sign}{hours:02}{minutes:02}"
            ),
            micros - fraction,
        );
    }
}

#[test]
fn every_number_since_1970_is_read_back() {
    let mut random = Random::new(2);
    for _ in 0..200_000 {
        let micros = of_any_magnitude(&mut random, MICROS_MAX).max(MICROS_MIN);
        let check = |number: &str, expected: i64| {
            for value in [Scalar::Number(number), Scalar::Text(number)] {
                match timestamp(value) {
                    Ok(found) => assert_eq!(found, expected, "{value:?}"),
                    Err(mismatch) => assert!(may_be_calendar(number), "{value:?}: {mismatch:?}"),
                }
            }
        };
        let sign = if micros < 0 { "-" } else { "" };
        let magnitude = i128::from(micros).unsigned_abs();
        if magnitude < 10_u128.pow(17) {
            check(&format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000), micros);
            check(&format!("{sign}{magnitude}e-6"), micros);
        }
        if (10_u128.pow(14)..10_u128.pow(17)).contains(&magnitude) {
            check(&format!("{sign}{}.{:03}", magnitude / 1_000, magnitude % 1_000), micros);
            check(&format!("{sign}{magnitude}"), micros);
        }
        if magnitude >= 10_u128.pow(14) {
            check(&format!("{sign}{}", magnitude * 1_000), micros);
            check(&format!("{sign}{magnitude}E3"), micros);
            let nanos = magnitude * 1_000 + u128::from(random.below(1_000));
            let expected = if micros < 0 && nanos % 1_000 > 0 { micros - 1 } else { micros };
            if expected >= MICROS_MIN {
                check(&format!("{sign}{nanos}"), expected);
            }
        }
    }
}

/// Whether the whole part has a number of digits that a calendar's year, month, day or time has, and begins like a year.
fn may_be_calendar(number: &str) -> bool {
    let digits = number.split(['.', 'e', 'E']).next().unwrap_or_default();
    let exponent_moves_it = number.contains(['e', 'E']);
    (digits.starts_with("19") || digits.starts_with("20"))
        && (exponent_moves_it || matches!(digits.len(), 4 | 6 | 8 | 12 | 14 | 17))
}

#[test]
fn integers_around_every_bound_are_exact() {
    let ranges = [
        (i8::MIN.into(), i8::MAX.into()),
        (i16::MIN.into(), i16::MAX.into()),
        (i32::MIN.into(), i32::MAX.into()),
        (i64::MIN, i64::MAX),
        (0, 0),
        (-7, 99),
    ];
    let maxima = [u8::MAX.into(), u16::MAX.into(), u32::MAX.into(), u64::MAX, 0, 99];
    let bounds = ranges.iter().flat_map(|(min, max)| [i128::from(*min), i128::from(*max)]);
    let bounds: Vec<i128> = bounds.chain(maxima.map(i128::from)).collect();
    for number in bounds.iter().flat_map(|bound| (-300..=300).map(move |delta| bound + delta)) {
        for text in [format!("{number}"), format!("{number}.00"), format!("{number}0e-1"), format!("{number}00.0E-2")] {
            for value in [Scalar::Number(&text), Scalar::Text(&text)] {
                for (min, max) in ranges {
                    let expected = i64::try_from(number).ok().filter(|number| (min..=max).contains(number));
                    let found = signed(value, min, max);
                    assert_eq!(found.clone().ok(), expected, "{value:?} from {min} to {max}");
                    assert!(found.is_ok() || is_out_of_range(&found), "{value:?} from {min} to {max}");
                }
                for max in maxima {
                    let expected = u64::try_from(number).ok().filter(|number| *number <= max);
                    let found = unsigned(value, max);
                    assert_eq!(found.clone().ok(), expected, "{value:?} up to {max}");
                    assert!(found.is_ok() || is_out_of_range(&found), "{value:?} up to {max}");
                }
            }
        }
    }
}

#[test]
fn amounts_are_read_back_from_every_form() {
    let mut random = Random::new(3);
    let bounds = [HUNDREDTHS_MAX, HUNDREDTHS_MAX - 1, HUNDREDTHS_MAX + 1, 10_i128.pow(15), 0, 1, 99, 100];
    let amounts = (0..200_000).map(|_| i128::from(of_any_magnitude(&mut random, 2_000_000_000_000_000_000)));
    let amounts: Vec<i128> = bounds.into_iter().flat_map(|bound| [bound, -bound]).chain(amounts).collect();
    for amount in amounts {
        let check = |value: Scalar<'_>| {
            let found = money(value);
            let expected = i64::try_from(amount).ok().filter(|_| amount.abs() <= HUNDREDTHS_MAX);
            assert_eq!(found.clone().ok(), expected, "{value:?}");
            assert!(found.is_ok() || is_out_of_range(&found), "{value:?}");
        };
        let text = format::money(amount);
        let (sign, magnitude) = text.strip_prefix('-').map_or(("", &*text), |magnitude| ("-", magnitude));
        let (units, decimals) = magnitude.split_once('.').expect("a dot");
        check(Scalar::Number(&text));
        check(Scalar::Text(&text));
        check(Scalar::Number(&format!("{text}00")));
        check(Scalar::Text(&format!("{text}00")));
        check(Scalar::Number(&format!("{amount}e-2")));
        check(Scalar::Text(&format!("{sign}{units},{decimals}")));
        check(Scalar::Text(&format!("{sign}€ {magnitude}")));
        check(Scalar::Text(&format!("{text} usd")));
        for (separator, decimal_sign) in
            [(",", "."), (".", ","), (" ", ","), ("'", "."), ("\u{a0}", ","), ("\u{2019}", ".")]
        {
            check(Scalar::Text(&format!("{sign}{}{decimal_sign}{decimals} EUR", grouped(units, separator))));
        }
    }
}

/// The digits in groups of three.
fn grouped(digits: &str, separator: &str) -> String {
    let first = digits.len() % 3;
    let (first, rest) = digits.split_at(if first == 0 { 3.min(digits.len()) } else { first });
    let groups = (0..rest.len()).step_by(3).map(|at| &rest[at..at + 3]);
    std::iter::once(first).chain(groups).collect::<Vec<_>>().join(separator)
}

#[test]
fn more_than_two_decimals_are_rounded() {
    let mut random = Random::new(4);
    for _ in 0..300_000 {
        let decimals = 4 + random.below(6) as usize;
        let unit = 10_i128.pow(decimals as u32 - 2);
        // Halves are as frequent as all other remainders.
        let rest = if random.below(2) == 0 { unit / 2 } else { i128::from(random.next()) % unit };
        let hundredths = i128::from(random.between(0, 1_000_000_000) >> random.below(30));
        let digits = (hundredths * unit + rest).to_string();
        let digits = format!("{digits:0>width$}", width = decimals + 1);
        let (integer, fraction) = digits.split_at(digits.len() - decimals);
        for sign in ["", "-"] {
            let text = format!("{sign}{integer}.{fraction}");
            let away_from_zero = hundredths + i128::from(rest * 2 >= unit);
            let expected = if sign.is_empty() { away_from_zero } else { -away_from_zero };
            assert_eq!(money(Scalar::Text(&text)).map(i128::from), Ok(expected), "{text:?}");
            // The rule of numbers.
            let binary = (text.parse::<f64>().expect("a number") * 100.0).round();
            assert_eq!(money(Scalar::Number(&text)), Ok(binary as i64), "{text}");
        }
    }
}

fn is_out_of_range<T>(result: &Result<T, Mismatch>) -> bool {
    matches!(result, Err(Mismatch { kind: MismatchKind::OutOfRange, .. }))
}
