//! Reference files in SQL: each is a table of its name. A CSV file has no types, so its columns are texts.

use std::io::Cursor;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use super::event::EVENT;

/// Adds the tables of the reference files to a context.
pub(super) fn add_tables<'r>(
    context: &SessionContext,
    references: impl IntoIterator<Item = (&'r str, &'r [u8])>,
) -> anyhow::Result<()> {
    for (name, contents) in references {
        ensure!(name != EVENT, "a reference file cannot have the name `{EVENT}`, which is that of the events");
        let rows = read_csv(name, contents)?;
        context.register_table(name, Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))?;
    }
    Ok(())
}

/// The rows of a CSV file whose first line has the names of its columns.
fn read_csv(name: &str, contents: &[u8]) -> anyhow::Result<RecordBatch> {
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let read = || {
        // Names alone: all rows are read below, as texts.
        let (header, _) = Format::default().with_header(true).infer_schema(Cursor::new(contents), Some(0))?;
        let columns: Vec<&str> = header.fields().iter().map(|field| field.name().trim()).collect();
        ensure!(!columns.is_empty(), "its first line has no names of columns");
        if let Some(column) = columns.iter().enumerate().find(|(at, column)| columns[..*at].contains(column)) {
            bail!("its first line has two columns `{}`", column.1);
        }
        let fields: Vec<_> = columns.iter().map(|column| Field::new(*column, DataType::Utf8, true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let reader = ReaderBuilder::new(schema.clone()).with_header(true).build(Cursor::new(contents))?;
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        Ok(arrow::compute::concat_batches(&schema, &batches)?)
    };
    read().with_context(|| {
        format!("read the reference file `{name}` as CSV with the names of its columns in the first line")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn csv_files_are_tables_of_texts() {
        let rows = read_csv("p", b"\xef\xbb\xbfsku,name,price\n007,\"a, b\",1.50\n008,,\n").unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&[rows]).unwrap().to_string();
        assert!(text.contains("| 007 | a, b | 1.50  |") && text.contains("| 008 |      |       |"), "{text}");
        let error = format!("{:#}", read_csv("p", b"a,b\n1\n").unwrap_err());
        assert!(error.contains("reference file `p` as CSV") && error.contains("line"), "{error}");
        read_csv("p", b"").unwrap_err();
        read_csv("p", b"a,a\n1,2\n").unwrap_err();
    }
}
