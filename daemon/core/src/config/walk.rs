//! The context of one walk over the parsed file: the text, the variables, and the errors found so far.

use std::ops::Range;

use super::error::{ConfigError, ConfigErrors};
use super::mask;

pub(super) struct Walk<'a> {
    pub(super) text: &'a str,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<ConfigError>,
    /// The lines that are not valid TOML, as bytes of the text: what was read from them is the parser's guess.
    damaged: Vec<Range<usize>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        text: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
        syntax_errors: &[toml::de::Error],
    ) -> Self {
        let mut walk = Walk { text, env, errors: Vec::new(), damaged: Vec::new() };
        let mut errors: Vec<_> = syntax_errors.iter().map(|error| syntax_error(text, error)).collect();
        errors.sort_by_key(|error| error.span.start);
        for error in errors {
            let lines = lines_of(text, &error.span);
            // The second error on a line is nearly always a consequence of the first.
            if !walk.damaged.contains(&lines) {
                walk.errors.push(error);
                walk.damaged.push(lines);
            }
        }
        if walk.is_damaged() {
            // A broken line can make a password look like a key or a section, and errors repeat those names.
            walk.damaged.extend(mask::secrets(text));
        }
        walk
    }

    /// Whether parts of the text could not be read, so that a missing key may be in such a part.
    pub(super) fn is_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Reports an error about something that is present, unless a syntax error was reported on the same line.
    pub(super) fn report(&mut self, error: ConfigError) {
        let span = &error.span;
        // The parser puts an integer at 0..0 where a value is missing.
        let invented = self.is_damaged() && span.is_empty();
        if !invented && !self.damaged.iter().any(|lines| lines.start <= span.end && span.start <= lines.end) {
            self.errors.push(error);
        }
    }

    /// Reports an error about something that is missing, unless parts of the text could not be read.
    pub(super) fn report_missing(&mut self, error: ConfigError) {
        if !self.is_damaged() {
            self.errors.push(error);
        }
    }

    pub(super) fn finish(self) -> ConfigErrors {
        ConfigErrors::from(self.errors)
    }
}

fn syntax_error(text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(text.len()..text.len());
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), "nothing"));
    let (what, label, help) = match what {
        "duplicate key" => (what, "set a second time".to_owned(), Some("keep one of the two")),
        "string values must be quoted" if span.is_empty() => {
            ("a key without a value", "expected a value".to_owned(), Some("give it a value, or remove the line"))
        }
        "string values must be quoted" => (what, "expected a string in quotes".to_owned(), Some("put it in quotes")),
        "invalid unquoted key" if text[span.start..].starts_with(':') => {
            (what, "expected `=`".to_owned(), Some("write `key = value` for a key, and `[name]` for a section"))
        }
        _ if expected == "nothing" => (what, "not valid here".to_owned(), None),
        _ => (what, format!("expected {expected}"), None),
    };
    ConfigError::new(span, format!("invalid TOML: {what}"), label, help.map(str::to_owned))
}

fn lines_of(text: &str, span: &Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let start = bytes[..span.start.min(bytes.len())].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    // A span that includes the end of its line does not reach into the next line.
    let end = span.end.saturating_sub(1).max(span.start).min(bytes.len());
    start..bytes[end..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| end + at)
}
