//! Cells as JSON, from wasmtime's typed rows and from Arrow arrays, by code that shares nothing.
//!
//! Records are arrays, enums their discriminants, floats their bits, and bytes text of the characters U+00 to U+FF.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use serde_json::Value;

use super::echo::exports::test::lift::rows::{Few, Item, Many, Numbers, Options, Row};

/// A cell of an array that the daemon's lift returned.
pub fn of_array(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => format!("{:08x}", array.as_primitive::<Float32Type>().value(row).to_bits()).into(),
        DataType::Float64 => format!("{:016x}", array.as_primitive::<Float64Type>().value(row).to_bits()).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| of_array(&items, item)).collect()
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| of_array(column, row)).collect(),
        other => panic!("the lift returns no {other}"),
    }
}

fn bytes(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| *byte as char).collect::<String>().into()
}

/// A value that wasmtime's lift returned.
pub trait Cell: Sized {
    fn json(&self) -> Value;

    fn list(items: &[Self]) -> Value {
        items.iter().map(Self::json).collect()
    }
}

macro_rules! plain {
    ($($ty:ty),*) => {$(
        impl Cell for $ty {
            fn json(&self) -> Value {
                (*self).into()
            }
        }
    )*};
}

plain!(bool, i8, i16, i32, i64, u16, u32, u64);

impl Cell for u8 {
    fn json(&self) -> Value {
        (*self).into()
    }

    fn list(items: &[Self]) -> Value {
        bytes(items)
    }
}

impl Cell for f32 {
    fn json(&self) -> Value {
        format!("{:08x}", self.to_bits()).into()
    }
}

impl Cell for f64 {
    fn json(&self) -> Value {
        format!("{:016x}", self.to_bits()).into()
    }
}

impl Cell for char {
    fn json(&self) -> Value {
        (*self as u32).into()
    }
}

impl Cell for String {
    fn json(&self) -> Value {
        self.as_str().into()
    }
}

impl<T: Cell> Cell for Option<T> {
    fn json(&self) -> Value {
        self.as_ref().map_or(Value::Null, Cell::json)
    }
}

impl<T: Cell> Cell for Vec<T> {
    fn json(&self) -> Value {
        T::list(self)
    }
}

impl Cell for Few {
    fn json(&self) -> Value {
        (*self as usize).into()
    }
}

impl Cell for Many {
    fn json(&self) -> Value {
        (*self as usize).into()
    }
}

macro_rules! record {
    ($ty:ident: $($field:ident),*) => {
        impl Cell for $ty {
            fn json(&self) -> Value {
                // Without `..`, a missing field is an error of the compiler.
                let $ty { $($field),* } = self;
                Value::Array(vec![$($field.json()),*])
            }
        }
    };
}

record!(
    Numbers: yes, long, byte, short, unsigned_byte, int, unsigned_short, unsigned_long, letter, double, unsigned_int,
    single
);
record!(
    Options: yes, long, byte, short, unsigned_byte, int, unsigned_short, unsigned_long, letter, double, unsigned_int,
    single
);
record!(Item: note, colour, amount, tags, grid, size);
record!(
    Row: flag, text, numbers, few, options, many, maybe_text, bytes, maybe_few, maybe_many, maybe_bytes, tags,
    maybe_tags, switches, holes, kinds, items, maybe_items, item, maybe_item, last
);
