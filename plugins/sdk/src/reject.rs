//! The reason why an event cannot become a row.

use std::fmt;

pub use crate::wit::types::RejectCode;

/// A longer reason is cut, so that an event cannot fill the quarantine with its own text.
const REASON_BYTES_MAX: usize = 400;

/// A longer text of an event is cut where a reason quotes it.
const QUOTE_CHARS_MAX: usize = 60;

/// The outcome of an event that cannot become a row. The daemon writes the whole event to the quarantine, with this
/// reason.
///
/// | constructor | the event | code in the quarantine |
/// |---|---|---|
/// | [`malformed`](Self::malformed) | does not look like this table's events | `malformed` |
/// | [`missing_field`](Self::missing_field) | lacks a field | `missing-field` |
/// | [`out_of_range`](Self::out_of_range) | has a value of the right type that is not valid | `out-of-range` |
/// | [`other`](Self::other) | is rejected for any other reason | `other` |
///
/// ```
/// use silverd_plugin::Reject;
///
/// let reject = Reject::out_of_range("qty: 0 is not between 1 and 100").within("line_items[2]");
/// assert_eq!(reject.to_string(), "out-of-range: line_items[2]: qty: 0 is not between 1 and 100");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// The kind of error.
    pub code: RejectCode,
    /// What is wrong, for the engineer: the field, its value, the expected value. Cut after 400 bytes by the
    /// constructors.
    pub reason: String,
}

impl Reject {
    /// The bytes are not what this table's events look like: broken JSON, a wrong type.
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::new(RejectCode::Malformed, reason.into())
    }

    /// A field that the table needs is absent or empty.
    pub fn missing_field(field: &str) -> Self {
        Self::new(RejectCode::MissingField, format!("{field}: absent or empty"))
    }

    /// A value has the right type but is not valid.
    pub fn out_of_range(reason: impl Into<String>) -> Self {
        Self::new(RejectCode::OutOfRange, reason.into())
    }

    /// Anything else.
    pub fn other(reason: impl Into<String>) -> Self {
        Self::new(RejectCode::Other, reason.into())
    }

    /// Adds the position in the event before the reason: `line_items[2]: qty: absent or empty`.
    pub fn within(self, position: impl fmt::Display) -> Self {
        Self::new(self.code, format!("{position}: {}", self.reason))
    }

    pub(crate) fn new(code: RejectCode, mut reason: String) -> Self {
        if reason.len() > REASON_BYTES_MAX {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            reason.push('…');
        }
        Self { code, reason }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self.code {
            RejectCode::Malformed => "malformed",
            RejectCode::MissingField => "missing-field",
            RejectCode::OutOfRange => "out-of-range",
            RejectCode::Other => "other",
        };
        write!(f, "{code}: {}", self.reason)
    }
}

/// The value of a required field.
///
/// ```
/// use silverd_plugin::{RejectCode, required};
///
/// assert_eq!(required("qty", Some(3)), Ok(3));
/// assert_eq!(required::<u32>("qty", None).map_err(|reject| reject.code), Err(RejectCode::MissingField));
/// ```
///
/// # Errors
/// [`RejectCode::MissingField`] if `value` is `None`.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, Reject> {
    value.ok_or_else(|| Reject::missing_field(field))
}

/// Quotes an event's text for a reason: in double quotes, with control characters escaped, cut after 60 characters.
///
/// ```
/// assert_eq!(silverd_plugin::quoted("a\nb"), r#""a\nb""#);
/// ```
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reject_displays_code_and_reason() {
        let check = |reject: Reject, expected: &str| assert_eq!(reject.to_string(), expected);
        check(Reject::malformed("ts: no timestamp"), "malformed: ts: no timestamp");
        check(Reject::missing_field("user_id"), "missing-field: user_id: absent or empty");
        check(Reject::out_of_range("qty: 0"), "out-of-range: qty: 0");
        check(Reject::other("closed today"), "other: closed today");
        check(
            Reject::missing_field("qty").within("line_items[2]"),
            "missing-field: line_items[2]: qty: absent or empty",
        );
    }

    #[test]
    fn quotes_and_reasons_are_cut_at_a_character_boundary() {
        assert_eq!(quoted("a\n\"b\""), r#""a\n\"b\"""#);
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}\"…", "é".repeat(60)));
        let reason = Reject::other("é".repeat(300)).reason;
        assert_eq!(reason, format!("{}…", "é".repeat(200)));
    }
}
