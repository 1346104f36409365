//! Evaluates the SQL of a table on batches of events. What its `reject` collects is rejected in one execution. If the SQL fails
//! on a batch, the batch is halved until the events on which it fails are alone: each of them is rejected, with the column.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{SchemaRef, UInt32Type};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use parking_lot::Mutex;
use silverd_core::outcome::{Code, Reject};

use super::definition::Definition;
use super::functions::Rejected;
use super::plan::{Planned, plan};

/// The SQL of a table, with its reference files, ready for events.
pub(super) struct Evaluator {
    context: SessionContext,
    events: Arc<Mutex<RecordBatch>>,
    rejected: Rejected,
    logical: LogicalPlan,
    physical: Arc<dyn ExecutionPlan>,
    /// The columns of the table.
    schema: SchemaRef,
    not_null: Vec<usize>,
    /// Plans that compute one column alone, for those that were needed; the last one computes none.
    of_columns: Vec<Option<Arc<dyn ExecutionPlan>>>,
    /// Where the last event failed: it is looked at first when the next one does.
    suspect: usize,
    /// How often a plan was executed.
    #[cfg(test)]
    pub(super) runs: std::sync::atomic::AtomicUsize,
}

/// The rows of a batch, and the events that have none because something is wrong.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) rows: RecordBatch,
    /// The number of the event of each row, ascending.
    pub(super) row_events: Vec<u32>,
    pub(super) rejects: Vec<Reject>,
}

impl Evaluator {
    pub(super) async fn new<'r>(
        definition: &Definition,
        references: impl IntoIterator<Item = (&'r str, &'r [u8])>,
        pool_bytes: usize,
    ) -> anyhow::Result<Self> {
        let Planned { context, events, rejected, plan: logical, schema, .. } =
            plan(definition, references, pool_bytes)?;
        let physical = context.state().create_physical_plan(&logical).await?;
        let not_null = schema.columns.iter().enumerate().filter(|(_, column)| !column.nullable);
        let not_null = not_null.map(|(at, _)| at).collect();
        let of_columns = vec![None; schema.columns.len() + 1];
        let schema = Arc::new(schema.arrow());
        Ok(Self {
            context,
            events,
            rejected,
            logical,
            physical,
            schema,
            not_null,
            of_columns,
            suspect: 0,
            #[cfg(test)]
            runs: Default::default(),
        })
    }

    /// The outcomes of events, whose last column has their numbers.
    pub(super) async fn evaluate(&mut self, events: &RecordBatch) -> Result<Evaluated, DataFusionError> {
        let (mut parts, mut rejects) = (Vec::new(), Vec::new());
        // A stack whose top is the next part, so that the rows stay in order.
        let mut remaining = vec![(0, events.num_rows())];
        while let Some((start, len)) = remaining.pop() {
            if len == 0 {
                continue;
            }
            match self.run(&self.physical.clone(), events.slice(start, len)).await {
                Ok((rows, rejected)) => {
                    parts.extend(without(rows, &rejected)?);
                    let reject = |(event, reason)| Reject { event, code: Code::OutOfRange, reason };
                    rejects.extend(rejected.into_iter().map(reject));
                }
                // Memory is the limit of the process, and not a fault of an event.
                Err(error) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => return Err(error),
                Err(error) if len == 1 => {
                    let event = events.slice(start, 1);
                    rejects.push(self.reject(numbers(&event)[0], event, &error).await);
                }
                Err(_) => {
                    let half = len / 2;
                    remaining.extend([(start + half, len - half), (start, half)]);
                }
            }
        }
        self.finish(parts, rejects)
    }

    /// The rows of events, and the events that were rejected, with the reasons.
    async fn run(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        events: RecordBatch,
    ) -> Result<(Vec<RecordBatch>, BTreeMap<u32, String>), DataFusionError> {
        #[cfg(test)]
        self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        *self.events.lock() = events;
        // Those of an execution that failed.
        self.rejected.take();
        // A join keeps what it has read for one execution.
        let rows = collect(reset_plan_states(plan.clone())?, self.context.task_ctx()).await?;
        Ok((rows, self.rejected.take()))
    }

    /// Why an event fails: the first column that cannot be computed for it, or another part of the query.
    async fn reject(&mut self, number: u32, event: RecordBatch, error: &DataFusionError) -> Reject {
        let columns = self.schema.fields().len();
        let others = (0..columns).filter(|at| *at != self.suspect);
        // What fails without any column is a filter, a join or an unnest.
        let order: Vec<usize> = [columns, self.suspect].into_iter().chain(others).collect();
        for at in order {
            let Ok(plan) = self.plan_of_column(at).await else { continue };
            let error = match self.run(&plan, event.clone()).await {
                Err(error) => error,
                Ok((_, rejected)) => match rejected.into_values().next() {
                    Some(reason) => return Reject { event: number, code: Code::OutOfRange, reason },
                    None => continue,
                },
            };
            let mut reason = reason(&error);
            if at < columns {
                self.suspect = at;
                reason = format!("{}: {reason}", self.schema.field(at).name());
            }
            return Reject { event: number, code: Code::OutOfRange, reason };
        }
        Reject { event: number, code: Code::OutOfRange, reason: reason(error) }
    }

    /// A plan that computes one column alone.
    async fn plan_of_column(&mut self, at: usize) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        if let Some(plan) = &self.of_columns[at] {
            return Ok(plan.clone());
        }
        let LogicalPlan::Projection(projection) = &self.logical else {
            return Err(DataFusionError::Internal("the plan ends with a projection".to_owned()));
        };
        let column: Vec<Expr> = projection.expr.get(at).cloned().into_iter().collect();
        let column = LogicalPlan::Projection(Projection::try_new(column, projection.input.clone())?);
        let plan = self.context.state().create_physical_plan(&column).await?;
        self.of_columns[at] = Some(plan.clone());
        Ok(plan)
    }

    /// Puts the parts together, in the order of the events, and rejects events with a null where none may be.
    fn finish(&self, parts: Vec<RecordBatch>, mut rejects: Vec<Reject>) -> Result<Evaluated, DataFusionError> {
        let Some(first) = parts.first() else {
            let rows = RecordBatch::new_empty(self.schema.clone());
            return Ok(Evaluated { rows, row_events: Vec::new(), rejects });
        };
        let mut rows = concat_batches(&first.schema(), &parts)?;
        let unsorted = numbers(&rows).to_vec();
        if !unsorted.is_sorted() {
            let mut order: Vec<u32> = (0..unsorted.len() as u32).collect();
            order.sort_by_key(|row| unsorted[*row as usize]);
            rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        }
        for at in &self.not_null {
            let column = rows.column(*at).clone();
            if column.null_count() == 0 {
                continue;
            }
            let of_rows = numbers(&rows);
            let mut without: Vec<u32> =
                (0..rows.num_rows()).filter(|row| column.is_null(*row)).map(|row| of_rows[row]).collect();
            without.dedup();
            let keep: BooleanArray =
                of_rows.iter().map(|number| Some(without.binary_search(number).is_err())).collect();
            let name = self.schema.field(*at).name();
            rejects.extend(without.iter().map(|event| Reject {
                event: *event,
                code: Code::MissingField,
                reason: format!("{name}: null, and the table needs a value in this column"),
            }));
            rows = filter_record_batch(&rows, &keep)?;
        }
        let row_events = numbers(&rows).to_vec();
        let columns = rows.columns()[..self.schema.fields().len()].to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(row_events.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        rejects.sort_by_key(|reject| reject.event);
        Ok(Evaluated { rows, row_events, rejects })
    }
}

/// The rows of events that were not rejected.
fn without(rows: Vec<RecordBatch>, rejected: &BTreeMap<u32, String>) -> Result<Vec<RecordBatch>, DataFusionError> {
    if rejected.is_empty() {
        return Ok(rows);
    }
    let without = |batch: &RecordBatch| {
        let keep = numbers(batch).iter().map(|number| Some(!rejected.contains_key(number)));
        filter_record_batch(batch, &keep.collect::<BooleanArray>()).map_err(DataFusionError::from)
    };
    rows.iter().map(without).collect()
}

/// What an author can mend.
fn reason(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let known = ["Arrow error: ", "Cast error: ", "Execution error: ", "Compute error: ", "Invalid argument error: "];
    known.iter().fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text)).to_owned()
}

/// The numbers of the events of rows.
fn numbers(rows: &RecordBatch) -> &[u32] {
    rows.column(rows.num_columns() - 1).as_primitive::<UInt32Type>().values()
}
