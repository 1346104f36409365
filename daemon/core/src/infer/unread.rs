//! Records that are no JSON object, by what they are.

use serde::Serialize;

use super::Place;
use crate::json::{Kind, Tape};

/// What a record is whose value is no JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotAnObject {
    /// Null: a tombstone in a compacted topic.
    NoValue,
    Empty,
    NotUtf8,
    /// The magic byte 0 and the id of a schema, as registries of Avro, Protobuf and JSON Schema have them.
    RegistryFrame,
    BrokenJson,
    Array,
    /// A text, a number, a boolean or null.
    Scalar,
}

impl NotAnObject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoValue => "without a value (tombstones)",
            Self::Empty => "empty",
            Self::NotUtf8 => "not UTF-8",
            Self::RegistryFrame => "in the format of a schema registry (magic byte 0: Avro, Protobuf)",
            Self::BrokenJson => "broken JSON",
            Self::Array => "JSON arrays",
            Self::Scalar => "JSON texts, numbers, booleans or null",
        }
    }
}

/// The records of one kind that are no objects.
#[derive(Clone, Debug, Serialize)]
pub struct Unread {
    pub reason: NotAnObject,
    pub count: u64,
    /// The first of them.
    pub example: Place,
    /// What the reader of JSON says of it.
    pub error: Option<String>,
}

/// A frame of a schema registry: the magic byte, and the id in four bytes.
const FRAME_BYTES_MIN: usize = 5;

/// Reads a value onto the tape. The error says why it is no object, and what the reader of JSON says of it.
pub(super) fn read_object(value: Option<&[u8]>, tape: &mut Tape) -> Result<(), (NotAnObject, Option<String>)> {
    let value = value.ok_or((NotAnObject::NoValue, None))?;
    if value.iter().all(u8::is_ascii_whitespace) {
        return Err((NotAnObject::Empty, None));
    }
    if value[0] == 0 && value.len() >= FRAME_BYTES_MIN {
        return Err((NotAnObject::RegistryFrame, None));
    }
    if let Err(error) = tape.read(value) {
        let reason = if error.expected == "UTF-8" { NotAnObject::NotUtf8 } else { NotAnObject::BrokenJson };
        return Err((reason, Some(error.to_string())));
    }
    match tape.nodes().first().map(|node| node.kind) {
        Some(Kind::Object) => Ok(()),
        Some(Kind::Array) => Err((NotAnObject::Array, None)),
        _ => Err((NotAnObject::Scalar, None)),
    }
}
