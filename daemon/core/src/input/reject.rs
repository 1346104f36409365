//! Why an event does not become typed input.

use std::fmt::{self, Write};

use crate::json::JsonError;
use crate::outcome::Code;

/// A longer text of an event is cut where a reason quotes it.
const QUOTE_CHARS_MAX: usize = 60;

/// The outcome of an event that does not fit the table's `input`: the code and the reason in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub code: Code,
    pub reason: String,
}

/// A value that does not fit. The path is added on the way out, innermost part first.
#[derive(Debug)]
pub(super) struct Misfit {
    code: Code,
    /// `line_items[2].qty`
    path: String,
    what: String,
}

impl Misfit {
    #[cold]
    pub(super) fn missing() -> Self {
        Self { code: Code::MissingField, path: String::new(), what: "absent or empty".to_owned() }
    }

    #[cold]
    pub(super) fn value(code: Code, expected: &str, found: &Found<'_>, at: u32) -> Self {
        let what = format!("expected {expected}, found {found} at byte {at}");
        Self { code, path: String::new(), what }
    }

    #[cold]
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let what = format!("the event takes more than {bytes_max} bytes in the plugin's memory");
        Self { code: Code::OutOfRange, path: String::new(), what }
    }

    #[cold]
    pub(super) fn in_field(self, key: &str) -> Self {
        self.within(key)
    }

    #[cold]
    pub(super) fn in_item(self, at: usize) -> Self {
        self.within(&format!("[{at}]"))
    }

    fn within(mut self, part: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{part}{dot}{}", self.path);
        self
    }
}

impl From<Misfit> for Rejection {
    fn from(misfit: Misfit) -> Self {
        let Misfit { code, path, what } = misfit;
        let reason = if path.is_empty() { what } else { format!("{path}: {what}") };
        Self { code, reason }
    }
}

impl Rejection {
    #[cold]
    pub(super) fn not_json(text: &[u8], error: JsonError) -> Self {
        let mut reason = format!("not JSON: expected {}, found ", error.expected);
        let _ = match text.get(error.at..) {
            None | Some([]) => write!(reason, "the end of the value at byte {}", error.at),
            Some(rest) => write!(reason, "{} at byte {}", Found::Text(&rest[..rest.len().min(8)]), error.at),
        };
        Self { code: Code::Malformed, reason }
    }

    #[cold]
    pub(super) fn malformed(reason: &str) -> Self {
        Self { code: Code::Malformed, reason: reason.to_owned() }
    }
}

/// A part of an event, as a reason quotes it: control characters are escaped, and it is cut after 60 characters.
pub(super) enum Found<'a> {
    /// In double quotes.
    Text(&'a [u8]),
    /// Anything else, as it stands in the event.
    Other(&'a [u8]),
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Found::Text(bytes) | Found::Other(bytes)) = self;
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * QUOTE_CHARS_MAX + 4)]);
        let (text, cut) = match text.char_indices().nth(QUOTE_CHARS_MAX) {
            Some((end, _)) => (&text[..end], "…"),
            None => (&*text, ""),
        };
        match self {
            Found::Text(_) => write!(f, "{text:?}{cut}"),
            Found::Other(_) => {
                text.chars().try_for_each(|character| match character.is_control() {
                    true => write!(f, "{}", character.escape_default()),
                    false => f.write_char(character),
                })?;
                f.write_str(cut)
            }
        }
    }
}
