//! The trait that a plugin implements, and the loop that calls it for every event of a batch.

use crate::wit::types::{self, Batch};
use crate::{Config, Event, Reject};

/// A pure function from one event to the rows of one Silver table. See [`testing`](crate::testing) for an example.
pub trait Transform: Sized + 'static {
    /// What silverd reads from the event: the record `input` of the table's WIT file, or its record `event`, which also
    /// says where the event comes from.
    type Input;

    /// The rows of one event: `Option<Row>` for at most one row, `Vec<Row>` for any number.
    /// Without a row, the event is dropped; the daemon counts it.
    type Rows: IntoIterator;

    /// Creates the plugin from the table's settings and reference files in `pipeline.toml`. The daemon calls it once per
    /// instance, before the first event.
    ///
    /// # Errors
    /// A sentence for the engineer: what is wrong, and which edit fixes it. The daemon then does not use the plugin.
    fn configure(config: &Config) -> Result<Self, String>;

    /// Cleans and enriches one event.
    ///
    /// # Errors
    /// A [`Reject`]: the daemon writes the event to the quarantine, with the reason.
    fn transform(&self, input: Self::Input) -> Result<Self::Rows, Reject>;
}

/// A plugin that reads the raw records itself, because they are not JSON or because their form varies. Its table's
/// `transform` takes a `batch`.
pub trait TransformRaw: Sized + 'static {
    /// As [`Transform::Rows`].
    type Rows: IntoIterator;

    /// As [`Transform::configure`].
    ///
    /// # Errors
    /// As there.
    fn configure(config: &Config) -> Result<Self, String>;

    /// Cleans and enriches one event.
    ///
    /// # Errors
    /// A [`Reject`]: the daemon writes the event to the quarantine, with the reason.
    fn transform(&self, event: &Event<'_>) -> Result<Self::Rows, Reject>;
}

/// The plugin's answer to a batch: the `output` record of its table's interface.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformOutput<Row> {
    /// The rows for the table.
    pub rows: Vec<Row>,
    /// For each row, the index of its event in the batch. Ascending.
    pub row_events: Vec<u32>,
    /// The events that cannot become rows.
    pub rejects: Vec<types::Reject>,
}

impl<Row> TransformOutput<Row> {
    /// An empty one for so many events. Most events give one row; few are rejected.
    fn for_events(count: usize) -> Self {
        Self { rows: Vec::with_capacity(count), row_events: Vec::with_capacity(count), rejects: Vec::new() }
    }

    fn add(&mut self, event: usize, outcome: Result<impl IntoIterator<Item = Row>, Reject>) {
        let event = event as u32;
        match outcome {
            Ok(rows) => {
                self.rows.extend(rows);
                self.row_events.resize(self.rows.len(), event);
            }
            Err(Reject { code, reason }) => self.rejects.push(types::Reject { event, code, reason }),
        }
    }
}

/// Calls the plugin for every event.
pub fn transform_events<T: Transform>(
    plugin: &T,
    events: Vec<T::Input>,
) -> TransformOutput<<T::Rows as IntoIterator>::Item> {
    let mut output = TransformOutput::for_events(events.len());
    for (at, input) in events.into_iter().enumerate() {
        output.add(at, plugin.transform(input));
    }
    output
}

/// Calls the plugin for every record of the batch.
///
/// # Panics
/// If the columns of the batch have different lengths. The daemon packs them, so this would be a bug in the daemon.
pub fn transform_batch<T: TransformRaw>(plugin: &T, batch: &Batch) -> TransformOutput<<T::Rows as IntoIterator>::Item> {
    let mut output = TransformOutput::for_events(batch.value_ends.len());
    let (mut value_start, mut key_start, mut header_start) = (0, 0, 0);
    let (mut null_values, mut null_keys) = (batch.null_values.iter().peekable(), batch.null_keys.iter().peekable());
    for at in 0..batch.value_ends.len() {
        let (value_end, key_end) = (batch.value_ends[at] as usize, batch.key_ends[at] as usize);
        let header_end = batch.header_ends[at] as usize;
        let has_value = null_values.next_if_eq(&&(at as u32)).is_none();
        let has_key = null_keys.next_if_eq(&&(at as u32)).is_none();
        let event = Event {
            topic: &batch.topics[batch.record_topics[at] as usize],
            value: has_value.then(|| &batch.values[value_start..value_end]),
            key: has_key.then(|| &batch.keys[key_start..key_end]),
            headers: &batch.headers[header_start..header_end],
            partition: batch.partitions[at],
            offset: batch.offsets[at],
            timestamp: batch.timestamps[at],
        };
        (value_start, key_start, header_start) = (value_end, key_end, header_end);
        output.add(at, plugin.transform(&event));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a row for each byte of the value, and rejects `!`.
    struct Bytes;

    impl TransformRaw for Bytes {
        type Rows = Vec<(u8, Option<Vec<u8>>, i64)>;

        fn configure(_: &Config) -> Result<Self, String> {
            Ok(Bytes)
        }

        fn transform(&self, event: &Event<'_>) -> Result<Self::Rows, Reject> {
            let value = event.value.ok_or_else(|| Reject::other("a tombstone"))?;
            if value == b"!" {
                return Err(Reject::other("a bang"));
            }
            Ok(value.iter().map(|byte| (*byte, event.key.map(<[u8]>::to_vec), event.offset)).collect())
        }
    }

    #[test]
    fn batch_returns_rows_and_rejects_and_drops_the_rest() {
        let batch = Batch {
            values: b"a!xyz".to_vec(),
            value_ends: vec![1, 1, 2, 5, 5],
            null_values: vec![4],
            keys: b"kmm".to_vec(),
            key_ends: vec![1, 1, 1, 3, 3],
            null_keys: vec![2],
            topics: vec!["t".to_owned()],
            record_topics: vec![0; 5],
            partitions: vec![0; 5],
            offsets: vec![10, 11, 12, 13, 14],
            timestamps: vec![0; 5],
            headers: Vec::new(),
            header_ends: vec![0; 5],
        };
        let output = transform_batch(&Bytes, &batch);
        let mm = || Some(b"mm".to_vec());
        let rows = vec![(b'a', Some(b"k".to_vec()), 10), (b'x', mm(), 13), (b'y', mm(), 13), (b'z', mm(), 13)];
        assert_eq!(output.rows, rows);
        assert_eq!(output.row_events, [0, 3, 3, 3]);
        let reject =
            |event, reason: &str| types::Reject { event, code: types::RejectCode::Other, reason: reason.to_owned() };
        assert_eq!(output.rejects, [reject(2, "a bang"), reject(4, "a tombstone")]);
    }

    /// A row for each unit.
    struct Units;

    impl Transform for Units {
        type Input = u32;
        type Rows = std::ops::Range<u32>;

        fn configure(_: &Config) -> Result<Self, String> {
            Ok(Units)
        }

        fn transform(&self, input: u32) -> Result<Self::Rows, Reject> {
            if input > 9 { Err(Reject::out_of_range("too many")) } else { Ok(0..input) }
        }
    }

    #[test]
    fn typed_events_return_rows_and_rejects() {
        let output = transform_events(&Units, vec![2, 0, 10, 1]);
        assert_eq!((output.rows, output.row_events), (vec![0, 1, 0], vec![0, 0, 3]));
        assert_eq!(output.rejects.iter().map(|reject| reject.event).collect::<Vec<_>>(), [2]);
    }
}
