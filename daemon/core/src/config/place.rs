//! Where a part of a string is in the text of pipeline.toml: a string may be written with escapes, and on several lines.

use std::ops::Range;

/// The bytes of the text at which `part` of a string is written. `span` is the string in the text, with its quotes; of
/// anything else, it is the result.
pub fn place_in_string(text: &str, span: &Range<usize>, part: &Range<usize>) -> Range<usize> {
    let Some(string) = text.get(span.clone()).and_then(Written::of) else { return span.clone() };
    let (start, end) = (string.place(part.start), string.place(part.end));
    span.start + start..span.start + end.max(start)
}

/// A string as it is written.
struct Written<'t> {
    /// With its quotes.
    raw: &'t str,
    /// Where its content begins and ends.
    content: Range<usize>,
    has_escapes: bool,
}

impl<'t> Written<'t> {
    fn of(raw: &'t str) -> Option<Self> {
        let quote = raw.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let triple = quote.to_string().repeat(3);
        let quotes = if raw.len() >= 6 && raw.starts_with(&triple) { 3 } else { 1 };
        let mut content = quotes..raw.len().checked_sub(quotes)?;
        if quotes == 3 {
            // A line end right after the quotes is not part of the string.
            let rest = raw.get(content.clone())?;
            content.start += if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) };
        }
        (content.start <= content.end).then_some(Self { raw, content, has_escapes: quote == '"' })
    }

    /// The byte of the written string at which the byte `at` of its value is written.
    fn place(&self, at: usize) -> usize {
        if !self.has_escapes {
            return (self.content.start + at).min(self.content.end);
        }
        let (mut place, mut value) = (self.content.start, 0);
        while value < at && place < self.content.end {
            let (written, bytes) = self.character(place);
            (place, value) = (place + written, value + bytes);
        }
        // What is not part of the string belongs to nothing after it.
        while place < self.content.end && self.character(place).1 == 0 {
            place += self.character(place).0;
        }
        place
    }

    /// How many bytes a character takes as it is written, and in the value.
    fn character(&self, place: usize) -> (usize, usize) {
        let rest = &self.raw[place..self.content.end];
        let mut characters = rest.chars();
        let Some(first) = characters.next() else { return (1, 1) };
        if first != '\\' {
            return (first.len_utf8(), first.len_utf8());
        }
        let code = |digits: usize| {
            let character = rest.get(2..2 + digits).and_then(|code| u32::from_str_radix(code, 16).ok());
            (2 + digits, character.and_then(char::from_u32).map_or(1, char::len_utf8))
        };
        match characters.next() {
            Some('x') => code(2),
            Some('u') => code(4),
            Some('U') => code(8),
            // A backslash at the end of a line: the blanks before the next text are not part of the string.
            Some(blank) if blank.is_whitespace() => (rest.len() - rest[1..].trim_start().len(), 0),
            Some(other) => (1 + other.len_utf8(), 1),
            None => (1, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_are_found_where_they_are_written() {
        for written in [
            "\"a B c\"",
            "'a B c'",
            "'''a B c'''",
            "\"\"\"\na B c\"\"\"",
            "\"\"\"\r\na B c\"\"\"",
            "'''\na B c\n'''",
            "\"\\n\\\"\\u00e4 B\"",
            "\"\"\"a \\\n    B c\"\"\"",
            "\"ä B\"",
        ] {
            let text = format!("sql = {written}\n");
            let (tree, errors) = toml::de::DeTable::parse_recoverable(&text);
            assert!(errors.is_empty(), "{written}");
            let value = tree.get_ref().get("sql").unwrap();
            let at = value.get_ref().as_str().unwrap().find('B').unwrap();
            assert_eq!(&text[place_in_string(&text, &value.span(), &(at..at + 1))], "B", "{written}");
        }
        // Beyond the end, and no string.
        assert_eq!(place_in_string("a = 'b'", &(4..7), &(5..9)), 6..6);
        assert_eq!(place_in_string("a = 12", &(4..6), &(1..2)), 4..6);
    }
}
