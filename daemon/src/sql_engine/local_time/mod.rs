//! SQL over timestamps that have a time zone: days, hours and dates are those of local clocks.
//!
//! | SQL over a timestamp with a zone | DataFusion | here |
//! |---|---|---|
//! | `date_bin` | counts in UTC | counts on local clocks |
//! | `date_trunc` of a day with two midnights | gives either | gives the first |
//! | compared with a time without a zone | takes it for UTC, if the other side is a literal | takes it for a local one |
//! | compared with a date, minus a date | takes the date in UTC | takes its first local instant |
//! | `CAST(… AS TIMESTAMP)` | gives the time in UTC | gives the local time |
//! | `CAST(date AS TIMESTAMP WITH TIME ZONE)` | fails where clocks skip midnight | gives the first instant |
//! | minus a timestamp of another zone | fails | gives the time between |
//! | `date_part`, `to_char`, `CAST(… AS DATE)`, `± INTERVAL`, texts, `now`, `current_date` | are local | |
//!
//! Timestamps in UTC, and without a zone, are as DataFusion has them.

mod bins;
mod dates;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use silverd_core::zone::Zone;

use bins::LocalBins;
use dates::{DateRewrite, DifferencePlanner};

/// Lets the queries of a context follow the zones of timestamps.
pub(super) fn follow_zones(context: &mut SessionContext) -> Result<()> {
    for function in LocalBins::all() {
        FunctionRegistry::register_udf(context, Arc::new(ScalarUDF::from(function)))?;
    }
    context.register_function_rewrite(Arc::new(DateRewrite))?;
    context.register_expr_planner(Arc::new(DifferencePlanner))
}

/// The zone of a timestamp's type, if it has one that is not UTC.
fn local_zone(ty: &DataType) -> Option<(TimeUnit, Zone)> {
    let DataType::Timestamp(unit, Some(name)) = ty else { return None };
    let zone = Zone::parse(name).ok().filter(|zone| !zone.is_utc())?;
    Some((*unit, zone))
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}
