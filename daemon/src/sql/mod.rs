//! SQL over the tables of a pipeline, by DataFusion, for `silverd query`, the dashboard's panels and Gold.
//!
//! `bronze`, `quarantine`, `late` and the Silver tables have their own names, a Gold table is `gold.<name>`, and
//! `live.<name>` holds the newest rows of a Silver table, kept in memory.

mod error;
mod query;
mod query_result;
mod tables;

pub(crate) use error::QueryError;
pub(crate) use query::{
    add_schemas, bounded_context, check_query, gold_source, plan, read_only, register, table_references,
};
pub(crate) use query_result::{ColumnKind, QueryResult, collect_rows};
pub(crate) use tables::{TableCache, Tables};
