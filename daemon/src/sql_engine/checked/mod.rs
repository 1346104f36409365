//! Arithmetic and rounding that are exact, or fail where a result does not fit, instead of giving a wrong number.
//!
//! | SQL | DataFusion | here |
//! |---|---|---|
//! | `+ - *` and `-x` of integers | wrap | fail |
//! | `+ - * /` and `lcm` of decimals | pass the digits of their type, fail beyond its bits | fail beyond its digits |
//! | `<< >>` | take the count modulo the bits, lose bits | fail |
//! | `sum` of all but floats, also `DISTINCT` and in windows | wraps | fails if the total does not fit |
//! | `avg` of durations | wraps | has room for every total |
//! | `avg` of decimals of more than 63 digits | can wrap | fails |
//! | `date_part` of a duration | drops fractions, wraps | exact, or fails |
//! | `ceil`, `floor`, `trunc` of integers | are floats | are integers |
//! | casts, `abs`, `round`, `gcd`, `factorial`, `%`, `/` and `lcm` of integers, `ceil` and `floor` of decimals | fail | |
//! | `power`, `avg` and `median` of integers, `array_sum`; see docs/cli.md | are floats: rounded, and never wrapped | |

mod aggregates;
mod arithmetic;
mod duration_part;
mod precision;
mod rounding;
#[cfg(test)]
mod tests;
mod total;

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, ScalarUDF};
use datafusion::prelude::SessionContext;

use aggregates::{CheckedAverage, CheckedSum};
use arithmetic::{ArithmeticPlanner, CheckedLcm, Negation};
use rounding::ExactRounding;

/// Lets the queries of a context fail where a number overflows.
pub(super) fn check_overflow(context: &mut SessionContext) -> Result<()> {
    FunctionRegistry::register_udaf(context, Arc::new(AggregateUDF::from(CheckedSum::default())))?;
    FunctionRegistry::register_udaf(context, Arc::new(AggregateUDF::from(CheckedAverage::default())))?;
    FunctionRegistry::register_udf(context, Arc::new(ScalarUDF::from(CheckedLcm::default())))?;
    for function in ExactRounding::all() {
        FunctionRegistry::register_udf(context, Arc::new(ScalarUDF::from(function)))?;
    }
    context.register_function_rewrite(Arc::new(CheckedRewrite))?;
    context.register_expr_planner(Arc::new(ArithmeticPlanner))
}

/// Replaces what is planned without an [`ArithmeticPlanner`].
#[derive(Debug)]
struct CheckedRewrite;

impl FunctionRewrite for CheckedRewrite {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match expr {
            Expr::Negative(operand) if operand.get_type(schema).is_ok_and(|ty| ty.is_integer()) => {
                Ok(Transformed::yes(Negation::of(*operand)))
            }
            other => Ok(match duration_part::exact(&other, schema) {
                Some(exact) => Transformed::yes(exact),
                None => Transformed::no(other),
            }),
        }
    }
}
