//! The trait that a plugin implements, and the loop that takes a batch through it.

use crate::wit::types::{self, Batch};
use crate::{Config, Event, Reject};

/// A pure function from one event to the rows of one Silver table.
pub trait Transform: Sized + 'static {
    /// What one event gives: `Option<Row>` for at most one row, `Vec<Row>` for any number.
    /// No row at all drops the event; the daemon counts it.
    type Rows: IntoIterator;

    /// Takes the settings and reference data that `pipeline.toml` gives to this table. Called once, before any event.
    ///
    /// # Errors
    /// A sentence for the engineer: what is wrong, and the edit that helps. The plugin is then not used.
    fn configure(config: &Config) -> Result<Self, String>;

    /// Cleans and enriches one event.
    ///
    /// # Errors
    /// A [`Reject`] sends the event to the quarantine, with the reason.
    fn transform(&self, event: &Event<'_>) -> Result<Self::Rows, Reject>;
}

/// What a plugin makes of a batch: the `output` record of its table's interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdicts<Row> {
    /// The table's new rows.
    pub rows: Vec<Row>,
    /// For each row, the index of the event that gave it. Ascending.
    pub row_events: Vec<u32>,
    /// The events that cannot become rows.
    pub rejects: Vec<types::Reject>,
}

/// Takes every event of the batch through the plugin.
///
/// # Panics
/// If the batch's columns do not fit together: the daemon packs them, so that would be a bug of the daemon's.
pub fn transform_batch<T: Transform>(plugin: &T, batch: &Batch) -> Verdicts<<T::Rows as IntoIterator>::Item> {
    let count = batch.value_ends.len();
    // Nearly every event gives one row, and nearly none is rejected.
    let mut verdicts =
        Verdicts { rows: Vec::with_capacity(count), row_events: Vec::with_capacity(count), rejects: Vec::new() };
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
                verdicts.rows.extend(rows);
                verdicts.row_events.resize(verdicts.rows.len(), number);
            }
            Err(Reject { code, reason }) => verdicts.rejects.push(types::Reject { event: number, code, reason }),
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a row for each byte of the value, and rejects a `!`.
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
    fn a_batch_gives_rows_drops_and_rejects() {
        let batch = Batch {
            values: b"a!xyz".to_vec(),
            value_ends: vec![1, 1, 2, 5],
            keys: b"kmm".to_vec(),
            key_ends: vec![1, 1, 1, 3],
            partitions: vec![0; 4],
            offsets: vec![10, 11, 12, 13],
            timestamps: vec![0; 4],
        };
        let verdicts = transform_batch(&Bytes, &batch);
        let mm = b"mm".to_vec();
        let rows = vec![(b'a', b"k".to_vec(), 10), (b'x', mm.clone(), 13), (b'y', mm.clone(), 13), (b'z', mm, 13)];
        assert_eq!(verdicts.rows, rows);
        assert_eq!(verdicts.row_events, [0, 3, 3, 3]);
        let bang = types::Reject { event: 2, code: types::RejectCode::Other, reason: "a bang".to_owned() };
        assert_eq!(verdicts.rejects, [bang]);
    }
}
