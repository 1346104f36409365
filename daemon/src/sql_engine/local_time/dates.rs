//! Dates and times without a zone next to timestamps that have one.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Date32Type, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue, exec_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList, TryCast};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    cast, try_cast,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use silverd_core::zone::Zone;

use super::bins::{instants, map};
use super::local_zone;

/// Replaces comparisons and casts of local timestamps.
#[derive(Debug)]
pub(super) struct DateRewrite;

/// Plans the time between two timestamps.
#[derive(Debug)]
pub(super) struct DifferencePlanner;

/// The first instant of a day in a zone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StartOfDay {
    zone: Zone,
    signature: Signature,
}

/// The instant at which clocks of a zone show a time: the first of two, and where they skip it, the one at which they do.
///
/// DataFusion's cast is not used: compared with a literal, it is taken away from the time, and the zone with it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WhenShown {
    zone: Zone,
    unit: TimeUnit,
    signature: Signature,
}

impl FunctionRewrite for DateRewrite {
    fn name(&self) -> &str {
        "local_dates"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
                let zone = zone_among([&*left, &*right], schema);
                let (left, changed_left) = as_instant(*left, zone, schema);
                let (right, changed_right) = as_instant(*right, zone, schema);
                let compared = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
                Transformed::new_transformed(compared, changed_left || changed_right)
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let zone = zone_among([&*expr, &*low, &*high], schema);
                let (expr, changed) = as_instant(*expr, zone, schema);
                let (low, changed_low) = as_instant(*low, zone, schema);
                let (high, changed_high) = as_instant(*high, zone, schema);
                let between = Between::new(Box::new(expr), negated, Box::new(low), Box::new(high));
                Transformed::new_transformed(Expr::Between(between), changed || changed_low || changed_high)
            }
            Expr::InList(InList { expr, list, negated }) => {
                let zone = zone_among([&*expr], schema);
                let list: Vec<_> = list.into_iter().map(|item| as_instant(item, zone, schema)).collect();
                let changed = list.iter().any(|(_, changed)| *changed);
                let list = list.into_iter().map(|(item, _)| item).collect();
                Transformed::new_transformed(Expr::InList(InList::new(expr, list, negated)), changed)
            }
            Expr::Cast(Cast { expr, field }) => match with_local_time(*expr, field.data_type(), schema) {
                (expr, true) => Transformed::yes(cast(expr, field.data_type().clone())),
                (expr, false) => Transformed::no(Expr::Cast(Cast { expr: Box::new(expr), field })),
            },
            Expr::TryCast(TryCast { expr, field }) => match with_local_time(*expr, field.data_type(), schema) {
                (expr, true) => Transformed::yes(try_cast(expr, field.data_type().clone())),
                (expr, false) => Transformed::no(Expr::TryCast(TryCast { expr: Box::new(expr), field })),
            },
            other => Transformed::no(other),
        })
    }
}

impl ExprPlanner for DifferencePlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::Minus {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { op, left, right } = expr;
        let zone = zone_among([&left, &right], schema);
        let (left, right) = (minuend(left, zone, schema), minuend(right, zone, schema));
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// A date, or a timestamp, as a timestamp of this zone; anything else as it is.
fn minuend(expr: Expr, zone: Option<Zone>, schema: &DFSchema) -> Expr {
    let Some(zone) = zone else { return expr };
    match expr.get_type(schema) {
        Ok(DataType::Timestamp(unit, of)) if of.as_deref() != Some(zone.name()) => {
            cast(expr, DataType::Timestamp(unit, Some(zone.name().into())))
        }
        _ => as_instant(expr, Some(zone), schema).0,
    }
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// The zone of the first local timestamp.
fn zone_among<const N: usize>(exprs: [&Expr; N], schema: &DFSchema) -> Option<Zone> {
    exprs.into_iter().find_map(|expr| Some(local_zone(&expr.get_type(schema).ok()?)?.1))
}

/// A date as the first instant of its day in a zone, a time without a zone as the instant at which clocks show it, and
/// whether it is one of them; anything else as it is.
fn as_instant(expr: Expr, zone: Option<Zone>, schema: &DFSchema) -> (Expr, bool) {
    let Some(zone) = zone else { return (expr, false) };
    match expr.get_type(schema) {
        Ok(DataType::Date32) => (StartOfDay::of(expr, zone), true),
        Ok(DataType::Date64) => (StartOfDay::of(cast(expr, DataType::Date32), zone), true),
        Ok(DataType::Timestamp(unit, None)) => (WhenShown::of(expr, unit, zone), true),
        _ => (expr, false),
    }
}

/// What is to be cast to a type instead of an expression, so that the result is local; and whether that is something
/// else.
fn with_local_time(expr: Expr, ty: &DataType, schema: &DFSchema) -> (Expr, bool) {
    let Ok(from) = expr.get_type(schema) else { return (expr, false) };
    match (local_zone(&from), ty) {
        (Some(_), DataType::Timestamp(_, None)) => (to_local_time().call(vec![expr]), true),
        (Some(_), DataType::Date64) => (cast(expr, DataType::Date32), true),
        (None, ty) => as_instant(expr, local_zone(ty).map(|(_, zone)| zone), schema),
        _ => (expr, false),
    }
}

impl StartOfDay {
    fn of(date: Expr, zone: Zone) -> Expr {
        let signature = Signature::exact(vec![DataType::Date32], Volatility::Immutable);
        ScalarUDF::from(Self { zone, signature }).call(vec![date])
    }

    fn ty(&self) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some(self.zone.name().into()))
    }
}

impl ScalarUDFImpl for StartOfDay {
    fn name(&self) -> &str {
        "start_of_day"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let start = |day: i32| self.zone.start_of_day(day);
        match args.args.first() {
            Some(ColumnarValue::Scalar(ScalarValue::Date32(day))) => {
                let zone = Some(self.zone.name().into());
                Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(day.map(start), zone)))
            }
            Some(ColumnarValue::Array(days)) if days.data_type() == &DataType::Date32 => {
                let days = days.as_primitive::<Date32Type>();
                let starts: TimestampMicrosecondArray = days.iter().map(|day| day.map(start)).collect();
                let starts: ArrayRef = Arc::new(starts.with_timezone(self.zone.name()));
                Ok(ColumnarValue::Array(starts))
            }
            _ => exec_err!("`start_of_day` takes a date"),
        }
    }
}

impl WhenShown {
    fn of(time: Expr, unit: TimeUnit, zone: Zone) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        ScalarUDF::from(Self { zone, unit, signature }).call(vec![time])
    }

    fn ty(&self) -> DataType {
        DataType::Timestamp(self.unit, Some(self.zone.name().into()))
    }
}

impl ScalarUDFImpl for WhenShown {
    fn name(&self) -> &str {
        "when_shown"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(times) if times.data_type() == DataType::Timestamp(self.unit, None) => {
                map(times, &self.ty(), |shown| instants(shown, shown, self.unit, self.zone, false))
            }
            _ => exec_err!("`when_shown` takes a timestamp without a zone"),
        }
    }
}
