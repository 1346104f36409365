//! `reject('why')`: the event gets no row, and is quarantined with this reason.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

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
        Err(DataFusionError::Execution(reason.unwrap_or_else(|| "rejected by the table's SQL".to_owned())))
    }
}
