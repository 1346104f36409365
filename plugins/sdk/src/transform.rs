//! The trait that a plugin implements, and the loop that calls it for every event of a batch.

use crate::wit::types::{self, Batch};
use crate::{Config, Event, Reject};

/// A pure function from one event to the rows of one Silver table.
///
/// A row for each line of an order, with a setting of `pipeline.toml`:
///
/// ```
/// use silverd_plugin::{Config, Reject, Transform, testing};
///
/// // `export!` generates these from the table's WIT file.
/// struct Line {
///     sku: String,
///     qty: u32,
/// }
/// struct Input {
///     order_id: String,
///     ts: i64,
///     lines: Vec<Line>,
/// }
/// #[derive(Debug, PartialEq)]
/// struct Row {
///     order_id: String,
///     ts: i64,
///     sku: String,
///     qty: u32,
/// }
///
/// struct OrderLines {
///     qty_max: u32,
/// }
///
/// impl Transform for OrderLines {
///     type Input = Input;
///     type Rows = Vec<Row>;
///
///     fn configure(config: &Config) -> Result<Self, String> {
///         let qty_max = config.setting("qty_max").unwrap_or("1000");
///         let error = || format!("settings.qty_max: {qty_max} is not a whole number; write `qty_max = 1000`");
///         Ok(Self { qty_max: qty_max.parse::<u32>().map_err(|_| error())? })
///     }
///
///     fn transform(&self, input: Input) -> Result<Vec<Row>, Reject> {
///         let mut rows = Vec::with_capacity(input.lines.len());
///         for (at, Line { sku, qty }) in input.lines.into_iter().enumerate() {
///             if qty > self.qty_max {
///                 let reject = Reject::out_of_range(format!("qty: {qty} is more than {}", self.qty_max));
///                 return Err(reject.within(format_args!("lines[{at}]")));
///             }
///             rows.push(Row { order_id: input.order_id.clone(), ts: input.ts, sku, qty });
///         }
///         Ok(rows)
///     }
/// }
///
/// let plugin: OrderLines = testing::configured(&Config::new().with_setting("qty_max", "5"));
/// let order = |qty| {
///     let lines = vec![Line { sku: "TEA".to_owned(), qty: 1 }, Line { sku: "CUP".to_owned(), qty }];
///     Input { order_id: "o1".to_owned(), ts: 0, lines }
/// };
/// assert_eq!(testing::rows(&plugin, order(5)).map(|rows| rows.len()), Ok(2));
/// let rejected = testing::rows(&plugin, order(6)).unwrap_err();
/// assert_eq!(rejected.to_string(), "out-of-range: lines[1]: qty: 6 is more than 5");
/// ```
pub trait Transform: Sized + 'static {
    /// What silverd reads from the event: the record `input` of the table's WIT file, or its record `event`, which also
    /// says where the event comes from:
    ///
    /// ```
    /// use silverd_plugin::{Config, Header, Meta, Reject, Transform, testing};
    ///
    /// // `export!` generates these from the table's WIT file, which says `record event { input: input, meta: meta }`.
    /// struct Input {
    ///     user_id: String,
    /// }
    /// struct Event {
    ///     input: Input,
    ///     meta: Meta,
    /// }
    ///
    /// struct Users;
    ///
    /// impl Transform for Users {
    ///     type Input = Event;
    ///     type Rows = Option<(String, String)>;
    ///
    ///     fn configure(_: &Config) -> Result<Self, String> {
    ///         Ok(Users)
    ///     }
    ///
    ///     fn transform(&self, event: Event) -> Result<Self::Rows, Reject> {
    ///         let tenant = event.meta.headers.iter().find(|header| header.name == "tenant");
    ///         let tenant = tenant.and_then(|header| header.value.as_deref()).unwrap_or_default();
    ///         Ok(Some((String::from_utf8_lossy(tenant).into_owned(), event.input.user_id)))
    ///     }
    /// }
    ///
    /// let headers = vec![Header { name: "tenant".to_owned(), value: Some(b"north".to_vec()) }];
    /// let meta = Meta { topic: "users".to_owned(), partition: 0, offset: 7, timestamp: 0, key: None, headers };
    /// let event = Event { input: Input { user_id: "ann".to_owned() }, meta };
    /// assert_eq!(testing::rows(&Users, event), Ok(vec![("north".to_owned(), "ann".to_owned())]));
    /// ```
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
///
/// Records with several lines of text, each of which is a row:
///
/// ```
/// use silverd_plugin::{Config, Event, Reject, TransformRaw, quoted, testing};
///
/// #[derive(Debug, PartialEq)]
/// struct Row {
///     sensor: String,
///     celsius: f64,
/// }
///
/// struct Readings;
///
/// impl TransformRaw for Readings {
///     type Rows = Vec<Row>;
///
///     fn configure(_: &Config) -> Result<Self, String> {
///         Ok(Readings)
///     }
///
///     fn transform(&self, event: &Event<'_>) -> Result<Vec<Row>, Reject> {
///         let Some(value) = event.value else {
///             return Ok(Vec::new()); // a tombstone: dropped
///         };
///         let text = std::str::from_utf8(value).map_err(|_| Reject::malformed("the record is not UTF-8"))?;
///         text.lines().map(row).collect()
///     }
/// }
///
/// fn row(line: &str) -> Result<Row, Reject> {
///     let (sensor, celsius) =
///         line.split_once(';').ok_or_else(|| Reject::malformed(format!("{} has no semicolon", quoted(line))))?;
///     let celsius = celsius
///         .parse::<f64>()
///         .map_err(|_| Reject::malformed(format!("celsius: {} is not a number", quoted(celsius))))?;
///     Ok(Row { sensor: sensor.to_owned(), celsius })
/// }
///
/// let rows = testing::raw_rows(&Readings, "cellar;11.5\nattic;19").unwrap();
/// assert_eq!(rows[1], Row { sensor: "attic".to_owned(), celsius: 19.0 });
/// let rejected = testing::raw_rows(&Readings, "cellar;warm").unwrap_err();
/// assert_eq!(rejected.to_string(), "malformed: celsius: \"warm\" is not a number");
/// ```
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
