//! A table for a terminal, whose cells are inert text on one line.

use std::fmt::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, ArrayFormatterFactory, DisplayIndex, FormatOptions, FormatResult};
use arrow::util::pretty::pretty_format_batches_with_options;

use crate::runtime::inert::Escaping;
use crate::sql::printable;

/// A table for a terminal, with each cell on one line.
pub(super) fn arrow_table(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_formatter_factory(Some(&InertCells));
    Ok(pretty_format_batches_with_options(&printable(batches)?, &options)?.to_string())
}

/// Formats cells as usual, and escapes the result.
#[derive(Debug)]
struct InertCells;

impl ArrayFormatterFactory for InertCells {
    fn create_array_formatter<'formatter>(
        &self,
        array: &'formatter dyn Array,
        options: &FormatOptions<'formatter>,
        _: Option<&'formatter Field>,
    ) -> Result<Option<ArrayFormatter<'formatter>>, ArrowError> {
        // Without this factory, which would escape the cells of nested columns twice.
        let usual = ArrayFormatter::try_new(array, &options.clone().with_formatter_factory(None))?;
        Ok(Some(ArrayFormatter::new(Box::new(InertCell(usual)), options.safe())))
    }
}

struct InertCell<'a>(ArrayFormatter<'a>);

impl DisplayIndex for InertCell<'_> {
    fn write(&self, row: usize, out: &mut dyn Write) -> FormatResult {
        Ok(write!(Escaping(out), "{}", self.0.value(row))?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, StructArray};
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn each_cell_of_a_table_is_on_one_line() {
        let texts = || Arc::new(StringArray::from(vec![Some("a\n\u{1b}"), None])) as ArrayRef;
        let nested = StructArray::from(vec![(Arc::new(Field::new("t", DataType::Utf8, true)), texts())]);
        let columns: [(_, ArrayRef); 3] =
            [("text", texts()), ("nested", Arc::new(nested)), ("n", Arc::new(Int64Array::from(vec![1, 2])))];
        let table = arrow_table(&[RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
        assert!(table.contains("| a\\n\\u{1b} | {t: a\\n\\u{1b}} | 1 |"), "{table}");
        assert_eq!(table.lines().count(), 6, "{table}");
    }
}
