//! A million texts, most of them nearly valid: no function panics, and what is read is within its bounds.

use silverd_values::{Scalar, boolean, date, float, money, signed, text, timestamp, unsigned};

use super::random::Random;

const TEXTS: usize = 1_000_000;

/// Valid forms, which are changed a little.
const FORMS: [&str; 24] = [
    "2025-08-16T14:50:49.401Z",
    "2016-12-31T23:59:60Z",
    "2025-08-16 24:00:00 +02:00",
    "0001-01-01T00:00:00-23:59",
    "9999-12-31T23:59:59.999999999+23:59",
    "2025-08-16",
    "20250816T145049Z",
    "20250816",
    "Sat, 16 Aug 2025 14:50:49 +0000",
    "16 Aug 2025 14:50 GMT",
    "1755355849",
    "1755355849401",
    "20250816145049401",
    "253402300799999999999",
    "1.755355849401E12",
    "-62135596800.0000001",
    "9999999999999999.99",
    "€ 1.234,56",
    "-1'234'567.891 CHF",
    "1\u{a0}234,56\u{202f}€",
    "18446744073709551615",
    "-9223372036854775808.0e0",
    "340282366920938463463374607431768211455e-38",
    "true",
];

const LETTERS: [&str; 40] = [
    "0",
    "1",
    "2",
    "5",
    "9",
    "00",
    "999",
    "12345678",
    "-",
    "+",
    ".",
    ",",
    ":",
    " ",
    "T",
    "t",
    "Z",
    "z",
    "e",
    "E",
    "e9",
    "e-",
    "/",
    "UTC",
    "GMT",
    "EUR",
    "usd",
    "€",
    "$",
    "'",
    "\u{a0}",
    "\u{2019}",
    "é",
    "４",
    "\0",
    "\u{10ffff}",
    "Sat,",
    " Aug ",
    "\n",
    "99999999999999999999",
];

#[test]
fn no_function_panics_on_any_text() {
    let mut random = Random::new(0x5117_e4d0);
    let mut readable = 0;
    for _ in 0..TEXTS {
        let text = match random.below(3) {
            0 => changed(&mut random),
            1 => of_letters(&mut random),
            _ => of_bytes(&mut random),
        };
        for value in [Scalar::Text(&text), Scalar::Number(&text)] {
            readable += u32::from(is_readable(value));
        }
    }
    // Neither all texts nor none: the test reaches both outcomes.
    assert!((10_000..1_900_000).contains(&readable), "{readable} texts were read");
}

/// Reads the value as every type. Whether any but text can read it.
fn is_readable(value: Scalar<'_>) -> bool {
    let timestamp = timestamp(value).ok();
    let date = date(value).ok();
    let money = money(value).ok();
    let signed = signed(value, -1_000, 1_000).ok();
    let unsigned = unsigned(value, 1_000).ok();
    let float = float(value).ok();
    let boolean = boolean(value).ok();
    assert!(text(value).is_ok(), "{value:?}");
    assert!(
        timestamp.is_none_or(|micros| (-62_135_596_800_000_000..=253_402_300_799_999_999).contains(&micros)),
        "{value:?}"
    );
    assert!(date.is_none_or(|days| (-719_162..=2_932_896).contains(&days)), "{value:?}");
    assert!(money.is_none_or(|hundredths| hundredths.unsigned_abs() < 10_u64.pow(18)), "{value:?}");
    assert!(signed.is_none_or(|number| (-1_000..=1_000).contains(&number)), "{value:?}");
    assert!(unsigned.is_none_or(|number| number <= 1_000), "{value:?}");
    assert!(float.is_none_or(f64::is_finite), "{value:?}");
    // Every date is the day of a timestamp.
    if let Some(days) = date {
        assert_eq!(timestamp.map(|micros| micros.div_euclid(86_400_000_000)), Some(days.into()), "{value:?}");
    }
    let found = [timestamp.is_some(), money.is_some(), signed.is_some(), unsigned.is_some(), float.is_some()];
    found.contains(&true) || boolean.is_some()
}

/// A valid form with up to three characters replaced, removed or added.
fn changed(random: &mut Random) -> String {
    let mut letters: Vec<String> = random.one_of(&FORMS).chars().map(String::from).collect();
    for _ in 0..random.below(4) {
        let at = random.below(letters.len() as u64) as usize;
        match random.below(3) {
            0 => letters[at] = random.one_of(&LETTERS).to_owned(),
            1 if letters.len() > 1 => drop(letters.remove(at)),
            _ => letters.insert(at, random.one_of(&LETTERS).to_owned()),
        }
    }
    letters.concat()
}

fn of_letters(random: &mut Random) -> String {
    (0..random.below(12)).map(|_| random.one_of(&LETTERS)).collect()
}

fn of_bytes(random: &mut Random) -> String {
    let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
