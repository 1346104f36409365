//! Whether decimals have more digits than their type.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType};
use arrow::error::ArrowError;

/// Fails for a decimal with more digits than its type. Arrow fails only beyond the bits; where such a decimal is shown
/// or written to Parquet, digits can be missing.
pub(super) fn within_precision(array: &dyn Array) -> Result<(), ArrowError> {
    match *array.data_type() {
        DataType::Decimal32(precision, scale) => check::<Decimal32Type>(array, precision, scale),
        DataType::Decimal64(precision, scale) => check::<Decimal64Type>(array, precision, scale),
        DataType::Decimal128(precision, scale) => check::<Decimal128Type>(array, precision, scale),
        DataType::Decimal256(precision, scale) => check::<Decimal256Type>(array, precision, scale),
        _ => Ok(()),
    }
}

fn check<T: DecimalType>(array: &dyn Array, precision: u8, scale: i8) -> Result<(), ArrowError> {
    let mut values = array.as_primitive::<T>().iter().flatten();
    let checked = values.try_for_each(|value| T::validate_decimal_precision(value, precision, scale));
    checked.map_err(|failure| match failure {
        ArrowError::InvalidArgumentError(text) => ArrowError::ArithmeticOverflow(text),
        other => other,
    })
}
