//! Decimal numbers of any length, without floating point.

/// More digits of a number than any type needs.
const DIGITS_MAX: u32 = 38;

/// The powers of ten that a `u64` has.
const POWERS_OF_TEN: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < 20 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// A decimal number: `mantissa · 10^exponent`, and perhaps digits behind those of the mantissa.
#[derive(Debug, PartialEq)]
pub(crate) struct Decimal {
    pub(crate) negative: bool,
    /// The first 38 digits that count.
    mantissa: u128,
    exponent: i64,
    /// Whether one of the digits that the mantissa has no room for is not zero.
    has_tail: bool,
}

/// What remains of a number behind a digit, as a part of one unit of that digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Remainder {
    Zero,
    BelowHalf,
    Half,
    AboveHalf,
}

impl Decimal {
    /// Parses digits with an optional sign, dot and exponent: JSON's numbers, and `+7`, `007`, `.5` and `7.`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (negative, text) = split_sign(text);
        let mut number = Self::zero(negative);
        let (mut has_digits, mut in_fraction) = (false, false);
        for (at, byte) in text.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    number.push(byte - b'0', in_fraction);
                    has_digits = true;
                }
                b'.' if !in_fraction => in_fraction = true,
                b'e' | b'E' => {
                    number.exponent += parse_exponent(&text[at + 1..])?;
                    break;
                }
                _ => return None,
            }
        }
        has_digits.then_some(number)
    }

    /// The number with these digits before and after the decimal sign. What separates groups of them does not count.
    pub(crate) fn from_digits(negative: bool, integer: &[u8], fraction: &[u8]) -> Self {
        let mut number = Self::zero(negative);
        for (text, in_fraction) in [(integer, false), (fraction, true)] {
            let digits = text.iter().filter(|byte| byte.is_ascii_digit());
            digits.for_each(|byte| number.push(byte - b'0', in_fraction));
        }
        number
    }

    fn zero(negative: bool) -> Self {
        Self { negative, mantissa: 0, exponent: 0, has_tail: false }
    }

    #[inline]
    fn push(&mut self, digit: u8, in_fraction: bool) {
        const FULL: u128 = 10_u128.pow(DIGITS_MAX - 1);
        if self.mantissa < FULL {
            self.mantissa = self.mantissa * 10 + u128::from(digit);
            self.exponent -= i64::from(in_fraction);
        } else {
            self.has_tail |= digit != 0;
            self.exponent += i64::from(!in_fraction);
        }
    }

    /// The magnitude in units of `10^-decimals`, without what remains behind them. `None` if it does not fit.
    pub(crate) fn scaled(&self, decimals: i64) -> Option<(u128, Remainder)> {
        let exponent = self.exponent.saturating_add(decimals);
        if self.mantissa == 0 {
            return Some((0, Remainder::Zero));
        }
        let power = u32::try_from(exponent.unsigned_abs()).ok().filter(|power| *power <= DIGITS_MAX);
        if exponent >= 0 {
            // Digits in the tail would be a part of the units, of which there are more than 10^37 then.
            let scaled = self.mantissa.checked_mul(power_of_ten(power?)).filter(|_| !self.has_tail)?;
            return Some((scaled, Remainder::Zero));
        }
        // The mantissa has at most 38 digits.
        let Some(power) = power else { return Some((0, Remainder::BelowHalf)) };
        let unit = power_of_ten(power);
        let (units, rest) = match (u64::try_from(self.mantissa), u64::try_from(unit)) {
            (Ok(mantissa), Ok(unit)) => (u128::from(mantissa / unit), u128::from(mantissa % unit)),
            _ => (self.mantissa / unit, self.mantissa % unit),
        };
        let remainder = match ((rest * 2).cmp(&unit), self.has_tail) {
            (std::cmp::Ordering::Greater, _) | (std::cmp::Ordering::Equal, true) => Remainder::AboveHalf,
            (std::cmp::Ordering::Equal, false) => Remainder::Half,
            (std::cmp::Ordering::Less, tail) if rest == 0 && !tail => Remainder::Zero,
            (std::cmp::Ordering::Less, _) => Remainder::BelowHalf,
        };
        Some((units, remainder))
    }
}

/// At most 10^38.
fn power_of_ten(power: u32) -> u128 {
    POWERS_OF_TEN.get(power as usize).map_or_else(|| 10_u128.pow(power), |power| u128::from(*power))
}

/// The sign, which may be absent, and the rest. `true` is minus.
#[inline]
pub(crate) fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// The number that these digits write. `None` if there are none, more than 19, or another character.
#[inline]
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut number = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    Some(number)
}

/// The exponent, cut to what no text can make up for by its length.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    const EXPONENT_MAX: i64 = 1 << 60;
    let (negative, text) = split_sign(text);
    if text.is_empty() {
        return None;
    }
    let mut exponent: i64 = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        exponent = exponent.saturating_mul(10).saturating_add(i64::from(digit)).min(EXPONENT_MAX);
    }
    Some(if negative { -exponent } else { exponent })
}

#[cfg(test)]
mod tests {
    use super::Remainder::{AboveHalf, BelowHalf, Half, Zero};
    use super::*;

    #[test]
    fn numbers_are_scaled_exactly() {
        let check = |text: &str, decimals: i64, expected: Option<(u128, Remainder)>| {
            let number = Decimal::parse(text.as_bytes()).expect("a number");
            assert_eq!(number.scaled(decimals), expected, "{text} · 10^{decimals}");
        };
        check("7", 0, Some((7, Zero)));
        check("-7", 2, Some((700, Zero)));
        check("+007.", 0, Some((7, Zero)));
        check(".5", 0, Some((0, Half)));
        check("1.005", 2, Some((100, Half)));
        check("1.0050", 2, Some((100, Half)));
        check("1.00500000000000000000000000000000000000000000", 2, Some((100, Half)));
        check("1.00500000000000000000000000000000000000000001", 2, Some((100, AboveHalf)));
        check("1.00499999999999999999999999999999999999999999", 2, Some((100, BelowHalf)));
        check("1.00000000000000000000000000000000000000000001", 2, Some((100, BelowHalf)));
        check("1.755355849401E12", 0, Some((1_755_355_849_401, Zero)));
        check("1755355849401e-3", 6, Some((1_755_355_849_401_000, Zero)));
        check("0e99999999999999999999", 6, Some((0, Zero)));
        check("1e-99999999999999999999", 6, Some((0, BelowHalf)));
        check("1e99999999999999999999", 6, None);
        check("9e-39", 0, Some((0, BelowHalf)));
        check("99999999999999999999999999999999999999", 0, Some((10_u128.pow(38) - 1, Zero)));
        check("340282366920938463463374607431768211456", 0, None);
        check("18446744073709551616", 0, Some((1 << 64, Zero)));
        let zeros = "0".repeat(1_000);
        check(&format!("0.{zeros}7e1001"), 0, Some((7, Zero)));
        check(&format!("7{zeros}e-1000"), 0, Some((7, Zero)));
        check(&format!("{zeros}7"), 0, Some((7, Zero)));
        check(&format!("7{zeros}1e-1001"), 0, Some((7, BelowHalf)));
    }

    #[test]
    fn what_is_no_number_is_not_parsed() {
        let check = |text: &str| assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        for text in
            ["", "-", "+", ".", "-.", "e5", ".e5", "1e", "1e+", "1e1.0", "1,5", "1_0", "1 0", " 1", "--1", "0x1", "１"]
        {
            check(text);
        }
    }
}
