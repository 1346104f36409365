//! Keeps the newest of any number of events, with a bounded memory.

use std::collections::BTreeMap;

use super::{Event, Place};

/// What an event costs in addition to its bytes.
const EVENT_BYTES: usize = 256;

/// The newest events of those that were added.
pub struct Newest {
    count_max: usize,
    bytes_max: usize,
    /// By their time, and then by their place, so that the same events are always in the same order.
    events: BTreeMap<(i64, Place), Event>,
    bytes: usize,
    is_cut: bool,
}

impl Newest {
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { count_max, bytes_max, events: BTreeMap::new(), bytes: 0, is_cut: false }
    }

    /// Adds an event, which has a place of its own, and forgets the oldest ones that there is no room for.
    pub fn add(&mut self, time: i64, event: Event) {
        self.bytes += bytes_of(&event);
        self.events.insert((time, event.place.clone()), event);
        while self.events.len() > self.count_max || self.bytes > self.bytes_max {
            self.is_cut |= self.events.len() <= self.count_max;
            let Some((_, oldest)) = self.events.pop_first() else { return };
            self.bytes -= bytes_of(&oldest);
        }
    }

    /// How many events may be kept.
    pub fn count_max(&self) -> usize {
        self.count_max
    }

    /// Whether every further event takes the place of another one.
    pub fn is_full(&self) -> bool {
        self.is_cut || self.events.len() >= self.count_max
    }

    /// Whether events were forgotten because of their size.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The oldest first.
    pub fn into_events(self) -> Vec<Event> {
        self.events.into_values().collect()
    }
}

fn bytes_of(event: &Event) -> usize {
    let headers: usize = event.headers.iter().map(String::len).sum();
    EVENT_BYTES + event.value.as_ref().map_or(0, Vec::len) + headers
}
