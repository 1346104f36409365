//! `+ - * / << >>`, `-x` and `lcm` of integers and decimals, whose results fit or are errors.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum, PrimitiveArray, Scalar};
use arrow::compute::kernels::numeric::{add, div, mul, neg, sub};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, ScalarValue, exec_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::math::lcm::LcmFunc;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::logical_expr_common::type_coercion::binary::BinaryTypeCoercer;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::precision::within_precision;

const INTEGER_ADVICE: &str = "CAST an operand to DECIMAL(38, 0) or DOUBLE";
const DECIMAL_ADVICE: &str = "CAST an operand to DOUBLE, which rounds";
const SHIFT_ADVICE: &str = "multiply a DECIMAL(38, 0) by a power of two, or divide it by one";

/// Plans operators over integers and decimals as functions that check.
#[derive(Debug)]
pub(super) struct ArithmeticPlanner;

/// One of the operators.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Arithmetic {
    operator: Operator,
    signature: Signature,
}

/// `-x` of integers.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Negation {
    signature: Signature,
}

/// `lcm`, whose decimals have no more digits than their type.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CheckedLcm {
    inner: LcmFunc,
}

impl ExprPlanner for ArithmeticPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match &expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::PGBitwiseShiftLeft => Operator::BitwiseShiftLeft,
            BinaryOperator::PGBitwiseShiftRight => Operator::BitwiseShiftRight,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let operands = BinaryTypeCoercer::new(&left, &operator, &right).get_input_types();
        if !operands.is_ok_and(|(left, right)| needs_check(operator, &left, &right)) {
            return Ok(PlannerResult::Original(expr));
        }
        Ok(PlannerResult::Planned(Arithmetic::of(operator, expr.left, expr.right)))
    }
}

/// Whether DataFusion gives results that do not fit.
fn needs_check(operator: Operator, left: &DataType, right: &DataType) -> bool {
    let are_integers = left == right && left.is_integer();
    let are_decimals = left.is_decimal() && right.is_decimal();
    match operator {
        Operator::Plus | Operator::Minus | Operator::Multiply => are_integers || are_decimals,
        Operator::Divide => are_decimals,
        _ => are_integers,
    }
}

impl Arithmetic {
    pub(super) fn of(operator: Operator, left: Expr, right: Expr) -> Expr {
        let function = Self { operator, signature: Signature::user_defined(Volatility::Immutable) };
        ScalarUDF::from(function).call(vec![left, right])
    }

    fn types<'t>(&self, types: &'t [DataType]) -> Result<(&'t DataType, &'t DataType)> {
        match types {
            [left, right] => Ok((left, right)),
            _ => exec_err!("`{}` takes two operands", self.operator),
        }
    }

    fn compute(&self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef> {
        let result = match self.operator {
            Operator::Plus => add(left, right),
            Operator::Minus => sub(left, right),
            Operator::Multiply => mul(left, right),
            Operator::Divide => div(left, right),
            _ => shift(self.operator, left, right),
        };
        let result = result.and_then(|result| within_precision(&result).map(|()| result));
        result.map_err(|failure| {
            let advice = match self.operator {
                Operator::BitwiseShiftLeft | Operator::BitwiseShiftRight => SHIFT_ADVICE,
                _ if left.get().0.data_type().is_decimal() => DECIMAL_ADVICE,
                _ => INTEGER_ADVICE,
            };
            explained(&self.operator.to_string(), failure, advice)
        })
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            Operator::Multiply => "checked_multiply",
            Operator::Divide => "checked_divide",
            Operator::BitwiseShiftLeft => "checked_shift_left",
            _ => "checked_shift_right",
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
        let (left, right) = self.types(types)?;
        let (left, right) = BinaryTypeCoercer::new(left, &self.operator, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let (left, right) = self.types(types)?;
        BinaryTypeCoercer::new(left, &self.operator, right).get_result_type()
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
                let result = self.compute(&left, &right)?;
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
            }
        };
        Ok(ColumnarValue::Array(computed?))
    }
}

/// Shifts by 0 to one less than the number of bits, and loses no digit at the upper end.
fn shift(operator: Operator, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    match left.get().0.data_type() {
        DataType::Int8 => shift_as::<Int8Type>(operator, left, right),
        DataType::Int16 => shift_as::<Int16Type>(operator, left, right),
        DataType::Int32 => shift_as::<Int32Type>(operator, left, right),
        DataType::Int64 => shift_as::<Int64Type>(operator, left, right),
        DataType::UInt8 => shift_as::<UInt8Type>(operator, left, right),
        DataType::UInt16 => shift_as::<UInt16Type>(operator, left, right),
        DataType::UInt32 => shift_as::<UInt32Type>(operator, left, right),
        DataType::UInt64 => shift_as::<UInt64Type>(operator, left, right),
        other => Err(ArrowError::InvalidArgumentError(format!("`{operator}` takes integers, and not {other}"))),
    }
}

fn shift_as<T>(operator: Operator, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128> + TryFrom<i128>,
{
    let bits = 8 * size_of::<T::Native>() as i128;
    let shifted = |value: T::Native, by: T::Native| {
        let (value, by): (i128, i128) = (value.into(), by.into());
        let result = match operator {
            _ if !(0..bits).contains(&by) => None,
            Operator::BitwiseShiftLeft => <T::Native as TryFrom<i128>>::try_from(value << by).ok(),
            _ => <T::Native as TryFrom<i128>>::try_from(value >> by).ok(),
        };
        let overflow = || ArrowError::ArithmeticOverflow(format!("Overflow happened on: {value} {operator} {by}"));
        result.ok_or_else(overflow)
    };
    let ((left, left_is_scalar), (right, right_is_scalar)) = (left.get(), right.get());
    let rows = if left_is_scalar { right.len() } else { left.len() };
    let (left, right) = (left.as_primitive::<T>(), right.as_primitive::<T>());
    let value_of = |values: &PrimitiveArray<T>, is_scalar: bool, row: usize| {
        let row = if is_scalar { 0 } else { row };
        values.is_valid(row).then(|| values.value(row))
    };
    let result = (0..rows).map(|row| {
        let operands = value_of(left, left_is_scalar, row).zip(value_of(right, right_is_scalar, row));
        operands.map(|(value, by)| shifted(value, by)).transpose()
    });
    Ok(Arc::new(result.collect::<Result<PrimitiveArray<T>, ArrowError>>()?))
}

impl Negation {
    pub(super) fn of(operand: Expr) -> Expr {
        let function = Self { signature: Signature::user_defined(Volatility::Immutable) };
        ScalarUDF::from(function).call(vec![operand])
    }
}

impl ScalarUDFImpl for Negation {
    fn name(&self) -> &str {
        "checked_negate"
    }

    /// The name that the operator gives to a column.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [operand] => Ok(format!("(- {})", operand.schema_name())),
            _ => exec_err!("`-` takes one operand"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let operand = &args.args[0];
        let negated = neg(&operand.to_array(1)?).map_err(|failure| explained("-", failure, INTEGER_ADVICE))?;
        Ok(match operand {
            ColumnarValue::Array(_) => ColumnarValue::Array(negated),
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?),
        })
    }
}

impl ScalarUDFImpl for CheckedLcm {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = self.inner.invoke_with_args(args)?;
        let advice = "CAST the arguments to a DECIMAL of more digits";
        within_precision(&result.to_array(1)?).map_err(|failure| explained(self.name(), failure, advice))?;
        Ok(result)
    }
}

/// The error of an overflow says what to do about it. Other errors stay as they are.
fn explained(name: &str, failure: ArrowError, advice: &str) -> DataFusionError {
    match failure {
        ArrowError::ArithmeticOverflow(_) => DataFusionError::Execution(format!("`{name}`: {failure}; {advice}")),
        other => other.into(),
    }
}
