//! `date_bin` and `date_trunc` on local clocks: computed on what clocks show, and then on which instant that was.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions::datetime::{date_bin, date_trunc};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use silverd_core::zone::{AtLocal, Zone};

use super::{local_zone, per_second};

const MICROS_PER_SECOND: i64 = 1_000_000;
const HOUR_NANOS: i64 = 3_600_000_000_000;
const HOUR_MILLIS: i32 = 3_600_000;
/// The parts of `date_trunc` that clocks show twice when they are set back.
const SHORT_PARTS: [&str; 5] = ["hour", "minute", "second", "millisecond", "microsecond"];
/// The place of the time among the arguments; that of the bins' origin follows.
const TIME: usize = 1;

/// A function of DataFusion's that gives the start of a part of time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct LocalBins {
    inner: Arc<ScalarUDF>,
}

impl LocalBins {
    pub(super) fn all() -> [Self; 2] {
        [Self { inner: date_bin() }, Self { inner: date_trunc() }]
    }
}

impl ScalarUDFImpl for LocalBins {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zoned = args.args.get(TIME).and_then(|time| local_zone(&time.data_type()));
        let Some((unit, zone)) = zoned else { return self.inner.invoke_with_args(args) };
        let ty = args.return_type().clone();
        let rows = args.number_rows;
        let is_short = args.args.first().is_some_and(is_short);
        let times = args.args[TIME].clone();
        for at in TIME..args.args.len() {
            // The origin of the bins is the time that clocks show then, too.
            if let Some((unit, zone)) = local_zone(&args.args[at].data_type()) {
                args.args[at] =
                    map(&args.args[at], &DataType::Timestamp(unit, None), |times| shown(times, unit, zone))?;
                args.arg_fields[at] = of_type(&args.arg_fields[at], DataType::Timestamp(unit, None));
            }
        }
        args.return_field = of_type(&args.return_field, DataType::Timestamp(unit, None));
        let bins = self.inner.invoke_with_args(args)?;
        let is_scalar = matches!(bins, ColumnarValue::Scalar(_)) && matches!(times, ColumnarValue::Scalar(_));
        let rows = if is_scalar { 1 } else { rows };
        let times = cast(&times.to_array(rows)?, &DataType::Int64)?;
        let bins = if is_scalar { bins } else { ColumnarValue::Array(bins.to_array(rows)?) };
        map(&bins, &ty, |bins| instants(bins, times.as_primitive(), unit, zone, is_short))
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // A day can go on after the next one has started, where clocks are set back over midnight.
        match inputs.get(TIME).and_then(|time| local_zone(&time.range.data_type())) {
            Some(_) => Ok(SortProperties::Unordered),
            None => self.inner.output_ordering(inputs),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Whether the parts are so short that clocks that are set back show them twice: both are parts of their own then.
fn is_short(part: &ColumnarValue) -> bool {
    match part {
        ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(length))) => {
            length.months == 0 && length.days == 0 && length.nanoseconds <= HOUR_NANOS
        }
        ColumnarValue::Scalar(ScalarValue::IntervalDayTime(Some(length))) => {
            length.days == 0 && length.milliseconds <= HOUR_MILLIS
        }
        ColumnarValue::Scalar(part) => {
            let part = part.try_as_str().flatten();
            part.is_some_and(|part| SHORT_PARTS.iter().any(|short| part.eq_ignore_ascii_case(short)))
        }
        ColumnarValue::Array(_) => false,
    }
}

/// Numbers of a unit of time as other ones, in a column of a type.
pub(super) fn map(
    values: &ColumnarValue,
    ty: &DataType,
    change: impl FnOnce(&Int64Array) -> Int64Array,
) -> Result<ColumnarValue> {
    let numbers = |array: &ArrayRef| cast(array, &DataType::Int64);
    Ok(match values {
        ColumnarValue::Array(array) => {
            ColumnarValue::Array(cast(&change(numbers(array)?.as_primitive::<Int64Type>()), ty)?)
        }
        ColumnarValue::Scalar(scalar) => {
            let array = numbers(&scalar.to_array()?)?;
            let changed = cast(&change(array.as_primitive::<Int64Type>()), ty)?;
            ColumnarValue::Scalar(ScalarValue::try_from_array(&changed, 0)?)
        }
    })
}

/// What clocks show at these instants.
fn shown(instants: &Int64Array, unit: TimeUnit, zone: Zone) -> Int64Array {
    let (mut days, per_second) = (zone.days(), per_second(unit));
    let shown = |instant: i64| {
        let micros = instant.div_euclid(per_second).saturating_mul(MICROS_PER_SECOND);
        let offset = days.offset_micros(micros) / MICROS_PER_SECOND * per_second;
        instant.saturating_add(offset)
    };
    map_some(instants, shown)
}

/// When clocks showed these times. Of two instants it is the first; of a short part the last that is not after the time
/// whose part it is.
pub(super) fn instants(
    bins: &Int64Array,
    times: &Int64Array,
    unit: TimeUnit,
    zone: Zone,
    is_short: bool,
) -> Int64Array {
    let per_second = per_second(unit);
    // Consecutive times mostly have the same one.
    let mut last: Option<(i64, AtLocal)> = None;
    bins.iter()
        .zip(times)
        .map(|(bin, time)| {
            let (bin, time) = (bin?, time?);
            let (seconds, fraction) = (bin.div_euclid(per_second), bin.rem_euclid(per_second));
            let at = match last {
                Some((known, at)) if known == seconds => at,
                _ => zone.at_local(seconds),
            };
            last = Some((seconds, at));
            let instant = |seconds: i64| seconds.saturating_mul(per_second).saturating_add(fraction);
            Some(match at {
                AtLocal::Once(seconds) => instant(seconds),
                AtLocal::Twice(_, second) if is_short && instant(second) <= time => instant(second),
                AtLocal::Twice(first, _) => instant(first),
                AtLocal::Never(seconds) => seconds.saturating_mul(per_second),
            })
        })
        .collect()
}

fn map_some(numbers: &Int64Array, mut change: impl FnMut(i64) -> i64) -> Int64Array {
    numbers.iter().map(|number| number.map(&mut change)).collect()
}

fn of_type(field: &FieldRef, ty: DataType) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(ty))
}
