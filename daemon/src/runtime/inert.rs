//! Text from events on a terminal and in the log: characters that a terminal obeys, or that change the direction of the
//! text, are printed as their escapes.

use std::fmt::{self, Write};

use silverd_core::plain_text::is_obeyed;

/// The text on one line: `\n` and `\u{1b}` stand for a line break and an escape character.
pub(crate) fn inert(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    let _ = Escaping(&mut inert).write_str(text);
    inert
}

/// The same for text of several lines as one line: a space stands between them.
pub(crate) fn inert_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    inert(&lines.join(" "))
}

/// The same for text of several lines, with its line breaks and tabs.
pub(crate) fn inert_lines(text: &str) -> String {
    text.split_inclusive(['\n', '\t'])
        .map(|part| {
            let text = part.trim_end_matches(['\n', '\t']);
            inert(text) + &part[text.len()..]
        })
        .collect()
}

/// Escapes what is written to it.
pub(crate) struct Escaping<'w>(pub &'w mut dyn Write);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match is_obeyed(character) {
            true => write!(self.0, "{}", character.escape_default()),
            false => self.0.write_char(character),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(inert(text), expected);
        check("é😀 \"quoted\" \\ e\u{301}", "é😀 \"quoted\" \\ e\u{301}");
        check("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}");
        check("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m");
        check("a\u{202e}b\u{2066}c\u{200f}d\u{2028}", "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{2028}");
        check("two\r\nlines\t", "two\\r\\nlines\\t");
    }

    #[test]
    fn lines_become_one_line() {
        assert_eq!(inert_line("wasm trap\n\n  at a\r\n  at \u{1b}[1mb\n"), "wasm trap at a at \\u{1b}[1mb");
        assert_eq!(inert_line("one"), "one");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(inert_lines("one\n\n\ttwo \u{1b}[1m\r\n"), "one\n\n\ttwo \\u{1b}[1m\\r\n");
        assert_eq!(inert_lines(""), "");
    }
}
