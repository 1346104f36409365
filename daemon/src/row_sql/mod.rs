//! Silver tables without a plugin: SQL over the fields of an event makes their rows, in a process of its own for each table.
//!
//! ```text
//!   pipeline.toml ─ Definition ─▶ RowSql (the table's schema) ─ start ─▶ SqlInstance ── batch ─▶ process: Evaluator
//! ```

mod comments;
mod definition;
mod error;
mod evaluate;
mod event;
mod functions;
mod instance;
mod plan;
mod process;
mod reference;
#[cfg(test)]
mod tests;

use silverd_core::schema::TableSchema;

use plan::{Planned, plan};
use process::Start;

pub(crate) use definition::Definition;
pub(crate) use error::SqlError;
pub(crate) use event::EventColumns;
pub(crate) use instance::{SqlFault, SqlInstance, SqlRows};
pub(crate) use process::serve;

/// DataFusion's memory for planning, which keeps nothing.
const PLANNING_POOL_BYTES: usize = 16 << 20;

/// The SQL of a table, planned.
pub(crate) struct RowSql {
    definition: Definition,
    pub(crate) event: EventColumns,
    pub(crate) schema: TableSchema,
}

impl RowSql {
    /// Plans the SQL of a definition. Nothing is computed: only the process that evaluates it does.
    pub(crate) fn plan<'r>(
        definition: Definition,
        references: impl IntoIterator<Item = (&'r str, &'r [u8])>,
    ) -> anyhow::Result<Self> {
        let Planned { event, schema, .. } = plan(&definition, references, PLANNING_POOL_BYTES)?;
        Ok(Self { definition, event, schema })
    }

    /// Starts a process, and waits until it is ready.
    pub(crate) fn start(
        &self,
        references: Vec<(String, Vec<u8>)>,
        memory_bytes_max: usize,
    ) -> anyhow::Result<SqlInstance> {
        let (references, contents) = references.into_iter().unzip();
        let start = Start { definition: self.definition.clone(), references, memory_bytes_max };
        SqlInstance::start(&start, contents)
    }
}
