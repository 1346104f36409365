//! Texts that are bounded, and without characters that a terminal, a header or a reader's eye obeys.

/// C0, DEL, C1, line and paragraph separators, and what Unicode calls bidirectional controls.
pub fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// One line: spaces stand for characters that are obeyed. A longer text is cut, and ends with `…`.
pub fn one_line(text: &str, chars_max: usize) -> String {
    cut(text.chars().map(|character| if is_obeyed(character) { ' ' } else { character }), chars_max)
}

/// The same with its line breaks.
pub fn plain_lines(text: &str, chars_max: usize) -> String {
    let plain = |character: char| match character {
        '\n' => '\n',
        character if is_obeyed(character) => ' ',
        character => character,
    };
    cut(text.replace("\r\n", "\n").chars().map(plain), chars_max)
}

/// The first characters of a text, and `…` if there are more.
pub fn first_chars(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// At most so many characters; the last one of a longer text is `…`.
pub(crate) fn cut(mut characters: impl Iterator<Item = char>, chars_max: usize) -> String {
    let mut text: String = characters.by_ref().take(chars_max).collect();
    if characters.next().is_some() {
        text.pop();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obeyed_characters_become_spaces_and_long_texts_are_cut() {
        assert_eq!(one_line("one\r\ntwo\u{1b}[1m\u{202e}ä", 100), "one  two [1m ä");
        assert_eq!(plain_lines("one\r\n\ttwo\u{7}\n", 100), "one\n two \n");
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line("äöüß", 3), "äö…");
        assert_eq!(one_line("", 3), "");
        assert_eq!([first_chars("äöü", 3), first_chars("äöüß", 3)], ["äöü", "äöü…"]);
    }
}
