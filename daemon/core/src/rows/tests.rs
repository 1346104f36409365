//! Lifted arrays are converted to the column types of the table.

use arrow_array::types::{Date32Type, Decimal128Type};
use arrow_array::{
    BinaryArray, BooleanArray, Date32Array, Float64Array, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};

use super::*;

fn column(kind: Kind) -> Column {
    Column { name: "price".to_owned(), kind, nullable: true, doc: None }
}

/// A lifted array becomes the expected array, of the type in the schema.
#[track_caller]
fn check(kind: Kind, lifted: impl Array + 'static, expected: impl Array + 'static) {
    let column = column(kind);
    let array = typed(Arc::new(lifted), &column).expect("values of the column's type");
    assert_eq!(array.data_type(), column.arrow().data_type());
    assert_eq!(array.as_ref(), &expected as &dyn Array);
    array.to_data().validate_full().expect("a sound array");
}

#[track_caller]
fn check_refused(kind: Kind, lifted: impl Array + 'static, expected: &str) {
    let error = typed(Arc::new(lifted), &column(kind)).expect_err("a value that the column cannot hold");
    assert_eq!(error.to_string(), expected);
}

fn decimals(values: &[Option<i128>], precision: u8, scale: i8) -> Decimal128Array {
    let values: PrimitiveArray<Decimal128Type> = values.iter().copied().collect();
    values.with_precision_and_scale(precision, scale).expect("a decimal type")
}

#[test]
fn plain_values_are_unchanged() {
    check(Kind::Bool, BooleanArray::from(vec![None, Some(true)]), BooleanArray::from(vec![None, Some(true)]));
    check(Kind::Float64, Float64Array::from(vec![0.5, f64::MAX]), Float64Array::from(vec![0.5, f64::MAX]));
    check(Kind::Utf8, StringArray::from(vec!["é", ""]), StringArray::from(vec!["é", ""]));
    check(Kind::Binary, BinaryArray::from(vec![&b"\xff"[..]]), BinaryArray::from(vec![&b"\xff"[..]]));
}

#[test]
fn unsigned_numbers_are_widened() {
    let values = [Some(0), None, Some(u8::MAX)];
    check(Kind::UInt8, UInt8Array::from_iter(values), Int16Array::from(vec![Some(0), None, Some(255)]));
    let values = [Some(0), None, Some(u16::MAX)];
    check(Kind::UInt16, UInt16Array::from_iter(values), Int32Array::from(vec![Some(0), None, Some(65_535)]));
    let values = [Some(0), None, Some(u32::MAX)];
    check(Kind::UInt32, UInt32Array::from_iter(values), Int64Array::from(vec![Some(0), None, Some(4_294_967_295)]));
    let values = [Some(0), None, Some(u64::MAX)];
    let expected = decimals(&[Some(0), None, Some(18_446_744_073_709_551_615)], 20, 0);
    check(Kind::UInt64, UInt64Array::from_iter(values), expected);
}

#[test]
fn timestamps_and_dates_are_reinterpreted() {
    let micros = vec![Some(i64::MIN), None, Some(0), Some(i64::MAX)];
    let expected = TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC");
    check(Kind::Timestamp, Int64Array::from(micros), expected);
    let days = vec![Some(i32::MIN), None, Some(0), Some(i32::MAX)];
    check(Kind::Date, Int32Array::from(days.clone()), Date32Array::from(days));
}

#[test]
fn money_out_of_range_is_refused() {
    let values = [Some(MONEY_MAX), None, Some(0), Some(-MONEY_MAX)];
    check(Kind::Money, Int64Array::from_iter(values), decimals(&values.map(|value| value.map(i128::from)), 18, 2));
    check_refused(
        Kind::Money,
        Int64Array::from(vec![1, MONEY_MAX + 1]),
        "column `price` has 1000000000000000000, which is no valid decimal(18,2)",
    );
    check_refused(
        Kind::Money,
        Int64Array::from(vec![Some(i64::MIN), None]),
        "column `price` has -9223372036854775808, which is no valid decimal(18,2)",
    );
}

#[test]
fn invalid_characters_are_refused() {
    let codes = [Some(0x61), None, Some(0), Some(0x10_ffff)];
    check(
        Kind::Char,
        UInt32Array::from_iter(codes),
        StringArray::from(vec![Some("a"), None, Some("\0"), Some("\u{10ffff}")]),
    );
    check_refused(Kind::Char, UInt32Array::from(vec![0xd800]), "column `price` has 55296, which is no valid character");
    let beyond = "column `price` has 1114112, which is no valid character";
    check_refused(Kind::Char, UInt32Array::from(vec![0x11_0000]), beyond);
}

#[test]
fn enums_become_their_case_names() {
    let cases = |n: usize| (0..n).map(|case| format!("c{case}")).collect::<Vec<_>>();
    let array = typed(Arc::new(UInt8Array::from(vec![Some(2), None, Some(0)])), &column(Kind::Enum(cases(3))));
    let array = array.expect("cases of the enum");
    let names = array.as_dictionary::<UInt8Type>().downcast_dict::<StringArray>().expect("names");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), [Some("c2"), None, Some("c0")]);

    let array = typed(Arc::new(UInt16Array::from(vec![256, 299])), &column(Kind::Enum(cases(300))));
    let array = array.expect("cases of the enum");
    let names = array.as_dictionary::<UInt16Type>().downcast_dict::<StringArray>().expect("names");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), [Some("c256"), Some("c299")]);

    let beyond = "column `price` has discriminant 3, which is no valid case of its enum";
    check_refused(Kind::Enum(cases(3)), UInt8Array::from(vec![3]), beyond);
    let beyond = "column `price` has discriminant 300, which is no valid case of its enum";
    check_refused(Kind::Enum(cases(300)), UInt16Array::from(vec![300]), beyond);
}

/// A struct as the lift returns it: without field names, and with nullable fields.
fn record(columns: Vec<ArrayRef>, valid: Option<Vec<bool>>) -> StructArray {
    let fields = columns.iter().enumerate().map(|(at, c)| Field::new(at.to_string(), c.data_type().clone(), true));
    StructArray::new(fields.collect(), columns, valid.map(NullBuffer::from))
}

fn list(items: impl Array + 'static, ends: &[i32], valid: Option<Vec<bool>>) -> ListArray {
    let item = Arc::new(Field::new("element", items.data_type().clone(), true));
    let ends = OffsetBuffer::new(ScalarBuffer::from(ends.to_vec()));
    ListArray::new(item, ends, Arc::new(items), valid.map(NullBuffer::from))
}

#[test]
fn nested_values_are_converted() {
    let field = |name: &str, kind| Column { name: name.to_owned(), kind, nullable: false, doc: None };
    let item = Kind::Struct(vec![field("on", Kind::Date), field("cost", Kind::Money)]);
    let kind = Kind::List(Box::new(field("element", item)));
    let lifted = |cents| record(vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(Int64Array::from(cents))], None);
    let column = column(kind.clone());
    let array = typed(Arc::new(list(lifted(vec![3, 4]), &[0, 2, 2], Some(vec![true, false]))), &column);
    let array = array.expect("rows of the column's type");
    assert_eq!(array.data_type(), column.arrow().data_type());
    assert!(array.is_null(1));
    let items = array.as_list::<i32>().value(0);
    assert_eq!(items.as_struct().column(0).as_primitive::<Date32Type>().values()[..], [1, 2]);
    assert_eq!(items.as_struct().column(1).as_primitive::<Decimal128Type>().values()[..], [3, 4]);
    // The column that the row has is not the one that is wrong; its name says where to look.
    let beyond = list(lifted(vec![3, i64::MAX]), &[0, 2], None);
    check_refused(kind, beyond, "column `cost` has 9223372036854775807, which is no valid decimal(18,2)");
}

/// The fields of a record that is null are null, too, though the table has no nulls in them.
#[test]
fn null_records_stay_null() {
    let fields = vec![Column { name: "n".to_owned(), kind: Kind::UInt8, nullable: false, doc: None }];
    let column = column(Kind::Struct(fields));
    let inner: ArrayRef = Arc::new(UInt8Array::from(vec![None, Some(9)]));
    let array = typed(Arc::new(record(vec![inner], Some(vec![false, true]))), &column).expect("a record");
    assert_eq!((array.is_null(0), array.is_null(1)), (true, false));
    assert_eq!(array.data_type(), column.arrow().data_type());
}
