//! `ceil`, `floor` and `trunc` of integers, which DataFusion computes as doubles.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::types::{NativeType, logical_int64};
use datafusion::error::Result;
use datafusion::functions::math::{ceil, floor, trunc};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, TypeSignatureClass,
};

/// Has room for every integer.
const ALL_INTEGERS: DataType = DataType::Decimal128(20, 0);

/// A function of DataFusion's whose result for an integer is of the integer's type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExactRounding {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ExactRounding {
    pub(super) fn all() -> [Self; 3] {
        let integer = Coercion::new_exact(TypeSignatureClass::Integer);
        let places = Coercion::new_implicit(
            TypeSignatureClass::Native(logical_int64()),
            vec![TypeSignatureClass::Integer],
            NativeType::Int64,
        );
        let alone = TypeSignature::Coercible(vec![integer.clone()]);
        let with_places = TypeSignature::Coercible(vec![integer, places]);
        [
            Self::of(ceil(), vec![alone.clone()]),
            Self::of(floor(), vec![alone.clone()]),
            Self::of(trunc(), vec![with_places, alone]),
        ]
    }

    /// The function with signatures for integers, which go before its own.
    fn of(inner: Arc<ScalarUDF>, mut signatures: Vec<TypeSignature>) -> Self {
        let own = inner.signature();
        signatures.push(own.type_signature.clone());
        let signature = Signature::one_of(signatures, own.volatility);
        Self { inner, signature }
    }
}

impl ScalarUDFImpl for ExactRounding {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match &types[0] {
            integer if integer.is_integer() => Ok(integer.clone()),
            _ => self.inner.return_type(types),
        }
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ty = args.return_type().clone();
        if !ty.is_integer() {
            return self.inner.invoke_with_args(args);
        }
        if args.args.len() == 1 {
            return Ok(args.args.swap_remove(0));
        }
        args.args[0] = args.args[0].cast_to(&ALL_INTEGERS, None)?;
        for field in [&mut args.arg_fields[0], &mut args.return_field] {
            *field = Arc::new(Field::clone(field).with_data_type(ALL_INTEGERS));
        }
        self.inner.invoke_with_args(args)?.cast_to(&ty, None)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }
}
