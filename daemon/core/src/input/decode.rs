//! From the JSON of an event to its bytes in an image.

use silverd_values as values;
use silverd_values::{Mismatch, MismatchKind, Scalar};

use super::image::{Block, Image, Region};
use super::records::Records;
use super::reject::{Found, Misfit, Rejection};
use super::{Enum, EventType, Field, Item, Slot, Type, meta};
use crate::json::{Kind, Node, Tape, unescape};
use crate::outcome::Code;

/// Decodes events, one after the other. It keeps its buffers.
#[derive(Default)]
pub struct Decoder {
    tape: Tape,
    found: Vec<u32>,
    text: Vec<u8>,
}

/// In `found`: the object has no such member.
const ABSENT: u32 = u32::MAX;

/// A place in an image.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) holder: Region,
    pub(super) at: u32,
}

impl Place {
    pub(super) fn plus(self, by: u32) -> Self {
        Self { at: self.at + by, ..self }
    }
}

impl Decoder {
    /// Appends an event to the image, unless it does not fit its type or takes more than `bytes_max`.
    pub fn decode(
        &mut self,
        ty: &EventType,
        records: &Records<'_>,
        row: usize,
        image: &mut Image,
        bytes_max: usize,
    ) -> Result<(), Rejection> {
        let mark = image.mark();
        let decoded = self.append(ty, records, row, image, bytes_max);
        match decoded {
            Ok(()) => image.finish_event(),
            Err(_) => image.undo(&mark),
        }
        decoded
    }

    fn append(
        &mut self,
        ty: &EventType,
        records: &Records<'_>,
        row: usize,
        image: &mut Image,
        bytes_max: usize,
    ) -> Result<(), Rejection> {
        let place = Place { holder: Region::Events, at: image.push_event(ty.layout) };
        if let Some(meta) = &ty.meta {
            meta::write(meta, records, row, image, place);
        }
        let (start, end) = (records.values.value_offsets()[row], records.values.value_offsets()[row + 1]);
        let text = &records.values.value_data()[start as usize..end as usize];
        let Type::Record(fields) = &ty.input.ty else { return Ok(()) };
        let mut place = place.plus(ty.input.at);
        match (ty.input.optional, records.is_tombstone(row)) {
            (Some(_), true) => return Ok(()),
            (None, true) => return Err(Rejection::malformed("the record has no value (a tombstone)")),
            (Some(payload), false) => {
                image.write(place.holder, place.at, &[1]);
                place = place.plus(payload);
            }
            (None, false) => {}
        }
        self.tape.read(text).map_err(|error| Rejection::not_json(text, error))?;
        if self.tape.nodes()[0].kind != Kind::Object {
            return Err(Rejection::malformed("not a JSON object"));
        }
        self.found.clear();
        let nested_before = image.nested().len();
        let (found, scratch) = (&mut self.found, &mut self.text);
        let mut reader = Reader {
            event: text,
            base: start as u32,
            tape: &self.tape,
            image,
            nested_before,
            bytes_max,
            found,
            scratch,
        };
        Ok(reader.record(fields, 0, place)?)
    }
}

/// What an event is read from, and written to.
struct Reader<'p> {
    event: &'p [u8],
    /// Where the event is in the chunk's values.
    base: u32,
    tape: &'p Tape,
    image: &'p mut Image,
    /// How much the events before it take of the nested bytes.
    nested_before: usize,
    bytes_max: usize,
    /// The nodes of the fields of the records that are being read.
    found: &'p mut Vec<u32>,
    scratch: &'p mut Vec<u8>,
}

impl Reader<'_> {
    fn record(&mut self, fields: &[Field], object: usize, place: Place) -> Result<(), Misfit> {
        let first = self.found.len();
        self.found.resize(first + fields.len(), ABSENT);
        // Producers write the fields of all events in one order: the next field is likely the one after the last.
        let mut likely = 0;
        for (key, value) in self.tape.members(object) {
            let is_key = |at: usize| self.tape.is_key(self.event, key, &fields[at].key);
            let field = (likely..fields.len()).chain(0..likely).find(|at| is_key(*at));
            if let Some(field) = field {
                // Of members with the same key, the first one counts, as in routing.
                if self.found[first + field] == ABSENT {
                    self.found[first + field] = value as u32;
                }
                likely = field + 1;
            }
        }
        for (at, field) in fields.iter().enumerate() {
            let node = self.found[first + at];
            let node = (node != ABSENT).then_some(node as usize);
            self.slot(&field.slot, node, place).map_err(|misfit| misfit.in_field(&field.key))?;
        }
        self.found.truncate(first);
        Ok(())
    }

    fn slot(&mut self, slot: &Slot, node: Option<usize>, place: Place) -> Result<(), Misfit> {
        let place = place.plus(slot.at);
        let node = node.filter(|node| !self.is_absent(slot, *node));
        match (slot.optional, node) {
            (Some(_), None) => Ok(()),
            (Some(payload), Some(node)) => {
                self.image.write(place.holder, place.at, &[1]);
                self.value(&slot.ty, node, place.plus(payload))
            }
            (None, Some(node)) => self.value(&slot.ty, node, place),
            (None, None) => Err(Misfit::missing()),
        }
    }

    /// Null is no value, and neither is blank text where a text is needed or something other than a text is expected.
    fn is_absent(&mut self, slot: &Slot, node: usize) -> bool {
        let is_optional = slot.optional.is_some();
        match (self.node(node).kind, &slot.ty) {
            (Kind::Null, Type::Json) => is_optional,
            (Kind::Null, _) => true,
            (_, Type::Json | Type::Char) => false,
            (Kind::Text | Kind::Escaped, Type::Text) => !is_optional && self.is_blank(node),
            (Kind::Text | Kind::Escaped, _) => self.is_blank(node),
            _ => false,
        }
    }

    #[inline]
    fn is_blank(&mut self, node: usize) -> bool {
        let raw = self.raw(node);
        match raw.first() {
            Some(first) if first.is_ascii_graphic() && *first != b'\\' => false,
            _ => self.content(node).chars().all(char::is_whitespace),
        }
    }

    #[inline]
    fn node(&self, node: usize) -> &Node {
        &self.tape.nodes()[node]
    }

    /// The text of a node as it stands in the event; a string without its quotes.
    #[inline]
    fn raw(&self, node: usize) -> &[u8] {
        let node = self.node(node);
        &self.event[node.start as usize..node.end as usize]
    }

    /// The content of a string.
    fn content(&mut self, node: usize) -> &str {
        let Node { kind, start, end, .. } = *self.node(node);
        let raw = &self.event[start as usize..end as usize];
        if kind == Kind::Escaped {
            self.scratch.clear();
            unescape(raw, self.scratch);
            return utf8(self.scratch);
        }
        utf8(raw)
    }

    fn scalar(&mut self, node: usize) -> Option<Scalar<'_>> {
        Some(match self.node(node).kind {
            Kind::Null => Scalar::Null,
            Kind::True => Scalar::Bool(true),
            Kind::False => Scalar::Bool(false),
            Kind::Number => Scalar::Number(utf8(self.raw(node))),
            Kind::Text | Kind::Escaped => Scalar::Text(self.content(node)),
            Kind::Object | Kind::Array => return None,
        })
    }

    fn value(&mut self, ty: &Type, node: usize, place: Place) -> Result<(), Misfit> {
        match ty {
            Type::Bool => self.copy(node, place, |scalar| values::boolean(scalar).map(|value| [u8::from(value)]))?,
            Type::Signed { bytes } => {
                let shift = 64 - 8 * u32::from(*bytes);
                let value = self.read(node, |scalar| values::signed(scalar, i64::MIN >> shift, i64::MAX >> shift))?;
                self.write(place, &value.to_le_bytes()[..usize::from(*bytes)]);
            }
            Type::Unsigned { bytes } => {
                let shift = 64 - 8 * u32::from(*bytes);
                let value = self.read(node, |scalar| values::unsigned(scalar, u64::MAX >> shift))?;
                self.write(place, &value.to_le_bytes()[..usize::from(*bytes)]);
            }
            Type::Float32 => {
                let value = self.read(node, values::float)? as f32;
                if value.is_infinite() {
                    return Err(self.misfit(node, Code::OutOfRange, "a number that fits 32 bits"));
                }
                self.write(place, &value.to_le_bytes());
            }
            Type::Float64 => self.copy(node, place, |scalar| values::float(scalar).map(f64::to_le_bytes))?,
            Type::Timestamp => self.copy(node, place, |scalar| values::timestamp(scalar).map(i64::to_le_bytes))?,
            Type::Date => self.copy(node, place, |scalar| values::date(scalar).map(i32::to_le_bytes))?,
            Type::Money => self.copy(node, place, |scalar| values::money(scalar).map(i64::to_le_bytes))?,
            Type::Char => {
                let character = match self.scalar(node) {
                    Some(Scalar::Text(text)) => {
                        let mut characters = text.chars();
                        characters.next().filter(|_| characters.next().is_none())
                    }
                    _ => None,
                };
                let character =
                    character.ok_or_else(|| self.misfit(node, Code::Malformed, "a text of one character"))?;
                self.write(place, &u32::from(character).to_le_bytes());
            }
            Type::Enum(cases) => self.case(cases, node, place)?,
            Type::Text => self.text(node, place)?,
            Type::Json => self.json(node, place),
            Type::Record(fields) => match self.node(node).kind {
                Kind::Object => self.record(fields, node, place)?,
                _ => return Err(self.misfit(node, Code::Malformed, "an object")),
            },
            Type::List(item) => match self.node(node).kind {
                Kind::Array => self.list(item, node, place)?,
                _ => return Err(self.misfit(node, Code::Malformed, "an array")),
            },
            Type::Map(item) => match self.node(node).kind {
                Kind::Object => self.map(item, node, place)?,
                _ => return Err(self.misfit(node, Code::Malformed, "an object")),
            },
        }
        Ok(())
    }

    #[inline]
    fn write(&mut self, place: Place, bytes: &[u8]) {
        self.image.write(place.holder, place.at, bytes);
    }

    #[inline]
    fn read<T>(&mut self, node: usize, read: impl FnOnce(Scalar<'_>) -> Result<T, Mismatch>) -> Result<T, Misfit> {
        match self.scalar(node).map(read) {
            Some(Ok(value)) => Ok(value),
            Some(Err(mismatch)) => {
                let code = match mismatch.kind {
                    MismatchKind::Malformed => Code::Malformed,
                    MismatchKind::OutOfRange => Code::OutOfRange,
                };
                Err(self.misfit(node, code, mismatch.expected))
            }
            None => Err(self.misfit(node, Code::Malformed, "one value, not an object or an array")),
        }
    }

    /// Reads a value that takes `N` bytes, and writes it.
    #[inline]
    fn copy<const N: usize>(
        &mut self,
        node: usize,
        place: Place,
        read: impl FnOnce(Scalar<'_>) -> Result<[u8; N], Mismatch>,
    ) -> Result<(), Misfit> {
        let bytes = self.read(node, read)?;
        self.write(place, &bytes);
        Ok(())
    }

    #[cold]
    fn misfit(&self, node: usize, code: Code, expected: &str) -> Misfit {
        let (start, end) = self.span(node);
        let found = match self.node(node).kind {
            Kind::Text => Found::Text(self.raw(node)),
            _ => Found::Other(&self.event[start as usize..end as usize]),
        };
        Misfit::value(code, expected, &found, start)
    }

    /// Where a value is in the event; a string with its quotes.
    fn span(&self, node: usize) -> (u32, u32) {
        let node = self.node(node);
        match node.kind {
            Kind::Text | Kind::Escaped => (node.start - 1, node.end + 1),
            _ => (node.start, node.end),
        }
    }

    fn case(&mut self, cases: &Enum, node: usize, place: Place) -> Result<(), Misfit> {
        let found = match self.scalar(node) {
            Some(Scalar::Text(text) | Scalar::Number(text)) => {
                cases.cases.iter().position(|case| is_case(case, text.trim())).map(|at| at as u32)
            }
            Some(_) | None => return Err(self.misfit(node, Code::Malformed, "a text")),
        };
        let Some(case) = found.or(cases.fallback) else {
            let expected = format!("one of {}", cases.cases.join(", "));
            return Err(self.misfit(node, Code::OutOfRange, &expected));
        };
        self.write(place, &case.to_le_bytes()[..usize::from(cases.bytes)]);
        Ok(())
    }

    /// Numbers and booleans are text, too: an id may be a number.
    #[inline]
    fn text(&mut self, node: usize, place: Place) -> Result<(), Misfit> {
        match self.node(node).kind {
            Kind::Text | Kind::Number | Kind::True | Kind::False => {
                let Node { start, end, .. } = *self.node(node);
                self.event_text(start, end, place);
                Ok(())
            }
            Kind::Escaped => {
                let raw = &self.event[self.node(node).start as usize..self.node(node).end as usize];
                let nested = self.image.nested_mut();
                let start = nested.len();
                unescape(raw, nested);
                let len = (nested.len() - start) as u32;
                let Place { holder, at } = place;
                let block = Block { holder, pointer: at, region: Region::Nested, start: start as u32, len, align: 1 };
                self.image.push_block(block, len);
                Ok(())
            }
            Kind::Null | Kind::Object | Kind::Array => Err(self.misfit(node, Code::Malformed, "a text")),
        }
    }

    fn json(&mut self, node: usize, place: Place) {
        let (start, end) = self.span(node);
        self.event_text(start, end, place);
    }

    /// A part of the event's own bytes.
    #[inline]
    fn event_text(&mut self, start: u32, end: u32, place: Place) {
        let (start, len) = (self.base + start, end - start);
        let block = Block { holder: place.holder, pointer: place.at, region: Region::Values, start, len, align: 1 };
        self.image.push_block(block, len);
    }

    fn list(&mut self, item: &Item, array: usize, place: Place) -> Result<(), Misfit> {
        let count = self.tape.items(array).count();
        let start = self.push_list(item, count, place)?;
        let tape = self.tape;
        for (at, node) in tape.items(array).enumerate() {
            let place = Place { holder: Region::Nested, at: start + at as u32 * item.layout.size };
            self.item(&item.slot, node, place).map_err(|misfit| misfit.in_item(at))?;
        }
        Ok(())
    }

    fn map(&mut self, item: &Item, object: usize, place: Place) -> Result<(), Misfit> {
        let count = self.tape.members(object).count();
        let start = self.push_list(item, count, place)?;
        let tape = self.tape;
        for (at, (key, node)) in tape.members(object).enumerate() {
            let place = Place { holder: Region::Nested, at: start + at as u32 * item.layout.size };
            self.text(key, place)?;
            self.item(&item.slot, node, place).map_err(|misfit| {
                let key = self.content(key).to_owned();
                misfit.in_field(&key)
            })?;
        }
        Ok(())
    }

    /// An item of a list or a map. Other than in a field, a text may be blank there.
    fn item(&mut self, slot: &Slot, node: usize, place: Place) -> Result<(), Misfit> {
        match (&slot.ty, slot.optional, self.node(node).kind) {
            (Type::Text, None, Kind::Text | Kind::Escaped) => self.text(node, place.plus(slot.at)),
            _ => self.slot(slot, Some(node), place),
        }
    }

    fn push_list(&mut self, item: &Item, count: usize, place: Place) -> Result<u32, Misfit> {
        let bytes = count * item.layout.size as usize;
        let taken = self.image.nested().len() - self.nested_before;
        if bytes > self.bytes_max.saturating_sub(taken) {
            return Err(Misfit::too_large(self.bytes_max));
        }
        let start = self.image.push_items(bytes);
        let Place { holder, at } = place;
        let align = item.layout.align;
        let block = Block { holder, pointer: at, region: Region::Nested, start, len: bytes as u32, align };
        self.image.push_block(block, count as u32);
        Ok(start)
    }
}

/// The tape has checked the whole event, and a string ends between characters.
#[inline]
fn utf8(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or_default()
}

/// Cases are spelled with hyphens; texts also with underscores, spaces and capitals.
fn is_case(case: &str, text: &str) -> bool {
    let plain = |byte: u8| if matches!(byte, b'_' | b' ') { b'-' } else { byte.to_ascii_lowercase() };
    case.len() == text.len() && case.bytes().zip(text.bytes()).all(|(a, b)| plain(a) == plain(b))
}
