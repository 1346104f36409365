//! `date_part` (and `EXTRACT`) of a duration, such as the difference of two times. DataFusion drops the fraction of the
//! epoch, and computes the parts of a second in 32 bits, which wrap.

use arrow::compute::kernels::cast_utils::IntervalUnit;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, cast, lit};

use super::arithmetic::Arithmetic;

/// An expression of the same type that gives the exact part, or fails; `None` if the expression is anything else.
pub(super) fn exact(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let [Expr::Literal(part, _), duration] = &args[..] else { return None };
    if func.name() != "date_part" {
        return None;
    }
    let DataType::Duration(unit) = duration.get_type(schema).ok()? else { return None };
    let part = part.try_as_str()??.trim_matches(['\'', '"']);
    let count = cast(duration.clone(), DataType::Int64);
    if part.eq_ignore_ascii_case("epoch") {
        return Some(cast(count, DataType::Float64) / lit(per_second(unit) as f64));
    }
    match part.parse::<IntervalUnit>().ok()? {
        IntervalUnit::Second => Some(rescaled(count, unit, TimeUnit::Second, DataType::Int32)),
        IntervalUnit::Millisecond => Some(rescaled(count, unit, TimeUnit::Millisecond, DataType::Int32)),
        IntervalUnit::Microsecond => Some(rescaled(count, unit, TimeUnit::Microsecond, DataType::Int32)),
        IntervalUnit::Nanosecond => Some(rescaled(count, unit, TimeUnit::Nanosecond, DataType::Int64)),
        _ => None,
    }
}

/// A number of units in another unit. The cast fails for what does not fit.
fn rescaled(count: Expr, from: TimeUnit, to: TimeUnit, ty: DataType) -> Expr {
    let (from, to) = (per_second(from), per_second(to));
    let rescaled = match from >= to {
        true => count / lit(from / to),
        false => Arithmetic::of(Operator::Multiply, count, lit(to / from)),
    };
    cast(rescaled, ty)
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}
