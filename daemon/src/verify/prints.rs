//! Fingerprints of rows: equal rows have equal ones, in whatever file and order they stand.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, Date32Array, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use silverd_core::schema::added;

/// Turns rows of one table into fingerprints, and shows them.
pub struct Prints {
    schema: SchemaRef,
    converter: RowConverter,
}

/// How many rows there are of a kind, and the sum of their fingerprints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: u64,
    prints: u128,
}

impl Sum {
    pub fn add(&mut self, print: u128) {
        self.rows += 1;
        self.prints = self.prints.wrapping_add(print);
    }
}

impl Prints {
    /// For rows with the columns of a table's files, and the day. Without `origin`, where a row came from and when does not
    /// count.
    pub fn new(files: &Schema, origin: bool) -> anyhow::Result<Self> {
        let of_origin = |name: &str| name != added::EVENT_DATE && added::ALL.contains(&name);
        let fields = files.fields().iter().filter(|field| origin || !of_origin(field.name()));
        let mut fields: Vec<Field> =
            fields.map(|field| Field::new(field.name(), plain(field.data_type()), true)).collect();
        fields.push(Field::new(added::EVENT_DATE, DataType::Date32, true));
        let sort = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { converter: RowConverter::new(sort)?, schema: Arc::new(Schema::new(fields)) })
    }

    /// The rows with the columns that count, in their order and plain types; a column that they lack is null.
    pub fn plain(&self, batch: &RecordBatch, days: Vec<i32>) -> anyhow::Result<RecordBatch> {
        let days: ArrayRef = Arc::new(Date32Array::from(days));
        let columns = self.schema.fields().iter().map(|field| match field.name().as_str() {
            added::EVENT_DATE => Ok(days.clone()),
            name => match batch.column_by_name(name) {
                Some(column) => cast(column, field.data_type())
                    .with_context(|| format!("read column {name} as {}", field.data_type())),
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            },
        });
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect::<anyhow::Result<_>>()?)?)
    }

    /// The fingerprint of each row of a plain batch.
    pub fn of(&self, plain: &RecordBatch) -> anyhow::Result<Vec<u128>> {
        let rows = self.converter.convert_columns(plain.columns())?;
        Ok(rows.iter().map(|row| print(row.as_ref())).collect())
    }
}

fn print(bytes: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        bytes.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64) | half(1)
}

/// A type without dictionaries, and with the names that Arrow gives to a list's items.
fn plain(ty: &DataType) -> DataType {
    match ty {
        DataType::Dictionary(_, value) => plain(value),
        DataType::List(item) => DataType::List(Arc::new(Field::new("item", plain(item.data_type()), true))),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Field::new(field.name(), plain(field.data_type()), true));
            DataType::Struct(fields.collect::<Fields>())
        }
        other => other.clone(),
    }
}

/// The columns in which two rows of plain batches differ, and how.
pub fn differences(expected: (&RecordBatch, usize), found: (&RecordBatch, usize)) -> String {
    let fields = expected.0.schema();
    let differs = |(at, field): (usize, &Arc<Field>)| {
        let (left, right) = (shown(expected.0.column(at), expected.1), shown(found.0.column(at), found.1));
        (left != right).then(|| format!("{}: expected {left}, found {right}", field.name()))
    };
    let told: Vec<String> = fields.fields().iter().enumerate().filter_map(differs).collect();
    told.join("; ")
}

/// The first columns of a row of a plain batch.
pub fn brief((batch, row): (&RecordBatch, usize)) -> String {
    const COLUMNS: usize = 4;
    let fields = batch.schema();
    let cells = fields.fields().iter().zip(batch.columns()).take(COLUMNS);
    cells.map(|(field, column)| format!("{} {}", field.name(), shown(column, row))).collect::<Vec<_>>().join(", ")
}

/// A cell, cut short.
fn shown(column: &dyn Array, row: usize) -> String {
    const CHARS_MAX: usize = 80;
    let options = FormatOptions::default().with_null("null");
    let text = ArrayFormatter::try_new(column, &options)
        .and_then(|formatter| formatter.value(row).try_to_string())
        .unwrap_or_else(|failure| failure.to_string());
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
