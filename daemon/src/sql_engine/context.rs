//! The contexts in which all SQL is planned.

use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::checked::check_overflow;
use super::json;
use super::local_time::follow_zones;

/// What a statement may do: read.
pub(crate) fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// A context without tables, whose operators keep this much memory at most, and spill to disk or fail beyond it. Its
/// arithmetic is exact, its days are local ones where timestamps have a zone, and it has the functions for JSON.
pub(crate) fn bounded_context(pool_bytes: usize, config: SessionConfig) -> anyhow::Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(pool_bytes, 1.0);
    let mut context = SessionContext::new_with_config_rt(config.with_information_schema(true), runtime.build_arc()?);
    check_overflow(&mut context)?;
    follow_zones(&mut context)?;
    for function in json::functions() {
        FunctionRegistry::register_udf(&mut context, function)?;
    }
    Ok(context)
}
