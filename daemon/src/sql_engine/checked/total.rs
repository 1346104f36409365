//! Sums and averages, kept in integers that are wide enough for more rows than a table can have.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::nullif;
use arrow::datatypes::{
    ArrowNativeType, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type,
    Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, FieldRef, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit, UInt64Type,
};
use arrow::error::ArrowError;
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::precision::within_precision;

/// A sum or an average, and the type of the result, which is that of the values but for the digits of a decimal.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    kind: Kind,
    result: DataType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sum,
    Average,
}

/// Values whose totals are kept as the wider `W`.
trait Values<W: ArrowPrimitiveType>: ArrowPrimitiveType<Native: Into<W::Native> + TryFrom<W::Native>> + Debug {}

impl<T, W> Values<W> for T
where
    T: ArrowPrimitiveType + Debug,
    W: ArrowPrimitiveType,
    T::Native: Into<W::Native> + TryFrom<W::Native>,
{
}

/// Calls a function for the type of the values, and that of their totals.
macro_rules! for_values {
    ($aggregate:expr, $build:ident($($argument:expr),*)) => {
        match $aggregate.result.clone() {
            DataType::Int64 => $build::<Int64Type, Decimal128Type>($($argument),*),
            DataType::UInt64 => $build::<UInt64Type, Decimal128Type>($($argument),*),
            DataType::Decimal32(..) => $build::<Decimal32Type, Decimal128Type>($($argument),*),
            DataType::Decimal64(..) => $build::<Decimal64Type, Decimal128Type>($($argument),*),
            DataType::Decimal128(..) => $build::<Decimal128Type, Decimal128Type>($($argument),*),
            DataType::Decimal256(..) => $build::<Decimal256Type, Decimal256Type>($($argument),*),
            DataType::Duration(TimeUnit::Second) => $build::<DurationSecondType, Decimal128Type>($($argument),*),
            DataType::Duration(TimeUnit::Millisecond) => {
                $build::<DurationMillisecondType, Decimal128Type>($($argument),*)
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                $build::<DurationMicrosecondType, Decimal128Type>($($argument),*)
            }
            DataType::Duration(TimeUnit::Nanosecond) => {
                $build::<DurationNanosecondType, Decimal128Type>($($argument),*)
            }
            DataType::Interval(IntervalUnit::YearMonth) => {
                $build::<IntervalYearMonthType, IntervalYearMonthType>($($argument),*)
            }
            DataType::Interval(IntervalUnit::DayTime) => {
                $build::<IntervalDayTimeType, IntervalDayTimeType>($($argument),*)
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                $build::<IntervalMonthDayNanoType, IntervalMonthDayNanoType>($($argument),*)
            }
            other => internal_err!("values of {other} have no checked total"),
        }
    };
}

impl Aggregate {
    /// `None` for floats, whose sums are rounded and never wrapped.
    pub(super) fn sum(result: &DataType) -> Option<Self> {
        use DataType::{Duration, Int64, Interval, UInt64};
        let is_whole = result.is_decimal() || matches!(result, Int64 | UInt64 | Duration(_) | Interval(_));
        is_whole.then(|| Self { kind: Kind::Sum, result: result.clone() })
    }

    /// `None` for floats, which are not wrapped, and for decimals, whose averages DataFusion keeps in a wider type.
    pub(super) fn average(result: &DataType) -> Option<Self> {
        matches!(result, DataType::Duration(_)).then(|| Self { kind: Kind::Average, result: result.clone() })
    }

    pub(super) fn accumulator(self) -> Result<Box<dyn Accumulator>> {
        for_values!(self, total(self))
    }

    /// `values` collects the distinct values.
    pub(super) fn distinct_accumulator(self, values: Box<dyn Accumulator>) -> Result<Box<dyn Accumulator>> {
        for_values!(self, distinct_total(self, values))
    }

    pub(super) fn groups_accumulator(self) -> Result<Box<dyn GroupsAccumulator>> {
        for_values!(self, group_totals(self))
    }

    /// What a partial aggregation hands on: the total, and the number of its values.
    pub(super) fn state_fields(&self, name: &str) -> Vec<FieldRef> {
        let field = |part: &str, ty| Arc::new(Field::new(format_state_name(name, part), ty, true));
        vec![field("total", self.state_type()), field("count", DataType::UInt64)]
    }

    /// The type of totals, which may leave the range of the result in between.
    fn state_type(&self) -> DataType {
        match self.result {
            DataType::Int64 | DataType::UInt64 | DataType::Duration(_) => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)
            }
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale)
            }
            DataType::Decimal256(_, scale) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale),
            ref other => other.clone(),
        }
    }

    /// The results of totals and the numbers of their values. What has no values has no result.
    fn results<T: Values<W>, W: ArrowPrimitiveType>(
        &self,
        totals: &[W::Native],
        counts: &[usize],
    ) -> Result<PrimitiveArray<T>> {
        let result = |(total, count): (&W::Native, &usize)| {
            let result = match self.kind {
                Kind::Average if *count > 0 => {
                    total.div_checked(<W::Native as ArrowNativeType>::usize_as(*count)).ok()?
                }
                _ => *total,
            };
            <T::Native as TryFrom<W::Native>>::try_from(result).ok()
        };
        let results: Option<Vec<T::Native>> = totals.iter().zip(counts).map(result).collect();
        let Some(results) = results else { return self.does_not_fit() };
        let has_values: NullBuffer = counts.iter().map(|count| *count > 0).collect();
        let results = PrimitiveArray::<T>::new(results.into(), Some(has_values));
        let results = results.with_data_type(self.result.clone());
        match within_precision(&results) {
            Ok(()) => Ok(results),
            Err(_) => self.does_not_fit(),
        }
    }

    fn does_not_fit<T>(&self) -> Result<T> {
        let advice = match self.result {
            DataType::Int64 | DataType::UInt64 => "; CAST the argument to DECIMAL(38, 0) or DOUBLE",
            DataType::Duration(_) => "; CAST the argument to BIGINT, and that to DECIMAL(38, 0)",
            DataType::Interval(_) => "",
            _ => "; CAST the argument to DOUBLE, which rounds",
        };
        match self.kind {
            Kind::Sum => exec_err!("`sum`: the result does not fit into {}{advice}", self.result),
            Kind::Average => exec_err!("`avg`: the result does not fit into {}{advice}", self.result),
        }
    }
}

/// The total of one group.
#[derive(Debug)]
struct Total<T, W: ArrowPrimitiveType> {
    aggregate: Aggregate,
    total: W::Native,
    count: usize,
    of: PhantomData<fn() -> T>,
}

/// The total of the distinct values of one group.
#[derive(Debug)]
struct DistinctTotal<T, W> {
    aggregate: Aggregate,
    /// Its state is the list of the values.
    values: Box<dyn Accumulator>,
    of: PhantomData<fn() -> (T, W)>,
}

/// The totals of many groups.
struct GroupTotals<T, W: ArrowPrimitiveType> {
    aggregate: Aggregate,
    totals: Vec<W::Native>,
    /// The numbers of values that are not null.
    counts: Vec<usize>,
    of: PhantomData<fn() -> T>,
}

fn total<T: Values<W>, W: ArrowPrimitiveType + Debug>(aggregate: Aggregate) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(Total::<T, W>::new(aggregate)))
}

fn distinct_total<T: Values<W>, W: ArrowPrimitiveType + Debug>(
    aggregate: Aggregate,
    values: Box<dyn Accumulator>,
) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(DistinctTotal::<T, W> { aggregate, values, of: PhantomData }))
}

fn group_totals<T: Values<W>, W: ArrowPrimitiveType>(aggregate: Aggregate) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(GroupTotals::<T, W> { aggregate, totals: Vec::new(), counts: Vec::new(), of: PhantomData }))
}

impl<T: Values<W>, W: ArrowPrimitiveType> Total<T, W> {
    fn new(aggregate: Aggregate) -> Self {
        Self { aggregate, total: W::Native::ZERO, count: 0, of: PhantomData }
    }

    fn add(&mut self, values: &PrimitiveArray<T>) -> Result<()> {
        match added::<T, W>(self.total, values) {
            Ok(total) => self.total = total,
            Err(_) => return self.aggregate.does_not_fit(),
        }
        self.count += values.len() - values.null_count();
        Ok(())
    }

    fn result(&self) -> Result<ScalarValue> {
        let results = self.aggregate.results::<T, W>(&[self.total], &[self.count])?;
        ScalarValue::try_from_array(&results, 0)
    }
}

fn added<V, W>(total: W::Native, values: &PrimitiveArray<V>) -> Result<W::Native, ArrowError>
where
    V: Values<W>,
    W: ArrowPrimitiveType,
{
    let add = |total: W::Native, value: V::Native| ArrowNativeTypeOp::add_checked(total, value.into());
    match values.null_count() {
        0 => values.values().iter().copied().try_fold(total, add),
        _ => values.iter().flatten().try_fold(total, add),
    }
}

impl<T: Values<W>, W: ArrowPrimitiveType + Debug> Accumulator for Total<T, W> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values[0].as_primitive::<T>())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<T>();
        let left = added::<T, W>(W::Native::ZERO, values).and_then(|removed| self.total.sub_checked(removed));
        let Ok(left) = left else { return self.aggregate.does_not_fit() };
        self.total = left;
        self.count = self.count.saturating_sub(values.len() - values.null_count());
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (totals, counts) = (states[0].as_primitive::<W>(), states[1].as_primitive::<UInt64Type>());
        for (total, count) in totals.iter().zip(counts.iter()) {
            let Some(total) = total else { continue };
            let Ok(sum) = self.total.add_checked(total) else { return self.aggregate.does_not_fit() };
            self.total = sum;
            self.count += count.unwrap_or(0) as usize;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.result()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = (self.count > 0).then_some(self.total);
        let total = ScalarValue::new_primitive::<W>(total, &self.aggregate.state_type())?;
        Ok(vec![total, ScalarValue::UInt64(Some(self.count as u64))])
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

impl<T: Values<W>, W: ArrowPrimitiveType + Debug> Accumulator for DistinctTotal<T, W> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.values.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.values.state()?;
        let [ScalarValue::List(list)] = &state[..] else {
            return internal_err!("the distinct values of `sum` are no list: {state:?}");
        };
        let mut total = Total::<T, W>::new(self.aggregate.clone());
        total.add(list.values().as_primitive::<T>())?;
        total.result()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.size()
    }
}

impl<T: Values<W>, W: ArrowPrimitiveType> GroupTotals<T, W> {
    fn resize(&mut self, groups: usize) {
        self.totals.resize(groups, W::Native::ZERO);
        self.counts.resize(groups, 0);
    }

    fn add(&mut self, group: usize, value: W::Native, count: usize) -> Result<()> {
        let Ok(total) = self.totals[group].add_checked(value) else { return self.aggregate.does_not_fit() };
        self.totals[group] = total;
        self.counts[group] += count;
        Ok(())
    }
}

impl<T: Values<W>, W: ArrowPrimitiveType> GroupsAccumulator for GroupTotals<T, W> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        groups_total: usize,
    ) -> Result<()> {
        self.resize(groups_total);
        let values = values[0].as_primitive::<T>();
        let mut pairs = groups.iter().zip(values.values());
        match (values.nulls(), filter) {
            (None, None) => pairs.try_for_each(|(group, value)| self.add(*group, (*value).into(), 1)),
            (nulls, filter) => {
                let is_counted = |row: usize| {
                    nulls.is_none_or(|nulls| nulls.is_valid(row))
                        && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
                };
                let mut counted = pairs.enumerate().filter(|(row, _)| is_counted(*row));
                counted.try_for_each(|(_, (group, value))| self.add(*group, (*value).into(), 1))
            }
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], groups_total: usize) -> Result<()> {
        self.resize(groups_total);
        let (totals, counts) = (states[0].as_primitive::<W>(), states[1].as_primitive::<UInt64Type>());
        let mut rows = groups.iter().enumerate().filter(|(row, _)| totals.is_valid(*row));
        rows.try_for_each(|(row, group)| self.add(*group, totals.value(row), counts.value(row) as usize))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (totals, counts) = (emit_to.take_needed(&mut self.totals), emit_to.take_needed(&mut self.counts));
        Ok(Arc::new(self.aggregate.results::<T, W>(&totals, &counts)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (totals, counts) = (emit_to.take_needed(&mut self.totals), emit_to.take_needed(&mut self.counts));
        let has_values: NullBuffer = counts.iter().map(|count| *count > 0).collect();
        let totals = PrimitiveArray::<W>::new(totals.into(), Some(has_values));
        let totals = totals.with_data_type(self.aggregate.state_type());
        let counts: UInt64Array = counts.iter().map(|count| Some(*count as u64)).collect();
        Ok(vec![Arc::new(totals) as ArrayRef, Arc::new(counts)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let totals: PrimitiveArray<W> = values[0].as_primitive::<T>().unary(|value| value.into());
        let mut totals: ArrayRef = Arc::new(totals.with_data_type(self.aggregate.state_type()));
        if let Some(filter) = filter {
            let left_out: BooleanArray = filter.iter().map(|is_counted| Some(is_counted != Some(true))).collect();
            totals = nullif(&totals, &left_out)?;
        }
        // Those of nulls are not read.
        let counts = UInt64Array::from_value(1, totals.len());
        Ok(vec![totals, Arc::new(counts)])
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<W::Native>() + self.counts.capacity() * size_of::<usize>()
    }
}
