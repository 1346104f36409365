//! The text of a JSON value, with its tape.

use std::borrow::Cow;

use super::{Kind, Tape, unescape};

/// A JSON text, with its parts. The tape has checked the text.
#[derive(Clone, Copy)]
pub struct Json<'e> {
    pub text: &'e [u8],
    pub tape: &'e Tape,
}

impl<'e> Json<'e> {
    pub fn kind(self, node: usize) -> Kind {
        self.tape.nodes()[node].kind
    }

    /// A part as it is written: a string without its quotes.
    pub fn raw(self, node: usize) -> &'e str {
        self.part(node, 0)
    }

    /// A part as it is written.
    pub fn json(self, node: usize) -> &'e str {
        self.part(node, usize::from(matches!(self.kind(node), Kind::Text | Kind::Escaped)))
    }

    fn part(self, node: usize, quotes: usize) -> &'e str {
        let node = &self.tape.nodes()[node];
        let part = self.text.get(node.start as usize - quotes..node.end as usize + quotes);
        part.and_then(|part| std::str::from_utf8(part).ok()).unwrap_or_default()
    }

    /// The content of a string or a key.
    pub fn content(self, node: usize) -> Cow<'e, str> {
        let raw = self.raw(node);
        if self.kind(node) != Kind::Escaped {
            return Cow::Borrowed(raw);
        }
        let mut content = Vec::new();
        unescape(raw.as_bytes(), &mut content);
        Cow::Owned(String::from_utf8_lossy(&content).into_owned())
    }

    /// The text of a scalar as routing sees it; `None` for null, objects and arrays.
    pub fn scalar_text(self, node: usize) -> Option<Cow<'e, str>> {
        match self.kind(node) {
            Kind::Text | Kind::Escaped => Some(self.content(node)),
            Kind::Number | Kind::True | Kind::False => Some(Cow::Borrowed(self.raw(node))),
            Kind::Null | Kind::Object | Kind::Array => None,
        }
    }
}
