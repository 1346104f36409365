//! SQL over the tables of a pipeline, by DataFusion, for `silverd query`, the dashboard's panels and Gold.
//!
//! `bronze`, `quarantine`, `late` and the Silver tables have their own names, a Gold table is `gold.<name>`, and
//! `live.<name>` holds the newest rows of a Silver table, kept in memory.

mod delta_scan;
mod error;
mod file_stats;
mod float_bounds;
mod live_tables;
mod panel_queries;
mod printable;
pub(crate) mod process;
mod query;
mod query_result;
mod tables;
#[cfg(test)]
mod tests;
mod zoned;

pub(crate) use delta_scan::DeltaScan;
pub(crate) use error::QueryError;
pub(crate) use panel_queries::{PanelHandler, PanelQueries};
pub(crate) use printable::{printable, printable_batch, printable_column};
pub(crate) use query::{
    bounded_context, check_gold_zone, check_query, gold_source, gold_zone_differs, is_query, register, table_references,
};
pub(crate) use query_result::{Cell, Column, ColumnKind, QueryResult, ResultLimits};
pub(crate) use tables::{Tables, session_in};
