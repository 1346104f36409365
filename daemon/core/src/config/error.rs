//! The errors of a pipeline's text, and how they are shown: place, caret, what was expected, how to correct it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::mask::Masked;

/// One error. `message` and `help` never repeat a value of `[source.kafka]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Bytes of the text.
    pub span: Range<usize>,
    pub message: String,
    /// Shown at the right of the caret: what was expected there.
    pub label: String,
    /// The edit or the command that corrects it.
    pub help: Option<String>,
}

impl ConfigError {
    pub fn new(span: Range<usize>, message: impl Into<String>, label: impl Into<String>, help: Option<String>) -> Self {
        ConfigError { span, message: message.into(), label: label.into(), help }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All errors of a text, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Shows every error; `text` is the text that was checked, `file` the name to show for it.
    ///
    /// Shows `***` for each value that looks like a password.
    pub fn render(&self, file: &str, text: &str, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let masked = Masked::new(text);
        let mut shown = String::new();
        for error in &self.0 {
            let place = AnnotationKind::Primary.span(masked.map(&error.span)).label(&error.label);
            let snippet = Snippet::source(masked.text()).path(file).annotation(place);
            let mut group = Level::ERROR.primary_title(&error.message).element(snippet);
            if let Some(help) = &error.help {
                group = group.element(Level::HELP.message(help));
            }
            if !shown.is_empty() {
                shown.push('\n');
            }
            shown.push_str(&renderer.render(&[group]));
            shown.push('\n');
        }
        shown
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl From<Vec<ConfigError>> for ConfigErrors {
    fn from(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| (error.span.start, error.span.end));
        errors.dedup();
        ConfigErrors(errors)
    }
}

impl fmt::Display for ConfigErrors {
    /// Only the messages, for a log line; `render` needs the text.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "; " }, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
