//! `reject('why')`: the event gets no row, and is quarantined with this reason.
//!
//! As the SQL has it, it fails, and with it the batch. Where it is computed for no other events than those that come to it, the
//! plan has it collect the events instead: see [`collecting`].

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt32Type};
use datafusion::common::DFSchema;
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
    ScalarUDF::from(RejectFunction::new(1, None))
}

/// With the reason as its argument it fails. With the number of the event in addition, it collects the event.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RejectFunction {
    signature: Signature,
    collects: Option<Collector>,
}

/// Where the events that a column rejects are collected.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Collector {
    column: String,
    rejected: Rejected,
}

impl RejectFunction {
    fn new(arguments: usize, collects: Option<Collector>) -> Self {
        // Volatile, so that it is not computed ahead for a row that never comes to it.
        Self { signature: Signature::any(arguments, Volatility::Volatile), collects }
    }
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
        let rows = args.number_rows;
        let columns = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let nothing = ColumnarValue::Array(new_null_array(&DataType::Null, rows));
        let reasons = columns.first().map(|reasons| cast(reasons, &DataType::Utf8)).transpose()?;
        let mut reasons = reasons.iter().flat_map(|reasons| reasons.as_string::<i32>());
        match (&self.collects, columns.get(1)) {
            _ if rows == 0 => Ok(nothing),
            (Some(collector), Some(numbers)) => {
                let numbers = cast(numbers, &DataType::UInt32)?;
                collector.add(numbers.as_primitive::<UInt32Type>().values().iter().copied().zip(reasons));
                Ok(nothing)
            }
            _ => Err(DataFusionError::Execution(reasons.next().flatten().unwrap_or(NO_REASON).to_owned())),
        }
    }
}

impl Collector {
    fn add<'r>(&self, events: impl Iterator<Item = (u32, Option<&'r str>)>) {
        let mut rejected = self.rejected.0.lock();
        for (number, reason) in events {
            let reason = || format!("{}: {}", self.column, reason.unwrap_or(NO_REASON));
            rejected.entry(number).or_insert_with(reason);
        }
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
            let collector = Collector { column: column.to_owned(), rejected: rejected.clone() };
            ScalarUDF::from(RejectFunction::new(2, Some(collector)))
                .call(vec![function.args[0].clone(), number.clone()])
        }
        other => other.clone(),
    }
}
