//! The tape, and the state machine that writes it.

use super::scan::plain_end;
use super::unescape::check_escape;
use super::{BYTE_ORDER_MARK, DEPTH_MAX, JsonError};

/// What a part of a JSON value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    True,
    False,
    /// A number, as it is written.
    Number,
    /// A string without escapes. Its bytes are those between the quotes.
    Text,
    /// A string with escapes, between the quotes; [`unescape`](super::unescape) gives its content.
    Escaped,
    /// A key and a value for each member follow.
    Object,
    /// The items follow.
    Array,
}

/// A part of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    /// Where it starts and ends in the text; a string without its quotes.
    pub start: u32,
    pub end: u32,
    /// The index of the node after it and all that is in it.
    pub next: u32,
}

/// The parts of a JSON value, in the order of the text.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
}

impl Tape {
    /// Reads a whole text. After an error the tape has what was read before it: members of the outermost object that
    /// are complete can still be found.
    ///
    /// A text has to be UTF-8. Keys may be there twice; [`member`](Self::member) finds the first one.
    pub fn read(&mut self, text: &[u8]) -> Result<(), JsonError> {
        self.nodes.clear();
        let start = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let read = Reader { text, at: start, nodes: &mut self.nodes, open: [0; DEPTH_MAX], depth: 0 }.read();
        let read = match simdutf8::basic::from_utf8(text) {
            Ok(_) => read,
            Err(_) => {
                // The first fault of the text counts.
                let valid = std::str::from_utf8(text).err().map_or(0, |error| error.valid_up_to());
                Err(read.err().filter(|error| error.at < valid).unwrap_or(JsonError { at: valid, expected: "UTF-8" }))
            }
        };
        read.inspect_err(|error| self.keep_members_before(error.at))
    }

    /// Keeps only the outermost object with its members that are complete before a byte.
    #[cold]
    fn keep_members_before(&mut self, at: usize) {
        let is_object = self.nodes.first().is_some_and(|node| node.kind == Kind::Object);
        let mut end = usize::from(is_object);
        while let Some(value) = self.nodes.get(end + 1) {
            let is_open = matches!(value.kind, Kind::Object | Kind::Array) && value.end == value.start;
            if !is_object || is_open || value.end as usize > at {
                break;
            }
            end = value.next as usize;
        }
        self.nodes.truncate(end);
        if let Some(object) = self.nodes.first_mut() {
            object.next = end as u32;
        }
    }

    /// All parts; the first one is the value itself. Empty if nothing was read.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The keys and values of an object, by the indexes of their nodes.
    pub fn members(&self, object: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (mut at, end) = (object + 1, self.nodes[object].next as usize);
        std::iter::from_fn(move || {
            let value = (at + 1 < end).then_some(at + 1)?;
            let key = std::mem::replace(&mut at, self.nodes[value].next as usize);
            Some((key, value))
        })
    }

    /// The items of an array, by the indexes of their nodes.
    pub fn items(&self, array: usize) -> impl Iterator<Item = usize> + '_ {
        let (mut at, end) = (array + 1, self.nodes[array].next as usize);
        std::iter::from_fn(move || {
            let item = (at < end).then_some(at)?;
            at = self.nodes[item].next as usize;
            Some(item)
        })
    }

    /// The value of the first member of an object with this key.
    pub fn member(&self, text: &[u8], object: usize, key: &str) -> Option<usize> {
        self.members(object).find(|(found, _)| self.is_key(text, *found, key)).map(|(_, value)| value)
    }

    /// Whether the key at a node is this one. Escapes in keys are rare, and only then cost a copy.
    #[inline]
    pub fn is_key(&self, text: &[u8], node: usize, key: &str) -> bool {
        let node = &self.nodes[node];
        let found = &text[node.start as usize..node.end as usize];
        match node.kind {
            Kind::Escaped => {
                let mut plain = Vec::new();
                super::unescape(found, &mut plain);
                plain == key.as_bytes()
            }
            _ => found == key.as_bytes(),
        }
    }
}

struct Reader<'r> {
    text: &'r [u8],
    at: usize,
    nodes: &'r mut Vec<Node>,
    /// The nodes of the objects and arrays that are open.
    open: [u32; DEPTH_MAX],
    depth: usize,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    /// A value, or the end of an array that has just begun.
    FirstItem,
    Key,
    /// A key, or the end of an object that has just begun.
    FirstKey,
    /// After a value: a comma, or the end of what is open.
    Follow,
}

impl Reader<'_> {
    fn read(mut self) -> Result<(), JsonError> {
        let mut next = Next::Value;
        loop {
            self.skip_space();
            next = match (next, self.peek()) {
                (Next::Follow, byte) => {
                    let Some(container) = self.depth.checked_sub(1).map(|top| self.open[top] as usize) else {
                        return match byte {
                            None => Ok(()),
                            Some(_) => Err(self.expected("the end of the value")),
                        };
                    };
                    let is_object = self.nodes[container].kind == Kind::Object;
                    match byte {
                        Some(b',') => {
                            self.at += 1;
                            if is_object { Next::Key } else { Next::Value }
                        }
                        Some(b'}') if is_object => self.close(container),
                        Some(b']') if !is_object => self.close(container),
                        _ => return Err(self.expected(if is_object { "`,` or `}`" } else { "`,` or `]`" })),
                    }
                }
                (Next::FirstKey, Some(b'}')) | (Next::FirstItem, Some(b']')) => {
                    self.close(self.open[self.depth - 1] as usize)
                }
                (Next::FirstKey | Next::Key, Some(b'"')) => {
                    self.string()?;
                    self.skip_space();
                    if self.peek() != Some(b':') {
                        return Err(self.expected("`:`"));
                    }
                    self.at += 1;
                    Next::Value
                }
                (Next::FirstKey, _) => return Err(self.expected("a key in quotes or `}`")),
                (Next::Key, _) => return Err(self.expected("a key in quotes")),
                (Next::Value | Next::FirstItem, byte) => match byte {
                    Some(b'"') => {
                        self.string()?;
                        Next::Follow
                    }
                    Some(b'{') => self.begin(Kind::Object, Next::FirstKey)?,
                    Some(b'[') => self.begin(Kind::Array, Next::FirstItem)?,
                    Some(b'-' | b'0'..=b'9') => self.number()?,
                    Some(b't') => self.word("true", Kind::True)?,
                    Some(b'f') => self.word("false", Kind::False)?,
                    Some(b'n') => self.word("null", Kind::Null)?,
                    _ => return Err(self.expected("a value")),
                },
            };
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next });
    }

    fn begin(&mut self, kind: Kind, next: Next) -> Result<Next, JsonError> {
        if self.depth == DEPTH_MAX {
            return Err(self.expected("at most 128 levels of nesting"));
        }
        self.open[self.depth] = self.nodes.len() as u32;
        self.depth += 1;
        self.push(kind, self.at, self.at);
        self.at += 1;
        Ok(next)
    }

    fn close(&mut self, container: usize) -> Next {
        self.at += 1;
        self.depth -= 1;
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[container];
        (node.end, node.next) = (self.at as u32, next);
        Next::Follow
    }

    #[inline]
    fn string(&mut self) -> Result<(), JsonError> {
        let start = self.at + 1;
        let mut kind = Kind::Text;
        let mut at = start;
        loop {
            at = plain_end(self.text, at);
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    at = check_escape(self.text, at)?;
                }
                Some(_) => return Err(JsonError { at, expected: "a control character as an escape, such as \\n" }),
                None => return Err(JsonError { at, expected: "a closing quote" }),
            }
        }
        self.push(kind, start, at);
        self.at = at + 1;
        Ok(())
    }

    fn number(&mut self) -> Result<Next, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.push(Kind::Number, start, self.at);
        Ok(Next::Follow)
    }

    #[inline]
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<Next, JsonError> {
        let end = self.at + word.len();
        if self.text.get(self.at..end) != Some(word.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.push(kind, self.at, end);
        self.at = end;
        Ok(Next::Follow)
    }

    #[cold]
    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError { at: self.at, expected }
    }
}
