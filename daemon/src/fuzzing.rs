//! Entrances of the fuzz targets in `daemon/fuzz`: what they call of the parts of silverd that are not public.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path as FilePath;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::FutureExt;
use futures::executor::block_on;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use silverd_core::config::{self, Pipeline, SilverTable, SqlTransform, Transform};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::delta::{LOG_FOLDER, entry_path, plugin_history, read_transactions, verify_checkpoint};
use crate::http::{Dashboard, Days, Endpoint, Shown, serve_client};
use crate::pipeline::status::RunState;
use crate::row_sql::{Definition, RowSql};
use crate::sql::{self, QueryError, Tables};
use crate::sql_engine::read_only;

/// The topic of the dashboard that [`http`] asks: what only those may see who have the token.
pub const TOPIC: &str = "a-topic-that-nobody-sees";
/// The token that it asks for.
pub const TOKEN: &str = "0123456789abcdef";

/// Bytes of the requests that one client sends.
const REQUESTS_BYTES_MAX: usize = 32 << 10;
/// A server that has written nothing for so many turns of its runtime waits for its client or for a timer.
const IDLE_TURNS: usize = 64;

/// A pipeline with a table that SQL fills.
static PIPELINE: LazyLock<Pipeline> = LazyLock::new(|| {
    let text = format!(
        r#"
        [source]
        brokers = "localhost:9092"
        topic = "{TOPIC}"
        [http]
        token = "{TOKEN}"
        [silver.orders]
        match = "everything"
        event_time = "ts"
        sql = "SELECT id, ts FROM event"
        [silver.orders.input]
        id = "string"
        ts = "timestamp"
        qty = "u32"
        price = "option<money>"
        tags = "list<string>"
        items = "list<{{ sku: string, n: s64 }}>"
        [gold.daily]
        sql = "SELECT event_date, count(*) AS orders FROM orders GROUP BY event_date"
        [panel.newest]
        sql = "SELECT id FROM orders"
        "#
    );
    config::check(&text, &|_| None).unwrap_or_else(|errors| panic!("{}", errors.render("pipeline.toml", &text, false)))
});

/// What a client got from the server.
pub struct Answer {
    pub bytes: Vec<u8>,
    /// Whether the server closed the connection once the client had closed its side.
    pub is_closed: bool,
}

/// Sends these bytes to the server of the dashboard, and closes the client's side of the connection.
pub fn http(requests: &[u8], asks_for_token: bool) -> Answer {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without I/O")
    });
    let endpoint = Endpoint::load(&PIPELINE.http, asks_for_token, FilePath::new(".")).expect("no file is read");
    let status = watch::channel(RunState::Starting).1;
    let (gold, maintenance, alerts) = (Arc::default(), Arc::default(), Arc::default());
    let days = Days { ledger: None, status: Arc::default() };
    let dashboard = Dashboard::new(&PIPELINE, endpoint, Shown { status, gold, maintenance, alerts, days });
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 4_000));
    RUNTIME.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let served = tokio::spawn(serve_client(dashboard, server, address));
        let mut bytes = Vec::new();
        // There is room for all of it. Writing fails if the server closes the connection earlier.
        let _ = client.write_all(&requests[..requests.len().min(REQUESTS_BYTES_MAX)]).await;
        read_until_idle(&mut client, &mut bytes).await;
        let _ = client.shutdown().await;
        read_until_idle(&mut client, &mut bytes).await;
        let is_closed = served.is_finished();
        served.abort();
        match served.await {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => Answer { bytes, is_closed },
        }
    })
}

/// Reads what the server writes, until it ends or waits.
async fn read_until_idle(client: &mut DuplexStream, bytes: &mut Vec<u8>) {
    let mut idle = 0;
    while idle < IDLE_TURNS {
        idle = match client.read_buf(bytes).now_or_never() {
            Some(Ok(0) | Err(_)) | None => idle + 1,
            Some(Ok(_)) => 0,
        };
        tokio::task::yield_now().await;
    }
}

/// The application ids in a log that has this one entry.
pub fn log_entry(entry: &[u8]) -> Result<HashMap<String, i64>, String> {
    block_on(async {
        let store = InMemory::new();
        store.put(&entry_path(0), entry.to_vec().into()).await.map_err(|error| error.to_string())?;
        let _ = plugin_history(&store).await;
        let found = read_transactions(&store, None).await.map_err(|error| format!("{error:#}"))?;
        Ok(found.versions)
    })
}

/// The application ids in a log that has this checkpoint alone, and what is wrong with the checkpoint. `kind` is the end of its
/// file's name.
pub fn checkpoint(kind: &str, bytes: &[u8]) -> (Result<HashMap<String, i64>, String>, Result<(), String>) {
    block_on(async {
        let (store, path) = (InMemory::new(), Path::from(format!("{LOG_FOLDER}/{:020}.checkpoint.{kind}", 7)));
        if let Err(error) = store.put(&path, bytes.to_vec().into()).await {
            return (Err(error.to_string()), Err(error.to_string()));
        }
        let verified = verify_checkpoint(&store, &path).await.map_err(|error| format!("{error:#}"));
        let found = read_transactions(&store, None).await.map_err(|error| format!("{error:#}"));
        (found.map(|found| found.versions), verified)
    })
}

/// The table that SQL fills.
static SQL_TABLE: LazyLock<(SilverTable, SqlTransform)> = LazyLock::new(|| {
    let table = PIPELINE.silver[0].clone();
    let Transform::Sql(transform) = table.transform.clone() else { unreachable!("the table has SQL") };
    (table, transform)
});

/// Plans `sql` of a table, and returns the names of its columns.
pub fn row_sql(sql: &str) -> Result<Vec<String>, String> {
    let (table, mut transform) = SQL_TABLE.clone();
    transform.sql.value = sql.to_owned();
    let planned = Definition::of(&table, &transform, FilePath::new(".")).and_then(|of| RowSql::plan(of, []));
    let planned = planned.map_err(|error| format!("{error:#}"))?;
    Ok(planned.schema.columns.into_iter().map(|column| column.name).collect())
}

/// What `silverd query` would do for a text.
pub struct PlannedQuery {
    pub columns: usize,
    /// It changes a table, a file or the session.
    pub changes: bool,
}

/// Plans a query of `silverd query` over tables without rows.
pub fn query(sql: &str) -> Result<PlannedQuery, String> {
    static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables::new(&PIPELINE, FilePath::new(".")));
    static CONTEXT: LazyLock<SessionContext> = LazyLock::new(|| empty_tables(&TABLES).expect("tables without rows"));
    sql::check_query(&TABLES, sql, false).map_err(|error| error.to_string())?;
    let planned = block_on(CONTEXT.sql_with_options(sql, read_only()));
    let frame = planned.map_err(|error| QueryError::from(error).to_string())?;
    let changes = |node: &LogicalPlan| {
        matches!(node, LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_))
    };
    let changes = frame.logical_plan().exists(|node| Ok(changes(node))).map_err(|error| error.to_string())?;
    Ok(PlannedQuery { columns: frame.schema().fields().len(), changes })
}

/// Whether a text is a query, and not a statement that would change something.
pub fn is_query(sql: &str) -> bool {
    sql::is_query(sql)
}

fn empty_tables(tables: &Tables) -> anyhow::Result<SessionContext> {
    let context = sql::bounded_context(16 << 20, SessionConfig::new())?;
    let fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("price", DataType::Decimal128(18, 2), true),
        Field::new("event_date", DataType::Date32, false),
    ];
    let schema = Arc::new(Schema::new(fields));
    for name in tables.names() {
        let table = MemTable::try_new(schema.clone(), vec![Vec::new()])?;
        sql::register(&context, name, Arc::new(table))?;
    }
    Ok(context)
}
