//! Amounts of money in hundredths, parsed from JSON numbers and text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use silverd_values::{MismatchKind, Scalar};

/// An amount in hundredths of the currency's unit: the `money` of `wit/types.wit`, a Delta `decimal(18,2)`.
///
/// A JSON number is rounded to the nearest hundredth. The result is exact for every number with at most two decimals,
/// because below [`Money::MAX`] an `f64` is far more precise than a hundredth. If the third decimal is a five, the
/// binary value decides: `1.005` is slightly less than 1.005 in binary, and becomes 1.00.
///
/// Text may have a currency, a decimal comma and separated thousands: see [`silverd_values::money`]. Blank text is not an
/// amount, also for an `Option<Money>`.
///
/// ```
/// use silverd_plugin::{Money, testing};
///
/// let price: Money = testing::event("178.59").json()?;
/// assert_eq!(price.cents(), 17_859);
/// assert_eq!(price.to_string(), "178.59");
/// # Ok::<(), silverd_plugin::Reject>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money {
    cents: i64,
}

impl Money {
    /// The largest amount that is accepted, 10^13; `-MAX` is the smallest.
    pub const MAX: Money = Money { cents: 1_000_000_000_000_000 };

    /// An amount of `cents` hundredths.
    pub const fn from_cents(cents: i64) -> Self {
        Self { cents }
    }

    /// The amount in hundredths; a row's field of type `money` takes this number.
    pub const fn cents(self) -> i64 {
        self.cents
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.cents < 0 { "-" } else { "" };
        let cents = self.cents.unsigned_abs();
        write!(f, "{sign}{}.{:02}", cents / 100, cents % 100)
    }
}

const AMOUNT: &str = "an amount of money, as a number or as text";
const UP_TO_MAX: &str = "an amount of money up to 10^13";

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MoneyVisitor;

        impl Visitor<'_> for MoneyVisitor {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(AMOUNT)
            }

            fn visit_f64<E: Error>(self, units: f64) -> Result<Money, E> {
                let cents = silverd_values::money_from_f64(units);
                cents.map(Money::from_cents).map_err(|_| E::invalid_value(Unexpected::Float(units), &UP_TO_MAX))
            }

            fn visit_u64<E: Error>(self, units: u64) -> Result<Money, E> {
                self.visit_f64(units as f64)
            }

            fn visit_i64<E: Error>(self, units: i64) -> Result<Money, E> {
                self.visit_f64(units as f64)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Money, E> {
                match silverd_values::money(Scalar::Text(text)).map(Money::from_cents) {
                    Ok(money) if (-Money::MAX.cents..=Money::MAX.cents).contains(&money.cents) => Ok(money),
                    Err(mismatch) if mismatch.kind == MismatchKind::Malformed => {
                        Err(E::invalid_type(Unexpected::Str(text), &mismatch.expected))
                    }
                    _ => Err(E::invalid_value(Unexpected::Str(text), &UP_TO_MAX)),
                }
            }
        }

        deserializer.deserialize_any(MoneyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_hundredths() {
        let check = |json: &str, expected: Option<&str>| {
            let found = serde_json::from_str::<Money>(json).ok().map(|money| money.to_string());
            assert_eq!(found.as_deref(), expected, "{json}");
        };
        check("178.59", Some("178.59"));
        check("0.07", Some("0.07"));
        check("1.1", Some("1.10"));
        check("5", Some("5.00"));
        check("-5.25", Some("-5.25"));
        check("1.005", Some("1.00"));
        check("1.255", Some("1.25"));
        check("1e2", Some("100.00"));
        check("9999999999999.99", Some("9999999999999.99"));
        check("10000000000000", Some("10000000000000.00"));
        check("10000000000001", None);
        check("-1e300", None);
        check("18446744073709551615", None);
        check("null", None);
        check("true", None);
    }

    #[test]
    fn text_is_read_as_an_amount() {
        let check = |json: &str, expected: Result<&str, &str>| {
            let found = serde_json::from_str::<Money>(json).map(|money| money.to_string());
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{json}");
        };
        check(r#""5.00""#, Ok("5.00"));
        check(r#"" 19,99 \u20ac ""#, Ok("19.99"));
        check(r#""1,234.56""#, Ok("1234.56"));
        check(r#""10000000000000""#, Ok("10000000000000.00"));
        check(r#""free""#, Err(r#"invalid type: string "free", expected an amount such as 19.99 at line 1 column 6"#));
        check(
            r#""10000000000000.01""#,
            Err(
                r#"invalid value: string "10000000000000.01", expected an amount of money up to 10^13 at line 1 column 19"#,
            ),
        );
        check(r#""""#, Err(r#"invalid type: string "", expected an amount such as 19.99 at line 1 column 2"#));
    }

    /// The daemon reads the number's own text.
    #[test]
    fn a_number_gives_the_amount_that_its_text_gives() {
        for thousandths in (0..2_000_000_u64).chain((999_000_000_000_000..999_000_001_000_000).step_by(7)) {
            for sign in ["", "-"] {
                let json = format!("{sign}{}.{:03}", thousandths / 1_000, thousandths % 1_000);
                let of_text = silverd_values::money(Scalar::Number(&json)).ok();
                assert_eq!(serde_json::from_str::<Money>(&json).ok().map(Money::cents), of_text, "{json}");
            }
        }
    }

    #[test]
    fn every_hundredth_up_to_a_thousand_round_trips() {
        for cents in 0..100_000 {
            let money = Money::from_cents(cents);
            assert_eq!(serde_json::from_str::<Money>(&money.to_string()).ok(), Some(money));
        }
    }
}
