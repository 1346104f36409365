//! Amounts of money in hundredths, parsed from JSON numbers.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// An amount in hundredths of the currency's unit: the `money` of `wit/types.wit`, a Delta `decimal(18,2)`.
///
/// A JSON number is rounded to the nearest hundredth. The result is exact for every number with at most two decimals,
/// because below [`Money::MAX`] an `f64` is far more precise than a hundredth. If the third decimal is a five, the
/// binary value decides: `1.005` is slightly less than 1.005 in binary, and becomes 1.00.
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

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MoneyVisitor;

        impl Visitor<'_> for MoneyVisitor {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of money, as a number")
            }

            fn visit_f64<E: Error>(self, units: f64) -> Result<Money, E> {
                let cents = (units * 100.0).round();
                if cents.is_nan() || cents.abs() > Money::MAX.cents as f64 {
                    return Err(E::invalid_value(Unexpected::Float(units), &"an amount of money up to 10^13"));
                }
                Ok(Money::from_cents(cents as i64))
            }

            fn visit_u64<E: Error>(self, units: u64) -> Result<Money, E> {
                self.visit_f64(units as f64)
            }

            fn visit_i64<E: Error>(self, units: i64) -> Result<Money, E> {
                self.visit_f64(units as f64)
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
        check("\"5.00\"", None);
        check("null", None);
    }

    #[test]
    fn every_hundredth_up_to_a_thousand_round_trips() {
        for cents in 0..100_000 {
            let money = Money::from_cents(cents);
            assert_eq!(serde_json::from_str::<Money>(&money.to_string()).ok(), Some(money));
        }
    }
}
