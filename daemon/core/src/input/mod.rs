//! Typed input: the record `input` of a table's WIT says what the table needs of an event. silverd reads it from the
//! event's JSON, natively and once, into the form that `list<event>` has in a guest's memory. So no plugin has a parser.

mod columns;
mod decode;
mod from_wit;
mod image;
mod meta;
mod names;
mod of_types;
mod records;
mod reject;

#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use image::{Block, Image, Region};
pub use names::NAME_LINE;
pub use of_types::{InputField, InputWit, TypeError, input_wit, interface_wit};
pub use records::Records;
pub use reject::Rejection;

/// The version of the decoder. Raise it if any event gets another value than before, or another reject: each commit of a
/// table with typed input names the version that read its events. Commits that name none are from before it was counted,
/// and have the first.
pub const DECODER_VERSION: u32 = 1;

/// What a table's `transform` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Raw records: the contract's `batch`, in the version of the component.
    Raw(ContractVersion),
    /// Typed events.
    Typed(EventType),
}

impl Input {
    /// Whether it distinguishes a record without a value from others.
    pub fn takes_tombstones(&self) -> bool {
        match self {
            Self::Raw(version) => *version == ContractVersion::V0_2,
            Self::Typed(ty) => ty.input.optional.is_some(),
        }
    }
}

/// The versions of the contract (`wit/types.wit`) that silverd fulfils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContractVersion {
    V0_1,
    V0_2,
}

/// The type of an event in `list<event>`, with its place in a guest's memory by the canonical ABI: the author's `input`
/// alone, or a record of it and of the contract's `meta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventType {
    pub layout: Layout,
    /// The record `input`. It is an option where the table takes tombstones.
    pub input: Slot,
    /// Where the record `meta` is, if the table asks for it.
    pub meta: Option<MetaType>,
}

/// The size of a value, and the alignment of its address, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub size: u32,
    pub align: u32,
}

/// A place for a value: in an event, a record, or an item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its offset in what it is part of.
    pub at: u32,
    /// For an `option`: the offset of its payload from `at`. The discriminant is at `at`.
    pub optional: Option<u32>,
    pub ty: Type,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The key in the JSON object: `event_id` for WIT's `event-id`, unless a line `/// @name("…")` says otherwise.
    pub key: String,
    pub slot: Slot,
}

/// How a JSON value becomes a value of WIT; `docs/values.md` has the accepted forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Signed {
        bytes: u8,
    },
    Unsigned {
        bytes: u8,
    },
    Float32,
    Float64,
    Char,
    Text,
    /// Any value, as the text that it has in the event.
    Json,
    Timestamp,
    Date,
    Money,
    Enum(Enum),
    Record(Vec<Field>),
    List(Box<Item>),
    /// `list<tuple<string, T>>`: the members of an object, in their order.
    Map(Box<Item>),
}

/// An item of a list. That of a map begins with its key, a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub layout: Layout,
    pub slot: Slot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enum {
    /// The texts of the cases, in the order of their discriminants.
    pub cases: Vec<String>,
    /// The case for every other text: the one that is named `other` or `unknown`.
    pub fallback: Option<u32>,
    /// The size of the discriminant.
    pub bytes: u8,
}

/// The offsets of the contract's record `meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaType {
    pub at: u32,
    pub topic: u32,
    pub partition: u32,
    pub offset: u32,
    pub timestamp: u32,
    pub key: OptionalBytes,
    pub headers: u32,
    pub header: HeaderType,
}

/// The contract's record `header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderType {
    pub layout: Layout,
    pub name: u32,
    pub value: OptionalBytes,
}

/// An `option<list<u8>>`: its offset, and that of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalBytes {
    pub at: u32,
    pub payload: u32,
}
