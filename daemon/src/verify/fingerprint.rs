//! Fingerprints of rows: equal rows have equal hashes, in whatever file and order they are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, Date32Array, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use silverd_core::plain_text::first_chars;
use silverd_core::schema::added;

use crate::sql::printable_column;

/// The fingerprint of a set of rows: their number, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    rows: u64,
    sum_of_hashes: u128,
}

impl Fingerprint {
    pub(super) fn add(&mut self, row_hash: u128) {
        self.rows += 1;
        self.sum_of_hashes = self.sum_of_hashes.wrapping_add(row_hash);
    }
}

/// Hashes the rows of one table.
pub(super) struct RowFingerprinter {
    schema: SchemaRef,
    converter: RowConverter,
}

impl RowFingerprinter {
    /// For rows with the columns of a table's files, and the day. Without `origin`, the columns with the origin of a
    /// row are ignored.
    pub(super) fn new(files: &Schema, origin: bool) -> anyhow::Result<Self> {
        let is_origin = |name: &str| name != added::EVENT_DATE && added::ALL.contains(&name);
        let fields = files.fields().iter().filter(|field| origin || !is_origin(field.name()));
        let mut fields: Vec<Field> =
            fields.map(|field| Field::new(field.name(), normalized(field.data_type()), true)).collect();
        fields.push(Field::new(added::EVENT_DATE, DataType::Date32, true));
        let sort = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { converter: RowConverter::new(sort)?, schema: Arc::new(Schema::new(fields)) })
    }

    /// The rows with the relevant columns, in a fixed order and with normalized types; a column that is absent is null.
    pub(super) fn normalize(&self, batch: &RecordBatch, days: Vec<i32>) -> anyhow::Result<RecordBatch> {
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

    /// The hash of each row of a normalized batch.
    pub(super) fn row_hashes(&self, normalized: &RecordBatch) -> anyhow::Result<Vec<u128>> {
        let rows = self.converter.convert_columns(normalized.columns())?;
        Ok(rows.iter().map(|row| hash(row.as_ref())).collect())
    }
}

fn hash(bytes: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        bytes.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64) | half(1)
}

/// The type without dictionaries, and with Arrow's default names for list items.
fn normalized(ty: &DataType) -> DataType {
    match ty {
        DataType::Dictionary(_, value) => normalized(value),
        DataType::List(item) => DataType::List(Arc::new(Field::new("item", normalized(item.data_type()), true))),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Field::new(field.name(), normalized(field.data_type()), true));
            DataType::Struct(fields.collect::<Fields>())
        }
        other => other.clone(),
    }
}

/// Describes the columns in which two rows of normalized batches differ.
pub(super) fn describe_differences(expected: (&RecordBatch, usize), found: (&RecordBatch, usize)) -> String {
    let fields = expected.0.schema();
    let difference = |(at, field): (usize, &Arc<Field>)| {
        let (left, right) = (cell(expected.0.column(at), expected.1), cell(found.0.column(at), found.1));
        (left != right).then(|| format!("{}: expected {left}, found {right}", field.name()))
    };
    let differences: Vec<String> = fields.fields().iter().enumerate().filter_map(difference).collect();
    differences.join("; ")
}

/// The first columns of a row of a normalized batch.
pub(super) fn describe_row((batch, row): (&RecordBatch, usize)) -> String {
    const COLUMNS: usize = 4;
    let fields = batch.schema();
    let cells = fields.fields().iter().zip(batch.columns()).take(COLUMNS);
    cells.map(|(field, column)| format!("{} {}", field.name(), cell(column, row))).collect::<Vec<_>>().join(", ")
}

/// A cell as text, shortened.
fn cell(column: &ArrayRef, row: usize) -> String {
    const CHARS_MAX: usize = 80;
    let options = FormatOptions::default().with_null("null");
    let text = printable_column(&column.slice(row, 1))
        .and_then(|column| ArrayFormatter::try_new(&column, &options)?.value(0).try_to_string())
        .unwrap_or_else(|error| error.to_string());
    first_chars(&text, CHARS_MAX)
}
