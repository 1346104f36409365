//! What is wrong with a pipeline's text, and how it is shown: place, caret, what was expected, how to mend it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::mask::Masked;

/// One mistake. `message` and `help` never repeat a value of `[source.kafka]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the text.
    pub span: Range<usize>,
    pub message: String,
    /// Stands right of the caret: what was expected there.
    pub label: String,
    /// The edit or the command that mends it.
    pub help: Option<String>,
}

impl Mistake {
    pub fn new(span: Range<usize>, message: impl Into<String>, label: impl Into<String>, help: Option<String>) -> Self {
        Mistake { span, message: message.into(), label: label.into(), help }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Mistakes in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Shows every mistake; `text` is what was checked, `file` the name to show for it.
    ///
    /// Where the text holds what looks like a password, `***` is shown in its place.
    pub fn render(&self, file: &str, text: &str, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let masked = Masked::new(text);
        let mut shown = String::new();
        for mistake in &self.0 {
            let place = AnnotationKind::Primary.span(masked.map(&mistake.span)).label(&mistake.label);
            let snippet = Snippet::source(masked.text()).path(file).annotation(place);
            let mut group = Level::ERROR.primary_title(&mistake.message).element(snippet);
            if let Some(help) = &mistake.help {
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

    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }
}

impl From<Vec<Mistake>> for Mistakes {
    fn from(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        mistakes.dedup();
        Mistakes(mistakes)
    }
}

impl fmt::Display for Mistakes {
    /// The messages alone, for a log line; `render` needs the text.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (at, mistake) in self.0.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "; " }, mistake.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
