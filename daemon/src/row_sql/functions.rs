//! `reject('why')`: the event gets no row, and is quarantined with this reason.
//!
//! As the SQL has it, it fails, and with it the batch. Where it is computed for no other events than those that come to it, the
//! plan has it collect the events instead: see [`collecting`].

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt32Type};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use parking_lot::Mutex;

/// Why an event is rejected if the SQL gives no reason.
const NO_REASON: &str = "rejected by the table's SQL";
/// The name of the function.
pub(super) const REJECT: &str = "reject";

pub(super) fn reject() -> ScalarUDF {
    // Volatile, so that it is not computed ahead for a row that never comes to it.
    ScalarUDF::from(RejectFunction { signature: Signature::any(1, Volatility::Volatile) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RejectFunction {
    signature: Signature,
}

impl ScalarUDFImpl for RejectFunction {
    fn name(&self) -> &str {
        REJECT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// It has no value, so that it can stand in place of any.
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Null)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Scalar(ScalarValue::Null));
        }
        let reasons = args.args.into_iter().map(|arg| arg.into_array(1)).next().transpose()?;
        let reasons = reasons.map(|reasons| cast(&reasons, &DataType::Utf8)).transpose()?;
        let reason = reasons.as_ref().and_then(|reasons| {
            let reasons = reasons.as_string::<i32>();
            reasons.is_valid(0).then(|| reasons.value(0).to_owned())
        });
        Err(DataFusionError::Execution(reason.unwrap_or_else(|| NO_REASON.to_owned())))
    }
}

/// The events that one execution of a plan has rejected, each with its column and its first reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejected(Arc<Mutex<BTreeMap<u32, String>>>);

impl Rejected {
    /// The events since the last call.
    pub(super) fn take(&self) -> BTreeMap<u32, String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl PartialEq for Rejected {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Rejected {}

impl Hash for Rejected {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The expression of a column with each `reject` that only the rejected events come to as one that adds them to `rejected`.
/// `number` is the column with the number of the event, of a plan with this schema.
///
/// CASE computes a branch for exactly the rows that come to it. That is not so for AND and OR, which look at the whole batch,
/// and the optimizer turns a CASE of truth values into these: there, and wherever else it may stand, `reject` fails as it is.
pub(super) fn collecting(expr: &Expr, column: &str, number: &Expr, schema: &DFSchema, rejected: &Rejected) -> Expr {
    let collecting = |expr: &Expr| Box::new(collecting(expr, column, number, schema, rejected));
    match expr {
        Expr::Alias(alias) => {
            let mut alias = alias.clone();
            alias.expr = collecting(&alias.expr);
            Expr::Alias(alias)
        }
        Expr::Cast(cast) => {
            let mut cast = cast.clone();
            cast.expr = collecting(&cast.expr);
            Expr::Cast(cast)
        }
        Expr::Case(case) if expr.get_type(schema).is_ok_and(|ty| ty != DataType::Boolean) => {
            let mut case = case.clone();
            case.when_then_expr.iter_mut().for_each(|(_, then)| *then = collecting(then));
            case.else_expr = case.else_expr.as_deref().map(collecting);
            Expr::Case(case)
        }
        Expr::ScalarFunction(function) if function.func.name() == REJECT && function.args.len() == 1 => {
            let collect = CollectFunction {
                signature: Signature::any(2, Volatility::Volatile),
                column: column.to_owned(),
                rejected: rejected.clone(),
            };
            ScalarUDF::from(collect).call(vec![function.args[0].clone(), number.clone()])
        }
        other => other.clone(),
    }
}

/// `reject` of one column, with the number of the event as its second argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CollectFunction {
    signature: Signature,
    column: String,
    rejected: Rejected,
}

impl ScalarUDFImpl for CollectFunction {
    fn name(&self) -> &str {
        REJECT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Null)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [reasons, numbers] = &args.args[..] else {
            return Err(DataFusionError::Internal(format!("{REJECT} collects with 2 arguments")));
        };
        let reasons = cast(&reasons.to_array(rows)?, &DataType::Utf8)?;
        let numbers = cast(&numbers.to_array(rows)?, &DataType::UInt32)?;
        let numbers = numbers.as_primitive::<UInt32Type>().values().iter();
        let mut rejected = self.rejected.0.lock();
        for (number, reason) in numbers.zip(reasons.as_string::<i32>()) {
            let reason = || format!("{}: {}", self.column, reason.unwrap_or(NO_REASON));
            rejected.entry(*number).or_insert_with(reason);
        }
        Ok(ColumnarValue::Array(new_null_array(&DataType::Null, rows)))
    }
}
