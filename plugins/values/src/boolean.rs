//! Booleans.

use crate::text::trim;
use crate::{Mismatch, Scalar, signed};

const MALFORMED: Mismatch = Mismatch::malformed("true or false");

/// A boolean: `true` and `false`; the words true, yes, y, on, t and false, no, n, off, f as text, in any letter case; and
/// 1 and 0, as a number or as text.
///
/// # Errors
/// `Malformed` for anything else; other numbers are not true.
#[inline]
pub fn boolean(value: Scalar<'_>) -> Result<bool, Mismatch> {
    match value {
        Scalar::Bool(value) => Ok(value),
        Scalar::Number("1") => Ok(true),
        Scalar::Number("0") => Ok(false),
        Scalar::Text(text) => word(trim(text)).or_else(|| one_or_zero(value)).ok_or(MALFORMED),
        Scalar::Number(_) => one_or_zero(value).ok_or(MALFORMED),
        Scalar::Null => Err(MALFORMED),
    }
}

fn word(text: &str) -> Option<bool> {
    const TRUE: [&str; 6] = ["true", "1", "yes", "y", "on", "t"];
    const FALSE: [&str; 6] = ["false", "0", "no", "n", "off", "f"];
    let is_one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_one_of(&TRUE) {
        Some(true)
    } else if is_one_of(&FALSE) {
        Some(false)
    } else {
        None
    }
}

/// 1 and 0 in another form, such as `1.0`.
#[cold]
fn one_or_zero(value: Scalar<'_>) -> Option<bool> {
    signed(value, 0, 1).ok().map(|number| number == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_from_words_and_from_one_and_zero() {
        let check = |value: Scalar<'_>, expected: bool| assert_eq!(boolean(value), Ok(expected), "{value:?}");
        check(Scalar::Bool(true), true);
        check(Scalar::Bool(false), false);
        for (text, expected) in [
            ("true TRUE True yes Y on ON t T 1 1.0 +1 1e0", true),
            ("false FALSE False no N off OFF f F 0 0.0 -0 0e9", false),
        ] {
            text.split(' ').for_each(|text| check(Scalar::Text(text), expected));
        }
        check(Scalar::Text(" true\n"), true);
        for number in ["1", "1.0", "1e0", "10e-1"] {
            check(Scalar::Number(number), true);
        }
        for number in ["0", "-0", "0.00", "0e400"] {
            check(Scalar::Number(number), false);
        }
    }

    #[test]
    fn nothing_else_is_a_boolean() {
        let check = |value: Scalar<'_>| assert_eq!(boolean(value), Err(MALFORMED), "{value:?}");
        check(Scalar::Null);
        for text in ["", " ", "tru", "truee", "ja", "2", "-1", "0.5", "null", "y e s", "ｔrue"] {
            check(Scalar::Text(text));
        }
        for number in ["2", "-1", "0.5", "1e400"] {
            check(Scalar::Number(number));
        }
    }
}
