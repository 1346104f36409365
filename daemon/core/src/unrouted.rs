//! Why an event goes to no table.

use std::fmt;

use crate::offsets::LogPartition;

/// The name that the quarantine has for "no table". No Silver table can have it.
pub const NO_TABLE: &str = "unrouted";

/// The application id under which the quarantine counts how often `[quarantine] unrouted` was switched on and off: an
/// odd number means on.
pub const SWITCH_ID: &str = "silverd-unrouted";

/// The application id whose version is the next offset of a log partition: the quarantine has the unrouted events below
/// it.
pub fn progress_id(log: &LogPartition) -> String {
    format!("{SWITCH_ID}:{log}")
}

/// The reverse of [`progress_id`].
pub fn log_of_progress_id(app_id: &str) -> Option<LogPartition> {
    app_id.strip_prefix(SWITCH_ID)?.strip_prefix(':')?.parse().ok()
}

/// The reasons are a closed list: the API, the metrics, the log and the quarantine use their names.
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
    /// No table takes its topic, its key, its headers, or the value of such a field.
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

    /// The reason of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// The reason as a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Empty => "the event has no value",
            Self::NotJson => "the value is not JSON, as far as it was read",
            Self::NotAnObject => "the value is JSON, but not an object",
            Self::NoSuchField => "the value has none of the fields that the tables match on",
            Self::OtherValue => "no table takes an event with this topic, key, headers and fields",
        }
    }
}

impl fmt::Display for UnroutedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The unrouted events of a chunk, by reason, as ascending row numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnroutedEvents {
    rows: [Vec<u32>; UnroutedReason::ALL.len()],
}

impl UnroutedEvents {
    /// Adds a row, which is behind all rows with this reason.
    pub fn add(&mut self, row: u32, reason: UnroutedReason) {
        self.rows[reason as usize].push(row);
    }

    pub fn get(&self, reason: UnroutedReason) -> u64 {
        self.rows[reason as usize].len() as u64
    }

    pub fn total(&self) -> u64 {
        self.rows.iter().map(|rows| rows.len() as u64).sum()
    }

    pub fn first_row(&self) -> Option<u32> {
        self.rows.iter().filter_map(|rows| rows.first().copied()).min()
    }

    /// The rows with their reasons, in ascending order.
    pub fn in_order(&self) -> Vec<(u32, UnroutedReason)> {
        let of = |reason: UnroutedReason| self.rows[reason as usize].iter().map(move |row| (*row, reason));
        let mut rows: Vec<_> = UnroutedReason::ALL.into_iter().flat_map(of).collect();
        rows.sort_unstable();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back() {
        for reason in UnroutedReason::ALL {
            assert_eq!(UnroutedReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(UnroutedReason::parse("malformed"), None);
    }

    #[test]
    fn events_are_counted_by_reason_and_listed_in_order() {
        let mut events = UnroutedEvents::default();
        assert_eq!((events.total(), events.first_row(), events.in_order()), (0, None, vec![]));
        let rows = [(2, UnroutedReason::OtherValue), (3, UnroutedReason::Empty), (7, UnroutedReason::OtherValue)];
        for (row, reason) in rows {
            events.add(row, reason);
        }
        assert_eq!((events.total(), events.first_row()), (3, Some(2)));
        assert_eq!((events.get(UnroutedReason::OtherValue), events.get(UnroutedReason::NotJson)), (2, 0));
        assert_eq!(events.in_order(), rows);
    }
}
