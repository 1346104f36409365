//! Integer arithmetic that fails where the result does not fit, instead of giving a wrong number: `+`, `-`, `*`, `sum`.

use std::marker::PhantomData;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Datum, PrimitiveArray, Scalar,
};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::compute::{nullif, prep_null_mask_filter};
use arrow::datatypes::{DataType, FieldRef, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, Expr, ExprSchemable, GroupsAccumulator,
    Operator, ReversedUDAF, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, SetMonotonicity, Signature, StatisticsArgs,
    Volatility,
};
use datafusion::logical_expr_common::type_coercion::binary::BinaryTypeCoercer;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Lets the queries of a context fail where an integer overflows.
pub(super) fn check_overflow(context: &mut SessionContext) -> Result<()> {
    FunctionRegistry::register_udaf(context, Arc::new(AggregateUDF::from(CheckedSum::default())))?;
    context.register_expr_planner(Arc::new(ArithmeticPlanner))
}

/// Plans `+`, `-` and `*` of integers as functions that check.
#[derive(Debug)]
struct ArithmeticPlanner;

impl ExprPlanner for ArithmeticPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
            [Operator::Plus, Operator::Minus, Operator::Multiply]
                .map(|operator| Arc::new(ScalarUDF::from(Arithmetic::new(operator))))
        });
        let [plus, minus, multiply] = &*FUNCTIONS;
        let (operator, function) = match &expr.op {
            BinaryOperator::Plus => (Operator::Plus, plus),
            BinaryOperator::Minus => (Operator::Minus, minus),
            BinaryOperator::Multiply => (Operator::Multiply, multiply),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let operands = BinaryTypeCoercer::new(&left, &operator, &right).get_input_types();
        let are_integers = |(left, right): (DataType, DataType)| left == right && left.is_integer();
        if !(left.is_integer() && right.is_integer() && operands.is_ok_and(are_integers)) {
            return Ok(PlannerResult::Original(expr));
        }
        Ok(PlannerResult::Planned(function.call(vec![expr.left, expr.right])))
    }
}

/// One of the three operators, over integers.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    operator: Operator,
    signature: Signature,
}

impl Arithmetic {
    fn new(operator: Operator) -> Self {
        Self { operator, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn compute(&self, left: &dyn Datum, right: &dyn Datum) -> std::result::Result<ArrayRef, ArrowError> {
        match self.operator {
            Operator::Plus => add(left, right),
            Operator::Minus => sub(left, right),
            _ => mul(left, right),
        }
    }

    fn explain(&self, failure: &ArrowError) -> datafusion::error::DataFusionError {
        let text = format!("`{}`: {failure}; CAST an operand to DECIMAL(38, 0) or DOUBLE", self.operator);
        datafusion::error::DataFusionError::Execution(text)
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.schema_name(args)
    }

    /// The name that the operator gives to a column.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!("{} {} {}", left.schema_name(), self.operator, right.schema_name())),
            _ => exec_err!("`{}` takes two operands", self.operator),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = types else { return exec_err!("`{}` takes two operands", self.operator) };
        let (left, right) = BinaryTypeCoercer::new(left, &self.operator, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (left, right) = (&args.args[0], &args.args[1]);
        let scalar = |value: &ScalarValue| value.to_scalar();
        let computed = match (left, right) {
            (ColumnarValue::Array(left), ColumnarValue::Array(right)) => self.compute(left, right),
            (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => self.compute(left, &scalar(right)?),
            (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => self.compute(&scalar(left)?, right),
            (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
                let (left, right): (Scalar<ArrayRef>, Scalar<ArrayRef>) = (scalar(left)?, scalar(right)?);
                let result = self.compute(&left, &right).map_err(|failure| self.explain(&failure))?;
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
            }
        };
        Ok(ColumnarValue::Array(computed.map_err(|failure| self.explain(&failure))?))
    }
}

fn sum_overflows<T>() -> Result<T> {
    exec_err!("`sum`: the result does not fit into its type; CAST the argument to DECIMAL(38, 0) or DOUBLE")
}

/// `sum`, whose result fits or is an error.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct CheckedSum {
    inner: Sum,
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
        match args.return_field.data_type() {
            DataType::Int64 if !args.is_distinct => Ok(Box::new(Total::<Int64Type>::default())),
            DataType::UInt64 if !args.is_distinct => Ok(Box::new(Total::<UInt64Type>::default())),
            _ => self.inner.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match args.return_field.data_type() {
            DataType::Int64 => Ok(Box::new(GroupTotals::<Int64Type>::default())),
            DataType::UInt64 => Ok(Box::new(GroupTotals::<UInt64Type>::default())),
            _ => self.inner.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match args.return_field.data_type() {
            DataType::Int64 | DataType::UInt64 if !args.is_distinct => self.accumulator(args),
            _ => self.inner.create_sliding_accumulator(args),
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

/// The sum of one group. It may leave the type's range in between.
#[derive(Debug)]
struct Total<T: ArrowPrimitiveType> {
    total: i128,
    count: u64,
    of: PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> Default for Total<T> {
    fn default() -> Self {
        Self { total: 0, count: 0, of: PhantomData }
    }
}

impl<T: ArrowPrimitiveType> Total<T>
where
    T::Native: Into<i128>,
{
    fn add(&mut self, values: &[ArrayRef], sign: i128) {
        let values = values[0].as_primitive::<T>();
        let count = (values.len() - values.null_count()) as u64;
        self.total += sign * values.iter().flatten().map(Into::<i128>::into).sum::<i128>();
        self.count = if sign > 0 { self.count + count } else { self.count.saturating_sub(count) };
    }
}

impl<T: ArrowPrimitiveType + std::fmt::Debug> Accumulator for Total<T>
where
    T::Native: Into<i128> + TryFrom<i128>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_new_null(&T::DATA_TYPE);
        }
        let Ok(total) = T::Native::try_from(self.total) else { return sum_overflows() };
        ScalarValue::new_primitive::<T>(Some(total), &T::DATA_TYPE)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// The sums of many groups.
#[derive(Debug)]
struct GroupTotals<T: ArrowPrimitiveType> {
    totals: Vec<T::Native>,
    /// Whether the group has a value that is not null.
    has_value: Vec<bool>,
}

impl<T: ArrowPrimitiveType> Default for GroupTotals<T> {
    fn default() -> Self {
        Self { totals: Vec::new(), has_value: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType> GroupTotals<T>
where
    T::Native: ArrowNativeTypeOp,
{
    fn add(&mut self, group: usize, value: T::Native) -> Result<()> {
        let Ok(total) = self.totals[group].add_checked(value) else { return sum_overflows() };
        self.totals[group] = total;
        self.has_value[group] = true;
        Ok(())
    }
}

impl<T: ArrowPrimitiveType> GroupsAccumulator for GroupTotals<T>
where
    T::Native: ArrowNativeTypeOp,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        groups_total: usize,
    ) -> Result<()> {
        self.totals.resize(groups_total, T::Native::ZERO);
        self.has_value.resize(groups_total, false);
        let values = values[0].as_primitive::<T>();
        match (values.nulls(), filter) {
            (None, None) => groups.iter().zip(values.values()).try_for_each(|(group, value)| self.add(*group, *value)),
            (nulls, filter) => {
                let is_counted = |row: usize| {
                    nulls.is_none_or(|nulls| nulls.is_valid(row))
                        && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
                };
                let rows = groups.iter().enumerate().filter(|(row, _)| is_counted(*row));
                rows.map(|(row, group)| (*group, values.value(row)))
                    .try_for_each(|(group, value)| self.add(group, value))
            }
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let totals = emit_to.take_needed(&mut self.totals);
        let has_value = emit_to.take_needed(&mut self.has_value);
        Ok(Arc::new(PrimitiveArray::<T>::new(totals.into(), Some(NullBuffer::from(has_value)))))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], groups_total: usize) -> Result<()> {
        self.update_batch(states, groups, None, groups_total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let Some(filter) = filter else { return Ok(vec![values[0].clone()]) };
        let left_out = arrow::compute::not(&prep_null_mask_filter(filter))?;
        Ok(vec![nullif(&values[0], &left_out)?])
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<T::Native>() + self.has_value.capacity()
    }
}
