//! One pass over the text of a JSON value gives its tape: a flat list of its parts, each with the bytes where it stands.
//! Routing and typed input read the tape, and nothing else reads the text. It keeps numbers as they are written (an id
//! beyond 2^53 stays exact), and knows the byte of every part (a reject says where).

mod part;
mod scan;
mod tape;
mod unescape;

#[cfg(test)]
mod tests;

pub use part::Json;
pub use tape::{Kind, Node, Tape};
pub use unescape::unescape;

/// Deeper nesting is no event, but an attack on a parser's stack.
pub const DEPTH_MAX: usize = 128;

/// UTF-8's byte order mark, which some producers write before the JSON.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a text stops being JSON, and what would have been right there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at}")]
pub struct JsonError {
    /// The byte, counted from the start of the value.
    pub at: usize,
    pub expected: &'static str,
}
