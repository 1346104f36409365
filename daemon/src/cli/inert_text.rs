//! Text from events on a terminal: characters that a terminal obeys, or that change the direction of the text, are
//! printed as their escapes.

use std::fmt::{self, Write};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, ArrayFormatterFactory, DisplayIndex, FormatOptions, FormatResult};
use arrow::util::pretty::pretty_format_batches_with_options;

use crate::sql::printable;

/// The text on one line: `\n` and `\u{1b}` stand for a line break and an escape character.
pub(super) fn inert(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    let _ = Escaping(&mut inert).write_str(text);
    inert
}

/// The same for text of several lines, with its line breaks and tabs.
pub(super) fn inert_lines(text: &str) -> String {
    text.split_inclusive(['\n', '\t'])
        .map(|part| {
            let text = part.trim_end_matches(['\n', '\t']);
            inert(text) + &part[text.len()..]
        })
        .collect()
}

/// A table for a terminal, with each cell on one line.
pub(super) fn text_table(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_formatter_factory(Some(&InertCells));
    Ok(pretty_format_batches_with_options(&printable(batches)?, &options)?.to_string())
}

/// C0, DEL, C1, line and paragraph separators, and what Unicode calls bidirectional controls.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Escapes what is written to it.
struct Escaping<'w>(&'w mut dyn Write);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match is_obeyed(character) {
            true => write!(self.0, "{}", character.escape_default()),
            false => self.0.write_char(character),
        })
    }
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
    fn what_a_terminal_obeys_is_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(inert(text), expected);
        check("é😀 \"quoted\" \\ e\u{301}", "é😀 \"quoted\" \\ e\u{301}");
        check("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}");
        check("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m");
        check("a\u{202e}b\u{2066}c\u{200f}d\u{2028}", "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{2028}");
        check("two\r\nlines\t", "two\\r\\nlines\\t");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(inert_lines("one\n\n\ttwo \u{1b}[1m\r\n"), "one\n\n\ttwo \\u{1b}[1m\\r\n");
        assert_eq!(inert_lines(""), "");
    }

    #[test]
    fn each_cell_of_a_table_is_on_one_line() {
        let texts = || Arc::new(StringArray::from(vec![Some("a\n\u{1b}"), None])) as ArrayRef;
        let nested = StructArray::from(vec![(Arc::new(Field::new("t", DataType::Utf8, true)), texts())]);
        let columns: [(_, ArrayRef); 3] =
            [("text", texts()), ("nested", Arc::new(nested)), ("n", Arc::new(Int64Array::from(vec![1, 2])))];
        let table = text_table(&[RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
        assert!(table.contains("| a\\n\\u{1b} | {t: a\\n\\u{1b}} | 1 |"), "{table}");
        assert_eq!(table.lines().count(), 6, "{table}");
    }
}
