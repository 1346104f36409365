#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::json;
use silverd_core::config::Compression;
use silverd_core::zone::Zone;

use super::{DeltaScan, bounded_context, register};
use crate::delta::{DataFile, Encoder, Table, TableReader, TableSpec, writer_properties};

const DAY: i64 = 86_400_000_000;

fn schema() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("at", at, false),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn spec(folder: &Path, schema: SchemaRef) -> TableSpec {
    TableSpec { name: "t".to_owned(), path: folder.to_path_buf(), schema, doc: None, time_zone: Zone::UTC }
}

fn rows(day: i32, from: i64) -> RecordBatch {
    let numbers = from..from + 10;
    let at = TimestampMicrosecondArray::from_iter_values(numbers.clone().map(|n| i64::from(day) * DAY + n));
    let names: StringArray = numbers.clone().map(|n| (n % 2 == 0).then(|| format!("n{n:03}"))).collect();
    let numbers: Int64Array = numbers.collect();
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(at.with_timezone("UTC")), Arc::new(names)]).unwrap()
}

/// Ten rows a file, two files a day, three days from 1970-01-02 on: `n` counts from 0 to 59.
async fn written(folder: &Path) -> Table {
    let mut table = Table::open(&spec(folder, schema())).await.unwrap();
    let compression = Compression::default();
    let encoder = Encoder::new(schema(), writer_properties(&compression).unwrap().build(), &compression);
    for file in 0..6 {
        let (file, bytes) = encoder.encode(1 + file / 2, &[rows(1 + file / 2, i64::from(file) * 10)]).unwrap();
        file.put(&table.store(), bytes).await.unwrap();
        table.append(vec![file], &[], json!({})).await.unwrap();
    }
    table
}

async fn context(folder: &Path) -> anyhow::Result<SessionContext> {
    let reader = TableReader::open(folder)?.unwrap();
    let version = reader.version().await?.unwrap();
    let context = bounded_context(256 << 20, SessionConfig::new().with_target_partitions(1))?;
    register(&context, "t", DeltaScan::open(&reader, version).await?)?;
    Ok(context)
}

async fn answer(context: &SessionContext, sql: &str) -> String {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    text.lines().filter(|line| line.starts_with('|')).skip(1).collect::<Vec<_>>().join("\n")
}

/// The data files that a query's plan reads.
async fn files_read(context: &SessionContext, sql: &str) -> usize {
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(true).to_string().matches(".parquet").count()
}

#[tokio::test]
async fn files_that_cannot_match_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path()).await;
    let context = context(folder.path()).await.unwrap();
    for (filter, files, found) in [
        ("true", 6, 60),
        ("event_date = '1970-01-03'", 2, 20),
        ("event_date IN ('1970-01-02', '1970-01-04')", 4, 40),
        ("event_date > '1970-01-04'", 0, 0),
        ("event_date IS NULL", 0, 0),
        ("n = 37", 1, 1),
        ("n >= 45", 2, 15),
        ("n BETWEEN 9 AND 10", 2, 2),
        ("n < 0", 0, 0),
        ("name = 'n020'", 1, 1),
        ("name IS NULL", 6, 30),
        ("at < TIMESTAMP '1970-01-02T00:00:00.000005Z'", 1, 5),
        ("at >= TIMESTAMP '1970-01-04T00:00:00Z' AND n < 50", 1, 10),
        ("n = 5 OR event_date = '1970-01-04'", 3, 21),
        // What no statistics can tell.
        ("n % 7 = 0", 6, 9),
        ("event_date = '1970-01-03' AND n + 1 = 31", 2, 1),
    ] {
        let sql = format!("SELECT * FROM t WHERE {filter}");
        assert_eq!(files_read(&context, &sql).await, files, "{filter}");
        let counted = answer(&context, &format!("SELECT count(n) FROM t WHERE {filter}")).await;
        assert_eq!(counted.trim_matches([' ', '|']), found.to_string(), "{filter}");
    }
}

/// Parquet's statistics leave NaN out. Whatever a filter or an order says of NaN, the rows are those that it has without
/// statistics.
#[tokio::test]
async fn rows_with_nan_are_not_skipped() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("x", DataType::Float64, true),
        Field::new("y", DataType::Float32, true),
    ]));
    const NAN: f64 = f64::NAN;
    // Two rows a row group, and several of them a file.
    let files: [&[Option<f64>]; 6] = [
        &[Some(0.5), Some(NAN), Some(0.1), Some(0.2)],
        &[Some(NAN), Some(NAN), Some(2.0), Some(3.0)],
        &[Some(-NAN), Some(0.3), Some(5.0), Some(6.0)],
        &[None, Some(7.0), None, None],
        &[Some(NAN), None],
        &[Some(f64::INFINITY), Some(0.4), Some(f64::NEG_INFINITY), Some(-0.0)],
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut table = Table::open(&spec(folder.path(), schema.clone())).await.unwrap();
    let compression = Compression::default();
    let properties = writer_properties(&compression).unwrap().set_max_row_group_row_count(Some(2)).build();
    let encoder = Encoder::new(schema.clone(), properties, &compression);
    let (mut all, mut n) = (Vec::new(), 0);
    for values in files {
        let numbers: Int64Array = (n..).take(values.len()).collect();
        n += values.len() as i64;
        let x: Float64Array = values.iter().copied().collect();
        let y: Float32Array = values.iter().map(|value| value.map(|value| value as f32)).collect();
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(x), Arc::new(y)]).unwrap();
        let (file, bytes) = encoder.encode(1, std::slice::from_ref(&batch)).unwrap();
        file.put(&table.store(), bytes).await.unwrap();
        table.append(vec![file], &[], json!({})).await.unwrap();
        all.push(batch);
    }
    let context = context(folder.path()).await.unwrap();
    context.register_batch("m", arrow::compute::concat_batches(&schema, &all).unwrap()).unwrap();
    let nan = "CAST('NaN' AS DOUBLE)";
    let mut filters = vec![
        format!("x = {nan}"),
        format!("x <> {nan}"),
        format!("x >= {nan}"),
        format!("x < {nan}"),
        format!("x IN (2.0, {nan})"),
        format!("x NOT IN (2.0, {nan})"),
    ];
    let plain = [
        "x > 1",
        "x >= 5",
        "x > 100",
        "x < 0",
        "x < 0.15",
        "x <= 0.1",
        "x = x",
        "x <> x",
        "x = 2.0",
        "x <> 2.0",
        "NOT (x < 1)",
        "NOT (x > 1)",
        "x IS NULL",
        "x IS NOT NULL",
        "x BETWEEN 0 AND 1",
        "x NOT BETWEEN 0 AND 1",
        "x > 1 OR n = 3",
        "x > 1 AND n < 9",
        "isnan(x)",
        "x + 1 > 3",
        "abs(x) > 4",
        "y > 1",
        "y < 0",
        "y = y",
        "x > y",
    ];
    filters.extend(plain.map(str::to_owned));
    for filter in filters {
        let rows =
            async |table: &str| answer(&context, &format!("SELECT n FROM {table} WHERE {filter} ORDER BY n")).await;
        assert_eq!(rows("t").await, rows("m").await, "{filter}");
    }
    for rest in [
        "ORDER BY x DESC, n LIMIT 3",
        "ORDER BY x, n LIMIT 3",
        "ORDER BY x DESC NULLS LAST, n LIMIT 2",
        "WHERE x > 1 ORDER BY x, n LIMIT 4",
        "WHERE n > 3 ORDER BY y DESC, n LIMIT 5",
    ] {
        let rows = async |table: &str| answer(&context, &format!("SELECT n FROM {table} {rest}")).await;
        assert_eq!(rows("t").await, rows("m").await, "{rest}");
    }
    for of in ["max(x)", "min(x)", "count(x)", "count(DISTINCT x)", "max(n) FILTER (WHERE x > 100)"] {
        let value = async |table: &str| answer(&context, &format!("SELECT CAST({of} AS VARCHAR) FROM {table}")).await;
        assert_eq!(value("t").await, value("m").await, "{of}");
    }
}

/// What other engines skip files by: a column with NaN has no bounds, and one whose bounds are partly unknown has none.
#[tokio::test]
async fn the_log_has_no_bounds_of_a_column_with_nan() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("clean", DataType::Float64, true),
        Field::new("nan", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("half", DataType::Utf8, true),
    ]));
    // The greatest text cannot be cut off to a greater one: either its bound is the whole text, or there is none.
    let greatest = "\u{10ffff}".repeat(100);
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(Float64Array::from(vec![Some(1.0), Some(3.0), None, None])),
            Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), Some(f64::NAN), Some(f64::NAN)])),
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, None])),
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some(&greatest), Some(&greatest)])),
        ],
    )
    .unwrap();
    let compression = Compression::default();
    let properties = writer_properties(&compression).unwrap().set_max_row_group_row_count(Some(2)).build();
    let encoder = Encoder::new(schema, properties, &compression);
    let (file, _) = encoder.encode(1, &[batch]).unwrap();
    let stats: serde_json::Value = serde_json::from_str(&DataFile::from(&file).stats.unwrap()).unwrap();
    assert_eq!((&stats["minValues"]["clean"], &stats["maxValues"]["clean"]), (&json!(1.0), &json!(3.0)), "{stats}");
    assert_eq!((&stats["minValues"]["text"], &stats["maxValues"]["text"]), (&json!("a"), &json!("b")), "{stats}");
    assert_eq!((&stats["nullCount"]["clean"], &stats["nullCount"]["nan"]), (&json!(2), &json!(0)), "{stats}");
    assert!(stats["minValues"].get("nan").is_none() && stats["maxValues"].get("nan").is_none(), "{stats}");
    let bounds_of_half = stats["minValues"].get("half").zip(stats["maxValues"].get("half"));
    if let Some((least, most)) = bounds_of_half {
        assert!(least.as_str() <= Some("a") && most.as_str() >= Some(&greatest), "{stats}");
    } else {
        assert!(stats["minValues"].get("half").is_none() && stats["maxValues"].get("half").is_none(), "{stats}");
    }
}

#[tokio::test]
async fn rows_are_counted_without_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let table = written(folder.path()).await;
    let context = context(folder.path()).await.unwrap();
    for day in ["1970-01-02", "1970-01-03", "1970-01-04"] {
        std::fs::remove_dir_all(folder.path().join(format!("event_date={day}"))).unwrap();
    }
    assert_eq!(answer(&context, "SELECT count(*) AS n FROM t").await, "| 60 |");
    let of_day = "SELECT count(*) AS n FROM t WHERE event_date = '1970-01-03'";
    assert_eq!(answer(&context, of_day).await, "| 20 |");
    drop(table);
}

/// A column that came later stands behind `event_date`, and is null in older files.
#[tokio::test]
async fn columns_have_the_order_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path()).await;
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(Field::new("later", DataType::Utf8, true)));
    let wider = Arc::new(Schema::new(fields));
    let mut table = Table::open(&spec(folder.path(), wider.clone())).await.unwrap();
    let compression = Compression::default();
    let encoder = Encoder::new(wider.clone(), writer_properties(&compression).unwrap().build(), &compression);
    let mut columns = rows(3, 60).columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["x"; 10])));
    let (file, bytes) = encoder.encode(3, &[RecordBatch::try_new(wider, columns).unwrap()]).unwrap();
    file.put(&table.store(), bytes).await.unwrap();
    table.append(vec![file], &[], json!({})).await.unwrap();

    let context = context(folder.path()).await.unwrap();
    let columns = context.table("t").await.unwrap().schema().field_names();
    assert_eq!(columns, ["t.n", "t.at", "t.name", "t.event_date", "t.later"]);
    let both = "SELECT later, n, event_date FROM t WHERE n IN (58, 60) ORDER BY n";
    assert_eq!(answer(&context, both).await, "|       | 58 | 1970-01-04 |\n| x     | 60 | 1970-01-04 |");
}

#[tokio::test]
async fn tables_that_hold_other_rows_than_their_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path()).await;
    let log = folder.path().join("_delta_log");
    let last = std::fs::read_to_string(log.join("00000000000000000006.json")).unwrap();
    let add = last.lines().find(|line| line.contains("\"add\"")).unwrap();
    let mut action: serde_json::Value = serde_json::from_str(add).unwrap();
    action["add"]["deletionVector"] = json!({ "storageType": "i", "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", "sizeInBytes": 40, "cardinality": 6 });
    std::fs::write(log.join("00000000000000000007.json"), format!("{action}\n")).unwrap();
    let refused = context(folder.path()).await.err().unwrap();
    assert!(format!("{refused:#}").contains("deletion vector"), "{refused:#}");
}

#[tokio::test]
async fn integers_do_not_wrap() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path()).await;
    let context = context(folder.path()).await.unwrap();
    for (sql, expected) in [
        ("SELECT 2 + 3 * 4 - 1", "| 13 |"),
        ("SELECT sum(n) FROM t", "| 1770 |"),
        ("SELECT sum(n) FILTER (WHERE n > 57) FROM t", "| 117 |"),
        ("SELECT sum(n) FROM t WHERE n < 0", "|  |"),
        (
            "SELECT sum(n * 2 + 1) AS s FROM t WHERE event_date = '1970-01-02' GROUP BY n % 2 ORDER BY s",
            "| 190 |\n| 210 |",
        ),
        ("SELECT sum(n) OVER (ORDER BY n ROWS 1 PRECEDING) FROM t ORDER BY n LIMIT 3", "| 0 |\n| 1 |\n| 3 |"),
        ("SELECT sum(DISTINCT n % 3) FROM t", "| 3 |"),
        ("SELECT sum(CAST(9223372036854775807 AS DECIMAL(38, 0)) + n) > 0 FROM t", "| true |"),
    ] {
        let squeezed = answer(&context, sql)
            .await
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(squeezed.replace("| |", "|  |"), expected, "{sql}");
    }
    let columns = context.sql("SELECT n + 1, n * n - 2 FROM t").await.unwrap().schema().field_names();
    assert_eq!(columns, ["t.n + Int64(1)", "t.n * t.n - Int64(2)"]);
    for sql in [
        "SELECT 10000000000 * 10000000000",
        "SELECT 9223372036854775807 + n FROM t",
        "SELECT -9223372036854775807 - n FROM t WHERE n > 1",
        "SELECT sum(9223372036854775807 - n) FROM t",
        "SELECT n % 2, sum(9223372036854775000 + n) FROM t GROUP BY 1",
        "SELECT sum(CAST(18446744073709551000 AS BIGINT UNSIGNED)) FROM t",
    ] {
        let result = match context.sql(sql).await {
            Ok(frame) => frame.collect().await.map(drop),
            Err(failure) => Err(failure),
        };
        let failure = result.err().unwrap_or_else(|| panic!("{sql} gives a number")).to_string();
        assert!(failure.to_lowercase().contains("overflow") || failure.contains("does not fit"), "{sql}: {failure}");
    }
}

/// Queries, panels and Gold tables of users rely on these; DataFusion's cargo features decide which there are.
#[test]
fn all_functions_are_built_in() {
    let state = bounded_context(64 << 20, SessionConfig::new()).unwrap().state();
    let names = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    let names: BTreeSet<&str> = names.chain(state.window_functions().keys()).map(String::as_str).collect();
    let listed: BTreeSet<&str> = include_str!("functions.txt").lines().collect();
    let missing: Vec<_> = listed.difference(&names).collect();
    assert!(missing.is_empty() && listed.len() > 300, "missing: {missing:?}");
}

/// Days are those of the table's zone; the times in files and in their statistics are UTC.
#[tokio::test]
async fn times_have_the_zone_of_their_table() {
    let folder = tempfile::tempdir().unwrap();
    let zone = Zone::parse("Asia/Kolkata").unwrap();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let item = Arc::new(Field::new("element", utc.clone(), true));
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("at", utc, false),
        Field::new("seen", DataType::List(item.clone()), true),
    ]));
    let spec = TableSpec { time_zone: zone, ..spec(folder.path(), schema.clone()) };
    let mut table = Table::open(&spec).await.unwrap();
    let compression = Compression::default();
    let encoder = Encoder::new(schema.clone(), writer_properties(&compression).unwrap().build(), &compression);
    for day in [1, 2] {
        let start = zone.start_of_day(day);
        let times = TimestampMicrosecondArray::from_iter_values([start, start + 1, zone.end_of_day(day) - 1]);
        let times: ArrayRef = Arc::new(times.with_timezone("UTC"));
        let seen = ListArray::new(item.clone(), OffsetBuffer::from_lengths([1, 1, 1]), times.clone(), None);
        let batch = RecordBatch::try_new(schema.clone(), vec![times, Arc::new(seen)]).unwrap();
        let (file, bytes) = encoder.encode(day, &[batch]).unwrap();
        file.put(&table.store(), bytes).await.unwrap();
        table.append(vec![file], &[], json!({})).await.unwrap();
    }
    let context = context(folder.path()).await.unwrap();
    for (sql, expected) in [
        ("SELECT count(*) AS n FROM t WHERE CAST(at AS DATE) = event_date", "| 6 |"),
        ("SELECT count(*) AS n FROM t WHERE date_trunc('day', at) = event_date", "| 6 |"),
        ("SELECT count(*) AS n FROM t WHERE seen[1] = at AND date_part('hour', seen[1]) IN (0, 23)", "| 6 |"),
        ("SELECT min(at) AS first FROM t", "| 1970-01-02T00:00:00+05:30 |"),
    ] {
        assert_eq!(answer(&context, sql).await, expected, "{sql}");
    }
    for filter in ["at >= DATE '1970-01-03'", "at >= '1970-01-03'", "at >= '1970-01-02T18:30:00Z'"] {
        let sql = format!("SELECT count(at) AS n FROM t WHERE {filter}");
        assert_eq!(answer(&context, &sql).await, "| 3 |", "{filter}");
        assert_eq!(files_read(&context, &sql).await, 1, "{filter}");
    }
}
