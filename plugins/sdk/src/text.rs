//! A JSON string, borrowed from the event.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::{Reject, quoted, timestamp};

/// A JSON string, borrowed from the event's bytes unless it contains escapes.
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
}

impl<'a> Text<'a> {
    /// The trimmed text; it may be empty.
    pub fn trimmed(&self) -> &str {
        // Fast path: `str::trim` decodes characters even if there is nothing to trim.
        match self.raw.as_bytes() {
            [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => &self.raw,
            _ => self.raw.trim(),
        }
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

    /// The ISO 8601 timestamp of a required field, in microseconds; see [`timestamp::parse_iso_8601`].
    ///
    /// # Errors
    /// `missing-field` like [`required`](Self::required); `malformed` if the text is not a timestamp.
    pub fn timestamp(&self, field: &str) -> Result<i64, Reject> {
        let text = self.required(field)?;
        timestamp::parse_iso_8601(text).ok_or_else(|| {
            let text = quoted(text);
            Reject::malformed(format!("{field}: {text} is not an ISO 8601 timestamp such as 2025-08-16T14:50:49.401Z"))
        })
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self { raw: Cow::Borrowed(text) }
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
                Ok(Text { raw: Cow::Borrowed(text) })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text { raw: Cow::Owned(text.to_owned()) })
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
        let check = |text: &str, expected: Result<i64, &str>| {
            let found = Text::from(text).timestamp("ts").map_err(|reject| reject.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        check("1970-01-01T00:00:01Z", Ok(1_000_000));
        check("", Err("missing-field: ts: absent or empty"));
        let reason = "malformed: ts: \"today\" is not an ISO 8601 timestamp such as 2025-08-16T14:50:49.401Z";
        check("today", Err(reason));
    }
}
