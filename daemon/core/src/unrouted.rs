//! Why an event goes to no table.

use std::fmt;

/// The reasons are a closed list: the API, the metrics and the log use their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnroutedReason {
    /// It has no value, or one without a byte.
    Empty,
    /// Its value is no JSON, as far as it was read.
    NotJson,
    /// Its value is JSON, but an array or a scalar.
    NotAnObject,
    /// It has none of the fields that the tables match on.
    NoSuchField,
    /// It has such a field, and no table takes its value.
    OtherValue,
}

impl UnroutedReason {
    pub const ALL: [Self; 5] = [Self::Empty, Self::NotJson, Self::NotAnObject, Self::NoSuchField, Self::OtherValue];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotJson => "not-json",
            Self::NotAnObject => "not-an-object",
            Self::NoSuchField => "no-such-field",
            Self::OtherValue => "other-value",
        }
    }
}

impl fmt::Display for UnroutedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The unrouted events of a chunk, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnroutedCounts {
    counts: [u64; UnroutedReason::ALL.len()],
    /// The row of the first one.
    pub first_row: Option<u32>,
}

impl UnroutedCounts {
    pub fn add(&mut self, row: u32, reason: UnroutedReason) {
        self.counts[reason as usize] += 1;
        self.first_row = self.first_row.or(Some(row));
    }

    pub fn get(&self, reason: UnroutedReason) -> u64 {
        self.counts[reason as usize]
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}
