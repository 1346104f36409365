//! Text, and the white space around it.

use crate::{Mismatch, Scalar};

/// Text from text, and from a number or a boolean as written: an identifier may be a number beyond 2^53. White space
/// stays.
///
/// # Errors
/// `Malformed` for `null`.
#[inline]
pub fn text<'a>(value: Scalar<'a>) -> Result<&'a str, Mismatch> {
    match value {
        Scalar::Text(text) | Scalar::Number(text) => Ok(text),
        Scalar::Bool(true) => Ok("true"),
        Scalar::Bool(false) => Ok("false"),
        Scalar::Null => Err(Mismatch::malformed("text")),
    }
}

/// The text without white space around it, as `str::trim`, which decodes characters even if there is nothing to trim.
#[inline]
pub fn trim(text: &str) -> &str {
    match text.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        [only] if only.is_ascii_graphic() => text,
        _ => text.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_booleans_are_text_as_written() {
        let check = |value: Scalar<'_>, expected: Option<&str>| assert_eq!(text(value).ok(), expected, "{value:?}");
        check(Scalar::Text("user-1"), Some("user-1"));
        check(Scalar::Text(" ü "), Some(" ü "));
        check(Scalar::Text(""), Some(""));
        check(Scalar::Number("9007199254740993"), Some("9007199254740993"));
        check(Scalar::Number("1.50e0"), Some("1.50e0"));
        check(Scalar::Bool(true), Some("true"));
        check(Scalar::Bool(false), Some("false"));
        check(Scalar::Null, None);
    }

    #[test]
    fn white_space_around_text_is_trimmed() {
        let check = |text: &str, expected: &str| assert_eq!(trim(text), expected, "{text:?}");
        check("7", "7");
        check("a b", "a b");
        check(" \ta b\r\n", "a b");
        check("\u{a0}é\u{3000}", "é");
        check(" ", "");
        check("", "");
    }
}
