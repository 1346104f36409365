//! What one walk over the tree carries along: the text, the variables, and the mistakes found so far.

use std::ops::Range;

use super::mask;
use super::mistake::{Mistake, Mistakes};

pub(super) struct Walk<'a> {
    pub(super) text: &'a str,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<Mistake>,
    /// The lines that are no TOML, as bytes of the text: what was read from them is the parser's guess.
    damaged: Vec<Range<usize>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        text: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
        syntax_errors: &[toml::de::Error],
    ) -> Self {
        let mut walk = Walk { text, env, mistakes: Vec::new(), damaged: Vec::new() };
        let mut told: Vec<_> = syntax_errors.iter().map(|error| syntax_mistake(text, error)).collect();
        told.sort_by_key(|mistake| mistake.span.start);
        for mistake in told {
            let lines = lines_of(text, &mistake.span);
            // The second error on a line is nearly always the first one's doing.
            if !walk.damaged.contains(&lines) {
                walk.mistakes.push(mistake);
                walk.damaged.push(lines);
            }
        }
        if walk.is_damaged() {
            // A broken line can make a password look like a key or a section, and those are told by name.
            walk.damaged.extend(mask::secrets(text));
        }
        walk
    }

    /// Whether parts of the text could not be read, so that nothing can be said about what is absent.
    pub(super) fn is_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Notes a mistake about something that is there; on a damaged line the syntax error has said enough.
    pub(super) fn tell(&mut self, mistake: Mistake) {
        let span = &mistake.span;
        // The parser puts an integer at 0..0 where a value is missing.
        let invented = self.is_damaged() && span.is_empty();
        if !invented && !self.damaged.iter().any(|lines| lines.start <= span.end && span.start <= lines.end) {
            self.mistakes.push(mistake);
        }
    }

    /// Notes a mistake about something that is absent.
    pub(super) fn tell_absent(&mut self, mistake: Mistake) {
        if !self.is_damaged() {
            self.mistakes.push(mistake);
        }
    }

    pub(super) fn finish(self) -> Mistakes {
        Mistakes::from(self.mistakes)
    }
}

fn syntax_mistake(text: &str, error: &toml::de::Error) -> Mistake {
    let span = error.span().unwrap_or(text.len()..text.len());
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), "nothing"));
    let (what, label, help) = match what {
        "duplicate key" => (what, "stands here a second time".to_owned(), Some("keep one of the two")),
        "string values must be quoted" if span.is_empty() => {
            ("a key without a value", "expected a value".to_owned(), Some("give it a value, or take the line out"))
        }
        "string values must be quoted" => (what, "expected a string in quotes".to_owned(), Some("put it in quotes")),
        "invalid unquoted key" if text[span.start..].starts_with(':') => {
            (what, "expected `=`".to_owned(), Some("part a key from its value by `=`, and a section by [name]"))
        }
        _ if expected == "nothing" => (what, "not valid here".to_owned(), None),
        _ => (what, format!("expected {expected}"), None),
    };
    Mistake::new(span, format!("this is not TOML: {what}"), label, help.map(str::to_owned))
}

fn lines_of(text: &str, span: &Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let start = bytes[..span.start.min(bytes.len())].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    // A span that ends with its line's end does not reach into the next.
    let end = span.end.saturating_sub(1).max(span.start).min(bytes.len());
    start..bytes[end..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| end + at)
}
