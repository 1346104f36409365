//! Why an event cannot become a row.

use std::fmt;

pub use crate::wit::types::RejectCode;

/// A reason is cut here, in bytes, so that no event can fill the quarantine with its own text.
const REASON_BYTES_MAX: usize = 400;

/// Text of an event is cut here, in characters, where a reason quotes it.
const QUOTE_CHARS_MAX: usize = 60;

/// The verdict on an event that cannot become a row: it goes to the quarantine, whole, with this reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// The kind of fault.
    pub code: RejectCode,
    /// What is wrong, for the engineer: which field, what it holds, what was expected.
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

    /// A value is of the right type and makes no sense.
    pub fn out_of_range(reason: impl Into<String>) -> Self {
        Self::new(RejectCode::OutOfRange, reason.into())
    }

    /// Anything else.
    pub fn other(reason: impl Into<String>) -> Self {
        Self::new(RejectCode::Other, reason.into())
    }

    /// Says where in the event the fault is: `line_items[2]: qty: absent or empty`.
    pub fn within(self, place: impl fmt::Display) -> Self {
        Self::new(self.code, format!("{place}: {}", self.reason))
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

/// The value of a field that the table needs.
///
/// # Errors
/// [`RejectCode::MissingField`] if there is none.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, Reject> {
    value.ok_or_else(|| Reject::missing_field(field))
}

/// Text of an event as a reason shows it: in quotes, control characters escaped, cut to a bearable length.
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
    fn a_reject_reads_as_a_sentence() {
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
    fn an_events_text_is_cut_at_a_character() {
        assert_eq!(quoted("a\n\"b\""), r#""a\n\"b\"""#);
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}\"…", "é".repeat(60)));
        let reason = Reject::other("é".repeat(300)).reason;
        assert_eq!(reason, format!("{}…", "é".repeat(200)));
    }
}
