//! From a table's schema to the WIT of a plugin that fills the same table.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Column, Kind, TableSchema};
use crate::input::InputWit;
use crate::names::{Unique, in_wit, key_of_wit};
use crate::wit_text::{self, use_line};

/// The WIT of a table: an interface with its `input` and its rows, and a world that exports it.
///
/// # Errors
///
/// The name of a column that no name of WIT stands for.
pub fn table_wit(package: &str, table: &str, schema: &TableSchema, input: &InputWit) -> Result<String, String> {
    let mut rows = Rows { records: String::new(), uses: input.uses.clone(), names: Unique::default() };
    rows.uses.insert("reject");
    let columns = rows.fields(&schema.columns)?;
    let interface = Unique::default().wit(table);
    let doc = wit_text::comment("  ", schema.doc.as_deref().unwrap_or("A row of the table."));
    let mut text = format!(
        "package {package};\n\ninterface {} {{\n{}{}{}\n{doc}  record row {{\n{columns}  }}\n",
        in_wit(&interface),
        use_line(&rows.uses),
        input.records,
        rows.records
    );
    text.push_str(
        "
  /// The outcome of a batch. An event that is in neither `row-events` nor `rejects` was dropped.
  record output {
    /// The table's new rows.
    rows: list<row>,
    /// For each row, the index of the event that gave it. Ascending.
    row-events: list<u32>,
    /// The events that cannot become rows.
    rejects: list<reject>,
  }

  /// Transforms a batch of events into rows.
  transform: func(events: list<input>) -> output;
}
",
    );
    let exported = in_wit(&interface);
    let _ = write!(
        text,
        "\nworld {interface}-plugin {{\n  export silverd:pipeline/plugin@0.2.0;\n  export {exported};\n}}\n"
    );
    Ok(text)
}

struct Rows {
    /// The records within the row.
    records: String,
    uses: BTreeSet<&'static str>,
    names: Unique,
}

impl Rows {
    fn fields(&mut self, columns: &[Column]) -> Result<String, String> {
        let mut lines = String::new();
        for column in columns {
            let name = Unique::default().wit(&column.name);
            if key_of_wit(&name) != column.name {
                return Err(column.name.clone());
            }
            lines += &wit_text::field(&name, &column.name, &self.ty(column)?, column.doc.as_deref());
        }
        Ok(lines)
    }

    fn ty(&mut self, column: &Column) -> Result<String, String> {
        let ty = match &column.kind {
            Kind::Bool => "bool".to_owned(),
            Kind::Int8 => "s8".to_owned(),
            Kind::Int16 => "s16".to_owned(),
            Kind::Int32 => "s32".to_owned(),
            Kind::Int64 => "s64".to_owned(),
            Kind::UInt8 => "u8".to_owned(),
            Kind::UInt16 => "u16".to_owned(),
            Kind::UInt32 => "u32".to_owned(),
            Kind::UInt64 => "u64".to_owned(),
            Kind::Float32 => "f32".to_owned(),
            Kind::Float64 => "f64".to_owned(),
            Kind::Utf8 | Kind::Enum(_) => "string".to_owned(),
            Kind::Char => "char".to_owned(),
            Kind::Timestamp => self.of_contract("timestamp"),
            Kind::Date => self.of_contract("date"),
            Kind::Money => self.of_contract("money"),
            Kind::Binary => "list<u8>".to_owned(),
            Kind::List(item) => {
                let item = Column { name: column.name.clone(), ..(**item).clone() };
                format!("list<{}>", self.ty(&item)?)
            }
            Kind::Struct(columns) => {
                let name = self.names.wit(&format!("row {}", column.name));
                let fields = self.fields(columns)?;
                let _ = write!(
                    self.records,
                    "\n  /// A record in `{}`.\n  record {} {{\n{fields}  }}\n",
                    column.name,
                    in_wit(&name)
                );
                in_wit(&name)
            }
        };
        Ok(if column.nullable { format!("option<{ty}>") } else { ty })
    }

    fn of_contract(&mut self, name: &'static str) -> String {
        self.uses.insert(name);
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use wit_parser::Resolve;

    use super::*;
    use crate::input::{InputField, input_wit};
    use crate::schema::contract::TEXT;

    fn column(name: &str, kind: Kind, nullable: bool) -> Column {
        Column { name: name.to_owned(), kind, nullable, doc: (name == "event_id").then(|| "Who.".to_owned()) }
    }

    #[test]
    fn a_plugin_with_the_printed_wit_has_the_same_schema() {
        let item = column(
            "element",
            Kind::Struct(vec![column("sku", Kind::Utf8, false), column("at", Kind::Date, true)]),
            false,
        );
        let columns = vec![
            column("event_id", Kind::Utf8, false),
            column("ts", Kind::Timestamp, false),
            column("total", Kind::Money, true),
            column("type", Kind::Int64, false),
            column("items", Kind::List(Box::new(item)), true),
        ];
        let schema = TableSchema { interface: "sql".to_owned(), doc: Some("Orders.".to_owned()), columns };
        let fields = [InputField { key: "eventId", ty: "string", comment: None }];
        let text = table_wit("shop:silver@0.1.0", "order_placed", &schema, &input_wit(&fields).unwrap()).unwrap();
        let mut resolve = Resolve::default();
        resolve.push_str("types.wit", TEXT).unwrap();
        let package = resolve.push_str("table.wit", &text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        let world = resolve.select_world(&[package], None).unwrap();
        let read = TableSchema::of_world(&resolve, world, Some(&text)).unwrap();
        assert_eq!(read.arrow(), schema.arrow(), "{text}");
        assert_eq!(read.doc, schema.doc);
        let odd = TableSchema { columns: vec![column("price_2", Kind::Utf8, false)], ..schema };
        assert_eq!(table_wit("a:b", "t", &odd, &InputWit::default()).unwrap_err(), "price_2");
    }
}
