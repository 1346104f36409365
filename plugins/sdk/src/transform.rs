//! The trait that a plugin implements, and the loop that calls it for every event of a batch.

use crate::wit::types::{self, Batch};
use crate::{Config, Event, Reject};

/// A pure function from one event to the rows of one Silver table. See [`testing`](crate::testing) for an example.
pub trait Transform: Sized + 'static {
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

/// Calls the plugin for every event of the batch.
///
/// # Panics
/// If the columns of the batch have different lengths. The daemon packs them, so this would be a bug in the daemon.
pub fn transform_batch<T: Transform>(plugin: &T, batch: &Batch) -> TransformOutput<<T::Rows as IntoIterator>::Item> {
    let count = batch.value_ends.len();
    // Most events give one row; few are rejected.
    let mut output =
        TransformOutput { rows: Vec::with_capacity(count), row_events: Vec::with_capacity(count), rejects: Vec::new() };
    let (mut value_start, mut key_start) = (0, 0);
    for index in 0..count {
        let (value_end, key_end) = (batch.value_ends[index] as usize, batch.key_ends[index] as usize);
        let event = Event {
            value: &batch.values[value_start..value_end],
            key: &batch.keys[key_start..key_end],
            partition: batch.partitions[index],
            offset: batch.offsets[index],
            timestamp: batch.timestamps[index],
        };
        (value_start, key_start) = (value_end, key_end);
        let number = index as u32;
        match plugin.transform(&event) {
            Ok(rows) => {
                output.rows.extend(rows);
                output.row_events.resize(output.rows.len(), number);
            }
            Err(Reject { code, reason }) => output.rejects.push(types::Reject { event: number, code, reason }),
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a row for each byte of the value, and rejects `!`.
    struct Bytes;

    impl Transform for Bytes {
        type Rows = Vec<(u8, Vec<u8>, i64)>;

        fn configure(_: &Config) -> Result<Self, String> {
            Ok(Bytes)
        }

        fn transform(&self, event: &Event<'_>) -> Result<Self::Rows, Reject> {
            if event.value == b"!" {
                return Err(Reject::other("a bang"));
            }
            Ok(event.value.iter().map(|byte| (*byte, event.key.to_vec(), event.offset)).collect())
        }
    }

    #[test]
    fn batch_returns_rows_and_rejects_and_drops_the_rest() {
        let batch = Batch {
            values: b"a!xyz".to_vec(),
            value_ends: vec![1, 1, 2, 5],
            keys: b"kmm".to_vec(),
            key_ends: vec![1, 1, 1, 3],
            partitions: vec![0; 4],
            offsets: vec![10, 11, 12, 13],
            timestamps: vec![0; 4],
        };
        let output = transform_batch(&Bytes, &batch);
        let mm = b"mm".to_vec();
        let rows = vec![(b'a', b"k".to_vec(), 10), (b'x', mm.clone(), 13), (b'y', mm.clone(), 13), (b'z', mm, 13)];
        assert_eq!(output.rows, rows);
        assert_eq!(output.row_events, [0, 3, 3, 3]);
        let bang = types::Reject { event: 2, code: types::RejectCode::Other, reason: "a bang".to_owned() };
        assert_eq!(output.rejects, [bang]);
    }
}
