//! A JSON string, borrowed from the event, or an integer or a boolean as text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use silverd_values::{MismatchKind, Scalar};

use crate::{Reject, quoted};

/// A JSON string, borrowed from the event's bytes unless it contains escapes.
///
/// An integer or a boolean becomes the text that the event has: an identifier may be a number. A number with decimals or an
/// exponent does not, and neither does an integer beyond 64 bits, because serde has only their binary value.
///
/// With `#[serde(default)]` on the struct, an absent field, `null` and `""` are the same: no text. All methods trim white
/// space. (serde copies every string into an `Option<Cow<str>>`; this type avoids the copy.)
///
/// ```
/// use silverd_plugin::Text;
///
/// let text = Text::from(" ann ");
/// assert_eq!(text.required("user_id"), Ok("ann"));
/// assert_eq!(Text::from(" ").optional(), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a> {
    raw: Cow<'a, str>,
    /// Whether the event has a number here.
    is_number: bool,
}

impl<'a> Text<'a> {
    /// The trimmed text; it may be empty.
    pub fn trimmed(&self) -> &str {
        silverd_values::trim(&self.raw)
    }

    /// The trimmed text; `None` if it is empty.
    pub fn optional(&self) -> Option<&str> {
        Some(self.trimmed()).filter(|text| !text.is_empty())
    }

    /// The trimmed text of a required field.
    ///
    /// # Errors
    /// `missing-field` if the text is absent, `null`, empty or blank.
    pub fn required(&self, field: &str) -> Result<&str, Reject> {
        self.optional().ok_or_else(|| Reject::missing_field(field))
    }

    /// The timestamp of a required field, in microseconds; see [`silverd_values::timestamp`].
    ///
    /// # Errors
    /// `missing-field` like [`required`](Self::required); `malformed` if the text is not a timestamp, and `out-of-range` if it
    /// is one outside of the years 0001 to 9999.
    pub fn timestamp(&self, field: &str) -> Result<i64, Reject> {
        let text = self.required(field)?;
        let value = if self.is_number { Scalar::Number(text) } else { Scalar::Text(text) };
        silverd_values::timestamp(value).map_err(|mismatch| {
            let text = quoted(text);
            match mismatch.kind {
                MismatchKind::OutOfRange => {
                    Reject::out_of_range(format!("{field}: {text} is not {}", mismatch.expected))
                }
                MismatchKind::Malformed => Reject::malformed(format!(
                    "{field}: {text} is not an ISO 8601 timestamp such as 2025-08-16T14:50:49.401Z"
                )),
            }
        })
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self { raw: Cow::Borrowed(text), is_number: false }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text { raw: Cow::Borrowed(text), is_number: false })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text { raw: Cow::Owned(text.to_owned()), is_number: false })
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Text<'de>, E> {
                Ok(Text { raw: Cow::Owned(number.to_string()), is_number: true })
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Text<'de>, E> {
                Ok(Text { raw: Cow::Owned(number.to_string()), is_number: true })
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Text<'de>, E> {
                let text = silverd_values::text(Scalar::Bool(value)).unwrap_or_default();
                Ok(Text { raw: Cow::Borrowed(text), is_number: false })
            }

            fn visit_unit<E: Error>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_borrowed_unless_it_has_escapes() {
        let check = |json: &str, borrowed: bool, expected: &str| {
            let text: Text<'_> = serde_json::from_str(json).expect("a string");
            assert_eq!((matches!(text.raw, Cow::Borrowed(_)), text.trimmed()), (borrowed, expected), "{json}");
        };
        check(r#""user-1""#, true, "user-1");
        check(r#"" \u00fcber ""#, false, "über");
        check(r#"" x""#, true, "x");
        check("\"x\u{a0}\"", true, "x");
        check(r#""é""#, true, "é");
        check(r#""x""#, true, "x");
        check("null", false, "");
        check("18446744073709551615", false, "18446744073709551615");
        check("-7", false, "-7");
        check("true", true, "true");
    }

    #[test]
    fn numbers_that_serde_does_not_have_as_written_are_no_text() {
        for json in ["1.50", "1e3", "-0", "18446744073709551616", "[]", "{}"] {
            let error = serde_json::from_str::<Text<'_>>(json).expect_err(json);
            assert!(error.to_string().starts_with("invalid type: "), "{json}: {error}");
        }
    }

    #[test]
    fn required_rejects_absent_and_blank_text() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = Text::from(text);
            let found = found.required("user_id").map_err(|reject| reject.to_string());
            assert_eq!(found.as_deref(), expected.map_err(str::to_owned).as_ref().map(|text| &**text), "{text:?}");
        };
        check("user-1", Ok("user-1"));
        check("", Err("missing-field: user_id: absent or empty"));
        check(" \t", Err("missing-field: user_id: absent or empty"));
    }

    #[test]
    fn invalid_timestamp_is_rejected_with_the_expected_form() {
        let check = |text: Text<'_>, expected: Result<i64, &str>| {
            let found = text.timestamp("ts").map_err(|reject| reject.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text:?}");
        };
        check("1970-01-01T00:00:01Z".into(), Ok(1_000_000));
        check("1755355849401".into(), Ok(1_755_355_849_401_000));
        check("20250816".into(), Ok(1_755_302_400_000_000));
        check("".into(), Err("missing-field: ts: absent or empty"));
        let reason = "malformed: ts: \"today\" is not an ISO 8601 timestamp such as 2025-08-16T14:50:49.401Z";
        check("today".into(), Err(reason));
        let reason = "out-of-range: ts: \"0000-01-01\" is not a timestamp of the years 0001 to 9999";
        check("0000-01-01".into(), Err(reason));
        let number = |json: &'static str| serde_json::from_str::<Text<'_>>(json).expect("a number");
        check(number("1755355849401"), Ok(1_755_355_849_401_000));
        // The same digits are a day as text, and ambiguous as a number.
        let reason = "malformed: ts: \"20250816\" is not an ISO 8601 timestamp such as 2025-08-16T14:50:49.401Z";
        check(number("20250816"), Err(reason));
    }
}
