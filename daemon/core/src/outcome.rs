//! The outcomes of a batch: which events have rows, which were rejected and which were dropped. A plugin's output is
//! checked here before it is used.

use crate::counts::Counts;

/// Why an event went to the quarantine. The first four codes come from plugins, the others from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    Malformed,
    MissingField,
    OutOfRange,
    Other,
    /// The plugin trapped (panicked) on this event alone.
    Trap,
    /// The plugin took longer than `limits.transform_time_max` on this event alone.
    Timeout,
    /// The plugin asked for more than `limits.memory_bytes_max` on this event alone.
    Memory,
    /// The plugin's output for this event alone breaks the contract.
    InvalidOutput,
}

impl Code {
    pub const ALL: [Code; 8] = [
        Code::Malformed,
        Code::MissingField,
        Code::OutOfRange,
        Code::Other,
        Code::Trap,
        Code::Timeout,
        Code::Memory,
        Code::InvalidOutput,
    ];

    /// Whether the plugin itself failed: the code comes from the host.
    pub fn is_fault(self) -> bool {
        matches!(self, Code::Trap | Code::Timeout | Code::Memory | Code::InvalidOutput)
    }

    /// The code that the quarantine table writes so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The code as the quarantine table has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Malformed => "malformed",
            Code::MissingField => "missing-field",
            Code::OutOfRange => "out-of-range",
            Code::Other => "other",
            Code::Trap => "trap",
            Code::Timeout => "timeout",
            Code::Memory => "memory",
            Code::InvalidOutput => "invalid-output",
        }
    }
}

/// An event that cannot become a row; `event` is its index in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub event: u32,
    pub code: Code,
    pub reason: String,
}

/// How a plugin's output breaks the contract.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOutput {
    #[error("the plugin returned {rows} rows and {row_events} row-events; each row needs one row-event")]
    Counts { rows: usize, row_events: usize },
    #[error("the plugin named event {event} of a batch of {events}")]
    NoSuchEvent { event: u32, events: usize },
    #[error("the row-events are not in ascending order: {later} comes after {earlier}")]
    NotAscending { earlier: u32, later: u32 },
    #[error("the plugin rejected event {0} twice")]
    TwoRejects(u32),
    #[error("the plugin rejected event {0} and also returned a row for it")]
    RowAndReject(u32),
}

/// Checks a plugin's output for a batch of `events` events, and counts the outcomes.
pub fn count_outcomes(
    events: usize,
    rows: usize,
    row_events: &[u32],
    rejects: &[Reject],
) -> Result<Counts, InvalidOutput> {
    if rows != row_events.len() {
        return Err(InvalidOutput::Counts { rows, row_events: row_events.len() });
    }
    let beyond = row_events.iter().copied().chain(rejects.iter().map(|r| r.event)).find(|e| *e as usize >= events);
    if let Some(event) = beyond {
        return Err(InvalidOutput::NoSuchEvent { event, events });
    }
    if let Some(pair) = row_events.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(InvalidOutput::NotAscending { earlier: pair[0], later: pair[1] });
    }
    let mut rejected: Vec<u32> = rejects.iter().map(|reject| reject.event).collect();
    rejected.sort_unstable();
    if let Some(pair) = rejected.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(InvalidOutput::TwoRejects(pair[0]));
    }
    if let Some(both) = rejected.iter().find(|event| row_events.binary_search(event).is_ok()) {
        return Err(InvalidOutput::RowAndReject(*both));
    }
    let with_rows = row_events.chunk_by(|a, b| a == b).count();
    let dropped = events - with_rows - rejected.len();
    Ok(Counts {
        events: events as u64,
        with_rows: with_rows as u64,
        rows: rows as u64,
        dropped: dropped as u64,
        duplicates: 0,
        rejected: rejected.len() as u64,
        late: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(events: usize, row_events: &[u32], rejected: &[u32]) -> Result<Counts, InvalidOutput> {
        let reject = |event: &u32| Reject { event: *event, code: Code::Other, reason: String::new() };
        let rejects: Vec<_> = rejected.iter().map(reject).collect();
        let counts = count_outcomes(events, row_events.len(), row_events, &rejects)?;
        assert!(counts.conserved(), "{counts:?}");
        Ok(counts)
    }

    #[test]
    fn every_event_has_one_outcome() {
        let counts = check(6, &[0, 2, 2, 5], &[4]).expect("valid output");
        assert_eq!((counts.with_rows, counts.rows, counts.dropped, counts.rejected), (3, 4, 2, 1));
        assert_eq!(check(0, &[], &[]), Ok(Counts::default()));
    }

    #[test]
    fn output_that_breaks_the_contract_is_refused() {
        assert_eq!(count_outcomes(1, 2, &[0], &[]), Err(InvalidOutput::Counts { rows: 2, row_events: 1 }));
        assert_eq!(check(3, &[3], &[]), Err(InvalidOutput::NoSuchEvent { event: 3, events: 3 }));
        assert_eq!(check(3, &[], &[7]), Err(InvalidOutput::NoSuchEvent { event: 7, events: 3 }));
        assert_eq!(check(3, &[1, 0], &[]), Err(InvalidOutput::NotAscending { earlier: 1, later: 0 }));
        assert_eq!(check(3, &[], &[1, 1]), Err(InvalidOutput::TwoRejects(1)));
        assert_eq!(check(3, &[1], &[1]), Err(InvalidOutput::RowAndReject(1)));
    }
}
