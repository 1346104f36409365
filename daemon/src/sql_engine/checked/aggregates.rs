//! `sum` and `avg`, whose results fit or are errors.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};

use super::total::Aggregate;

/// DataFusion keeps the sum for an average of decimals in 13 more digits, if there are as many. They are enough for
/// more rows than a table can have.
const AVERAGE_DIGITS_MAX: u8 = 63;

#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CheckedSum {
    inner: Sum,
}

#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CheckedAverage {
    inner: Avg,
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match Aggregate::sum(args.return_type()) {
            None => self.inner.accumulator(args),
            Some(sum) if args.is_distinct => sum.distinct_accumulator(self.inner.accumulator(args)?),
            Some(sum) => sum.accumulator(),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        match Aggregate::sum(args.return_type()) {
            Some(sum) if !args.is_distinct => Ok(sum.state_fields(args.name)),
            _ => self.inner.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match Aggregate::sum(args.return_type()) {
            Some(sum) => sum.groups_accumulator(),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match Aggregate::sum(args.return_type()) {
            None => self.inner.create_sliding_accumulator(args),
            Some(sum) if args.is_distinct => sum.distinct_accumulator(self.inner.create_sliding_accumulator(args)?),
            Some(sum) => sum.accumulator(),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn set_monotonicity(&self, ty: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(ty)
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.inner.value_from_stats(args)
    }
}

impl AggregateUDFImpl for CheckedAverage {
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
        if let [DataType::Decimal256(precision, scale)] = types
            && *precision > AVERAGE_DIGITS_MAX
        {
            return plan_err!(
                "`avg`: the sum of values of DECIMAL({precision}, {scale}) may not fit; CAST the argument to a DECIMAL \
                 of at most {AVERAGE_DIGITS_MAX} digits or to DOUBLE"
            );
        }
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match Aggregate::average(args.return_type()) {
            Some(average) if !args.is_distinct => average.accumulator(),
            _ => self.inner.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        match Aggregate::average(args.return_type()) {
            Some(average) if !args.is_distinct => Ok(average.state_fields(args.name)),
            _ => self.inner.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match Aggregate::average(args.return_type()) {
            Some(average) => average.groups_accumulator(),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_expr()
    }
}
