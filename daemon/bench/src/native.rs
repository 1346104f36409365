//! The demo plugins as functions of this program: what a drain costs without WebAssembly.

mod input;

use std::sync::Arc;

use anyhow::anyhow;
use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray, UInt8Array, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Fields};
use silverd::plugin::Config;
use silverd::plugin::native::{Events, MakeNative, Native, Output, RawReject, RejectCode, Rows};
use silverd::telemetry::thread_cpu;
use silverd_plugin::{RejectCode as Code, Transform, transform_events};

use self::input::{Record, inputs};

/// The native transform of a table; `None` if this program has none.
pub(crate) fn transform_of(table: &str) -> Option<MakeNative> {
    match table {
        "page_view" => Some(|config| NativePlugin::<page_view::PageView>::make(config, input::page_view, page_view)),
        "add_to_cart" => {
            Some(|config| NativePlugin::<add_to_cart::AddToCart>::make(config, input::add_to_cart, add_to_cart))
        }
        "order_placed" => {
            Some(|config| NativePlugin::<order_placed::OrderPlaced>::make(config, input::order_placed, order_placed))
        }
        _ => None,
    }
}

type Row<T> = <<T as Transform>::Rows as IntoIterator>::Item;

/// A plugin, a function that reads its input, and one that turns its rows into the columns that the lift returns for the
/// same record.
struct NativePlugin<T: Transform> {
    plugin: T,
    input: fn(&Record<'_>) -> T::Input,
    columns: fn(&[Row<T>]) -> Vec<ArrayRef>,
}

impl<T: Transform + Send> NativePlugin<T> {
    fn make(
        config: &Config,
        input: fn(&Record<'_>) -> T::Input,
        columns: fn(&[Row<T>]) -> Vec<ArrayRef>,
    ) -> anyhow::Result<Box<dyn Native>> {
        let mut plugin_config = silverd_plugin::Config::new();
        for (name, value) in &config.settings {
            plugin_config = plugin_config.with_setting(name, value);
        }
        for file in &config.reference {
            plugin_config = plugin_config.with_reference(&file.name, &file.contents);
        }
        let plugin = T::configure(&plugin_config).map_err(|refusal| anyhow!(refusal))?;
        Ok(Box::new(Self { plugin, input, columns }))
    }
}

impl<T: Transform + Send> Native for NativePlugin<T> {
    fn transform(&mut self, events: &mut Events<'_>) -> Output {
        let inputs = inputs(events, self.input);
        let output = transform_events(&self.plugin, inputs);
        let rejects = output.rejects.into_iter().map(|reject| {
            let code = match reject.code {
                Code::Malformed => RejectCode::Malformed,
                Code::MissingField => RejectCode::MissingField,
                Code::OutOfRange => RejectCode::OutOfRange,
                Code::Other => RejectCode::Other,
            };
            RawReject { event: reject.event, code, reason: reject.reason }
        });
        let rejects = rejects.collect();
        let began = thread_cpu();
        let columns = (self.columns)(&output.rows);
        let took = thread_cpu().saturating_sub(began);
        let rows = Rows { len: output.rows.len(), columns, took, elsewhere: std::time::Duration::ZERO };
        Output { rows, row_events: output.row_events, rejects }
    }
}

fn page_view(rows: &[page_view::Row]) -> Vec<ArrayRef> {
    vec![
        texts(rows, |row| &row.event_id),
        texts(rows, |row| &row.user_id),
        numbers(rows, |row| row.ts),
        texts(rows, |row| &row.url),
        optional(rows, |row| row.referrer.as_deref()),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.channel as u8))),
        optional(rows, |row| row.browser.as_deref()),
        optional(rows, |row| row.os.as_deref()),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.device as u8))),
        optional(rows, |row| row.session_hint.as_deref()),
    ]
}

fn add_to_cart(rows: &[add_to_cart::Row]) -> Vec<ArrayRef> {
    vec![
        texts(rows, |row| &row.event_id),
        texts(rows, |row| &row.user_id),
        numbers(rows, |row| row.ts),
        texts(rows, |row| &row.sku),
        optional(rows, |row| row.category.as_deref()),
        counts(rows, |row| row.qty),
        numbers(rows, |row| row.price),
        numbers(rows, |row| row.line_total),
    ]
}

fn order_placed(rows: &[order_placed::Row]) -> Vec<ArrayRef> {
    let items: Vec<&order_placed::LineItem> = rows.iter().flat_map(|row| &row.line_items).collect();
    let columns = vec![
        texts(&items, |item| &item.sku),
        optional(&items, |item| item.category.as_deref()),
        counts(&items, |item| item.qty),
        numbers(&items, |item| item.price),
        numbers(&items, |item| item.line_total),
    ];
    let fields =
        columns.iter().enumerate().map(|(at, column)| Field::new(at.to_string(), column.data_type().clone(), true));
    let items = StructArray::new(fields.collect::<Fields>(), columns, None);
    let element = Field::new("element", arrow::array::Array::data_type(&items).clone(), true);
    let ends = OffsetBuffer::from_lengths(rows.iter().map(|row| row.line_items.len()));
    vec![
        texts(rows, |row| &row.event_id),
        texts(rows, |row| &row.order_id),
        texts(rows, |row| &row.user_id),
        numbers(rows, |row| row.ts),
        numbers(rows, |row| row.total),
        counts(rows, |row| row.item_count),
        Arc::new(ListArray::new(Arc::new(element), ends, Arc::new(items), None)),
    ]
}

fn texts<'r, R>(rows: &'r [R], of: impl Fn(&'r R) -> &'r String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
}

fn optional<'r, R>(rows: &'r [R], of: impl Fn(&'r R) -> Option<&'r str>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<StringArray>())
}

fn numbers<R>(rows: &[R], of: impl Fn(&R) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
}

fn counts<R>(rows: &[R], of: impl Fn(&R) -> u32) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)))
}
