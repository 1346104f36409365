//! From SQL to a plan that makes the rows of events, each with the number of its event: what the SQL may do, and the columns
//! that it gives.
//!
//! Every row is made of one event. So a query is projections, filters, `unnest` and joins with reference files over the
//! table `event`; what mixes the rows of several events is refused.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column as SqlColumn, DataFusionError, JoinType};
use datafusion::config::Dialect;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::logical_plan::TableScanBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, TableSource, Unnest, Volatility, cast};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;
use silverd_core::schema::{Column, Kind, TableSchema, added};

use super::comments::{column_comments, table_comment};
use super::definition::Definition;
use super::error::SqlError;
use super::event::{EVENT, EVENT_NUMBER, EventColumns};
use super::functions::{REJECT, Rejected, collecting, reject};
use super::reference;
use crate::sql_engine::bounded_context;

/// Rows that operators pass on at once: all of a batch.
const BATCH_ROWS: usize = 1 << 20;

/// The SQL of a table with what it needs, planned.
pub(super) struct Planned {
    /// With the table `event`, and those of the reference files.
    pub(super) context: SessionContext,
    pub(super) event: EventColumns,
    /// The rows of `event`.
    pub(super) events: Arc<Mutex<RecordBatch>>,
    /// What an execution of the plan rejects. Rows of these events count for nothing.
    pub(super) rejected: Rejected,
    /// Gives the columns of the schema, and [`EVENT_NUMBER`].
    pub(super) plan: LogicalPlan,
    pub(super) schema: TableSchema,
}

/// Plans the SQL of a definition. Operators may keep this much memory.
pub(super) fn plan<'r>(
    definition: &Definition,
    references: impl IntoIterator<Item = (&'r str, &'r [u8])>,
    pool_bytes: usize,
) -> anyhow::Result<Planned> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    config.options_mut().sql_parser.collect_spans = true;
    let context = bounded_context(pool_bytes, config)?;
    context.register_udf(reject());
    reference::add_tables(&context, references)?;
    let event = EventColumns::of(&definition.input, &definition.sql)?;
    let events = Arc::new(Mutex::new(RecordBatch::new_empty(event.schema())));
    let provider = event.table(events.clone())?;
    let rejected = Rejected::default();
    let (plan, schema) = plan_sql(&context, definition, &event, provider, &rejected)?;
    Ok(Planned { context, event, events, rejected, plan, schema })
}

/// Plans SQL over `event`, whose rows are those of `provider`, and over the tables of the context.
fn plan_sql(
    context: &SessionContext,
    Definition { sql, not_null, .. }: &Definition,
    event: &EventColumns,
    provider: Arc<dyn TableProvider>,
    rejected: &Rejected,
) -> Result<(LogicalPlan, TableSchema), SqlError> {
    let failed = |error: DataFusionError| SqlError::of(sql, &error);
    // The number of the event is added below, so that the SQL cannot name it.
    let named = MemTable::try_new(event.named_schema(), vec![Vec::new()]).map_err(failed)?;
    context.register_table(EVENT, Arc::new(named)).map_err(failed)?;
    let state = context.state();
    let statement = state.sql_to_statement(sql, &Dialect::Generic).map_err(failed)?;
    let query = query_of(&statement).ok_or_else(|| SqlError::new("expected one query: SELECT … FROM event"))?;
    let comments = column_comments(sql, query);
    let planned = futures::executor::block_on(state.statement_to_plan(statement.clone())).map_err(failed)?;
    let analyzed = state.analyzer().execute_and_check(planned, state.config_options(), |_, _| {}).map_err(failed)?;
    check_expressions(sql, &analyzed)?;
    match count_events(&analyzed) {
        1 => {}
        0 => return Err(SqlError::new("it reads no event: expected SELECT … FROM event").at_word(sql, "FROM")),
        _ => {
            let message = "it reads `event` more than once, which mixes several events: name it once; unnest gives \
                           several rows of one event";
            return Err(SqlError::new(message).at_word(sql, EVENT));
        }
    }
    let columns = columns_of(sql, &analyzed, event, not_null, &comments)?;
    let schema = TableSchema { interface: "sql".to_owned(), doc: table_comment(sql), columns };
    let carried = Carrier { sql, event: provider_as_source(provider) }.carry_query(&analyzed, rejected)?;
    let plan = typed(&analyzed, carried, &schema).map_err(failed)?;
    Ok((plan, schema))
}

fn query_of(statement: &Statement) -> Option<&ast::Query> {
    match statement {
        Statement::Statement(statement) => match &**statement {
            ast::Statement::Query(query) => Some(query),
            _ => None,
        },
        _ => None,
    }
}

fn count_events(plan: &LogicalPlan) -> usize {
    let own = usize::from(is_event(plan));
    own + plan.inputs().into_iter().map(count_events).sum::<usize>()
}

fn is_event(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::TableScan(scan) if scan.table_name.table() == EVENT)
}

/// Refuses expressions that depend on more than their row.
fn check_expressions(sql: &str, plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut refused = None;
    let checked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                refused = refused.take().or_else(|| refused_expression(sql, expr));
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    });
    match refused {
        Some(refused) => Err(refused),
        None => checked.map(|_| ()).map_err(|error| SqlError::of(sql, &error)),
    }
}

fn refused_expression(sql: &str, expr: &Expr) -> Option<SqlError> {
    let (message, word) = match expr {
        Expr::AggregateFunction(function) => {
            let name = function.func.name();
            (format!("`{name}` is an aggregate over several events: aggregate in a Gold table"), name.to_owned())
        }
        Expr::WindowFunction(_) => (
            "a window function looks at several events: use one in a Gold table or in a panel".to_owned(),
            "OVER".to_owned(),
        ),
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => (
            "a subquery in an expression is not possible: join the reference file in FROM, and filter with WHERE"
                .to_owned(),
            "SELECT".to_owned(),
        ),
        Expr::ScalarFunction(function)
            if function.func.signature().volatility != Volatility::Immutable && function.name() != REJECT =>
        {
            let name = function.name();
            let message = format!(
                "`{name}` gives something else at each call, so that a rebuild would give other rows: take a time or an \
                 id from the event (`_timestamp` is the record's time)"
            );
            (message, name.to_owned())
        }
        _ => return None,
    };
    let error = SqlError::new(message);
    // The second SELECT is the subquery's.
    Some(if word == "SELECT" { error } else { error.at_word(sql, &word) })
}

/// Adds the number of the event to all rows that are made of it.
struct Carrier<'s> {
    sql: &'s str,
    event: Arc<dyn TableSource>,
}

impl Carrier<'_> {
    /// The whole query, whose columns collect the events that they reject.
    fn carry_query(&self, plan: &LogicalPlan, rejected: &Rejected) -> Result<LogicalPlan, SqlError> {
        let LogicalPlan::Projection(projection) = plan else { return self.carry(plan) };
        let input = self.carry(&projection.input)?;
        let number = Expr::Column(number_of(&input));
        let columns = projection.expr.iter().zip(projection.schema.fields());
        let mut exprs: Vec<_> =
            columns.map(|(expr, column)| collecting(expr, column.name(), &number, input.schema(), rejected)).collect();
        exprs.push(number);
        let carried = Projection::try_new(exprs, Arc::new(input));
        Ok(LogicalPlan::Projection(carried.map_err(|error| SqlError::of(self.sql, &error))?))
    }

    fn carry(&self, plan: &LogicalPlan) -> Result<LogicalPlan, SqlError> {
        let failed = |error: DataFusionError| SqlError::of(self.sql, &error);
        // What is made of reference files alone has no event.
        if count_events(plan) == 0 {
            return Ok(plan.clone());
        }
        let inputs = || plan.inputs().into_iter().map(|input| self.carry(input)).collect::<Result<Vec<_>, _>>();
        match plan {
            LogicalPlan::TableScan(scan) => {
                let scan = TableScanBuilder::new(scan.table_name.clone(), self.event.clone()).build();
                Ok(LogicalPlan::TableScan(scan.map_err(failed)?))
            }
            LogicalPlan::Projection(projection) => {
                let input = self.carry(&projection.input)?;
                let mut exprs = projection.expr.clone();
                exprs.push(Expr::Column(number_of(&input)));
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input)).map_err(failed)?))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = Arc::new(self.carry(&unnest.input)?);
                let carried = Unnest::try_new(input, unnest.exec_columns.clone(), unnest.options.clone());
                Ok(LogicalPlan::Unnest(carried.map_err(failed)?))
            }
            LogicalPlan::Join(join) => {
                let event_is_left = count_events(&join.left) > 0;
                match (join.join_type, event_is_left) {
                    (JoinType::Inner, _) | (JoinType::Left, true) | (JoinType::Right, false) => {}
                    (JoinType::LeftSemi | JoinType::LeftAnti, true) => {}
                    (JoinType::RightSemi | JoinType::RightAnti, false) => {}
                    (other, _) => {
                        let message = format!(
                            "this {other} join gives rows that are of no event: use `event JOIN …` or `event LEFT JOIN …`"
                        );
                        return Err(SqlError::new(message).at_word(self.sql, "JOIN"));
                    }
                }
                plan.with_new_exprs(plan.expressions(), inputs()?).map_err(failed)
            }
            LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                plan.with_new_exprs(plan.expressions(), inputs()?).map_err(failed)
            }
            other => Err(self.refused(other)),
        }
    }

    fn refused(&self, plan: &LogicalPlan) -> SqlError {
        let (what, instead, word) = match plan {
            LogicalPlan::Aggregate(_) => ("GROUP BY looks", "group in a Gold table", "GROUP"),
            LogicalPlan::Distinct(_) => ("DISTINCT looks", "`dedup` drops events that are there twice", "DISTINCT"),
            LogicalPlan::Sort(_) => ("ORDER BY looks", "sort where the table is queried", "ORDER"),
            LogicalPlan::Limit(_) => ("LIMIT looks", "filter with WHERE", "LIMIT"),
            LogicalPlan::Window(_) => ("a window function looks", "use one in a Gold table or in a panel", "OVER"),
            LogicalPlan::Union(_) => ("UNION looks", "write a table for each query, or unnest a list", "UNION"),
            LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE looks", "use a plugin", "RECURSIVE"),
            _ => ("this query looks", "use projections, WHERE, unnest and joins with reference files", "SELECT"),
        };
        SqlError::new(format!("{what} at several rows, and a row of Silver is made of one event: {instead}"))
            .at_word(self.sql, word)
    }
}

/// The column with the number of the event.
fn number_of(plan: &LogicalPlan) -> SqlColumn {
    let found = plan.schema().iter().find(|(_, field)| field.name() == EVENT_NUMBER);
    found.map_or_else(|| SqlColumn::from_name(EVENT_NUMBER), SqlColumn::from)
}

/// The columns of the table, from those of the query.
fn columns_of(
    sql: &str,
    plan: &LogicalPlan,
    event: &EventColumns,
    not_null: &[String],
    comments: &[Option<String>],
) -> Result<Vec<Column>, SqlError> {
    let mut columns = Vec::<Column>::new();
    for (at, field) in plan.schema().fields().iter().enumerate() {
        let name = field.name();
        let refused = |what: String| SqlError::new(what).at_word(sql, name);
        check_name(name).map_err(refused)?;
        if added::ALL.contains(&name.as_str()) {
            return Err(refused(format!(
                "column `{name}` has a name that silverd adds itself: write `… AS another_name`"
            )));
        }
        if columns.iter().any(|earlier| earlier.name == *name) {
            return Err(refused(format!("the query has two columns `{name}`: name one of them with `… AS name`")));
        }
        let kind = kind_of(name, field.data_type()).map_err(refused)?;
        let doc = comments.get(at).cloned().flatten().or_else(|| event.comment(name));
        // Whether an expression may be null changes with each edit, and a column of Delta cannot follow.
        let nullable = !not_null.contains(name);
        columns.push(Column { name: name.clone(), kind, nullable, doc });
    }
    Ok(columns)
}

/// Names that Delta's readers take without quotes.
fn check_name(name: &str) -> Result<(), String> {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_name = name.starts_with(is_first) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match is_name {
        true => Ok(()),
        false => Err(format!("the column `{name}` needs a name of letters, digits and `_`: write `… AS name`")),
    }
}

/// The column type that holds the values of a type of SQL.
fn kind_of(column: &str, ty: &DataType) -> Result<Kind, String> {
    Ok(match ty {
        DataType::Boolean => Kind::Bool,
        DataType::Int8 => Kind::Int8,
        DataType::Int16 | DataType::UInt8 => Kind::Int16,
        DataType::Int32 | DataType::UInt16 => Kind::Int32,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Kind::Int64,
        DataType::Float16 | DataType::Float32 => Kind::Float32,
        DataType::Float64 => Kind::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Kind::Binary,
        DataType::Timestamp(..) => Kind::Timestamp,
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Decimal128(20, 0) => Kind::UInt64,
        DataType::Decimal32(_, 0..=2)
        | DataType::Decimal64(_, 0..=2)
        | DataType::Decimal128(_, 0..=2)
        | DataType::Decimal256(_, 0..=2) => Kind::Money,
        DataType::Dictionary(_, values) => kind_of(column, values)?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::FixedSizeList(item, _) => Kind::List(Box::new(inner_column(column, "element", item)?)),
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| {
                check_name(field.name()).map_err(|_| {
                    format!(
                        "column `{column}` has a field `{}`, whose name Delta cannot have: build the record with \
                         named_struct('name', value, …)",
                        field.name()
                    )
                })?;
                inner_column(column, field.name(), field)
            });
            Kind::Struct(columns.collect::<Result<_, _>>()?)
        }
        DataType::Null => {
            return Err(format!("column `{column}` is always null: give it a type, such as CAST(NULL AS VARCHAR)"));
        }
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Decimal32(..) | DataType::Decimal64(..) => {
            return Err(format!(
                "column `{column}` is a {ty}, and money has 2 places: write CAST(… AS DECIMAL(18, 2)), which rounds, or \
                 CAST(… AS DOUBLE)"
            ));
        }
        other => {
            return Err(format!(
                "column `{column}` is a {other}, which Delta has no type for: CAST it, such as to BIGINT or VARCHAR"
            ));
        }
    })
}

fn inner_column(column: &str, name: &str, field: &Field) -> Result<Column, String> {
    let kind = kind_of(column, field.data_type())?;
    Ok(Column { name: name.to_owned(), kind, nullable: true, doc: None })
}

/// Casts the columns of a plan to those of the table. `analyzed` is the plan without the numbers of the events.
fn typed(analyzed: &LogicalPlan, carried: LogicalPlan, schema: &TableSchema) -> Result<LogicalPlan, DataFusionError> {
    let number = number_of(&carried);
    let columns = analyzed.schema().iter().zip(&schema.columns).map(|((qualifier, field), column)| {
        let value = Expr::Column(SqlColumn::from((qualifier, field)));
        let ty = column.kind.arrow();
        let value = if *field.data_type() == ty { value } else { cast(value, ty) };
        value.alias(&column.name)
    });
    let mut exprs: Vec<_> = columns.collect();
    exprs.push(Expr::Column(number).alias(EVENT_NUMBER));
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(carried))?))
}
