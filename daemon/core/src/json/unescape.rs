//! Escapes in strings: `\n`, `\u00e9`, and pairs of surrogates.

use super::JsonError;

/// Checks the escape at `at`, and returns where it ends. Half a pair of surrogates is no character.
pub(super) fn check_escape(text: &[u8], at: usize) -> Result<usize, JsonError> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            match code_unit(text, at).ok_or(JsonError { at, expected: "four hexadecimal digits after \\u" })? {
                0xd800..=0xdbff => match code_unit(text, at + 6) {
                    Some(0xdc00..=0xdfff) => Ok(at + 12),
                    _ => Err(JsonError { at, expected: "the second half of a surrogate pair after its first half" }),
                },
                0xdc00..=0xdfff => {
                    Err(JsonError { at, expected: "the first half of a surrogate pair before its second half" })
                }
                _ => Ok(at + 6),
            }
        }
        _ => Err(JsonError {
            at,
            expected: "one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u after a backslash",
        }),
    }
}

/// Appends the content of a string with escapes, whose quotes are left out. The tape has checked it.
pub fn unescape(mut text: &[u8], content: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(b'\\', text) {
        content.extend_from_slice(&text[..at]);
        let (byte, length) = match text.get(at + 1) {
            Some(b'b') => (b'\x08', 2),
            Some(b'f') => (b'\x0c', 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b't') => (b'\t', 2),
            Some(b'u') => {
                let (character, length) = character(text, at);
                content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                text = text.get(at + length..).unwrap_or_default();
                continue;
            }
            Some(byte) => (*byte, 2),
            None => (b'\\', 1),
        };
        content.push(byte);
        text = &text[at + length..];
    }
    content.extend_from_slice(text);
}

/// The character of the escape `\u` at `at`, and the length of the escape.
fn character(text: &[u8], at: usize) -> (char, usize) {
    let pair = |high: u32, low: u32| 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    let (code, length) = match (code_unit(text, at), code_unit(text, at + 6)) {
        (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => (pair(high, low), 12),
        (Some(code), _) => (code, 6),
        (None, _) => (0xfffd, 2),
    };
    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), length)
}

/// The number of the escape `\uXXXX` at `at`.
fn code_unit(text: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = text.get(at..at + 6)? else { return None };
    digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
}
