#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DurationMicrosecondArray, Int32Array, Int64Array, RecordBatch,
};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::EmitTo;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::total::Aggregate;
use crate::sql_engine::bounded_context;

const MAX: i64 = i64::MAX;
/// Two of these have more than 38 digits, and fit into 128 bits.
const LARGE: i128 = 60_000_000_000_000_000_000_000_000_000_000_000_000;

/// A group, an integer, a decimal of 38 digits and a duration.
type Row = (i32, Option<i64>, i128, Option<i64>);

/// The table `s`, in two partitions whose aggregates are merged.
fn context() -> SessionContext {
    let partitions: [&[Row]; 2] = [
        &[(1, Some(MAX), LARGE, Some(MAX)), (1, Some(MAX), LARGE, Some(MAX)), (2, Some(1), 1, Some(1_500_000))],
        &[
            (1, Some(-MAX), -LARGE, Some(MAX)),
            (1, Some(-MAX), -LARGE, Some(MAX)),
            (2, None, -1, None),
            (3, Some(i64::MIN), 0, None),
        ],
    ];
    let batches = partitions.map(|rows| {
        let decimals: Decimal128Array = rows.iter().map(|row| Some(row.2)).collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("g", Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int32Array>())),
            ("n", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
            ("d", Arc::new(decimals.with_precision_and_scale(38, 0).unwrap())),
            ("t", Arc::new(rows.iter().map(|row| row.3).collect::<DurationMicrosecondArray>())),
        ];
        vec![RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()]
    });
    let context = bounded_context(64 << 20, SessionConfig::new().with_target_partitions(2)).unwrap();
    let table = MemTable::try_new(batches[0][0].schema(), batches.into()).unwrap();
    context.register_table("s", Arc::new(table)).unwrap();
    context
}

/// Cells with commas between them, rows with semicolons.
async fn answer(sql: &str) -> Result<String, String> {
    let frame = context().sql(sql).await.map_err(|failure| failure.to_string())?;
    let batches = frame.collect().await.map_err(|failure| failure.to_string())?;
    let mut rows = Vec::new();
    for batch in &batches {
        rows.extend((0..batch.num_rows()).map(|row| {
            let cells = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            cells.collect::<Vec<_>>().join(",")
        }));
    }
    Ok(rows.join(";"))
}

#[tokio::test]
async fn what_fits_is_right() {
    for (sql, expected) in [
        ("SELECT -n FROM s WHERE g = 2 ORDER BY n", "-1;"),
        ("SELECT -(-9223372036854775807), - -5, -9223372036854775808", "9223372036854775807,5,-9223372036854775808"),
        // What the partitions have does not fit, and what both have does.
        ("SELECT sum(n), sum(d) FROM s WHERE g = 1", "0,0"),
        ("SELECT g, sum(n), sum(d) FROM s WHERE g < 3 GROUP BY g ORDER BY g", "1,0,0;2,1,0"),
        ("SELECT sum(n) FILTER (WHERE n = 1), sum(n) FILTER (WHERE n = 7) FROM s", "1,"),
        ("SELECT g, sum(n) FILTER (WHERE n = 1) FROM s GROUP BY g ORDER BY g", "1,;2,1;3,"),
        ("SELECT sum(DISTINCT n) FROM s WHERE g = 1", "0"),
        ("SELECT sum(DISTINCT n), sum(DISTINCT d) FROM s WHERE g = 1", "0,0"),
        ("SELECT sum(v) OVER (ORDER BY v ROWS 1 PRECEDING) FROM (VALUES (1), (2), (3)) AS v(v) ORDER BY 1", "1;3;5"),
        (
            "SELECT sum(DISTINCT v) OVER (ORDER BY v ROWS 1 PRECEDING) FROM (VALUES (1), (2), (2)) AS v(v) ORDER BY 1",
            "1;2;3",
        ),
        ("SELECT avg(CAST(n AS DECIMAL(38, 0))) FROM s WHERE g = 2", "1.0000"),
        ("SELECT mean(n) FROM s WHERE g = 2", "1.0"),
        ("SELECT CAST(sum(t) AS BIGINT) FROM s WHERE g = 2", "1500000"),
        ("SELECT CAST(avg(t) AS BIGINT) FROM s WHERE g = 1", "9223372036854775807"),
        ("SELECT g, CAST(avg(t) AS BIGINT) FROM s GROUP BY g ORDER BY g", "1,9223372036854775807;2,1500000;3,"),
        (
            "SELECT date_part('epoch', t), date_part('ms', t), extract(nanosecond FROM t) FROM s WHERE g = 2 AND n = 1",
            "1.5,1500,1500000000",
        ),
        ("SELECT extract(epoch FROM TIMESTAMP '2025-01-02T00:00:10.25' - TIMESTAMP '2025-01-02T00:00:00')", "10.25"),
        ("SELECT 3 << 2, -8 >> 1, 1 << 62, n << 1 FROM s WHERE n = 1", "12,-4,4611686018427387904,2"),
        ("SELECT CAST('0.1' AS DECIMAL(18, 2)) + 1, CAST(7 AS DECIMAL(18, 2)) / 2", "1.10,3.500000"),
        ("SELECT d * 1 - d FROM s WHERE g = 2 ORDER BY 1", "0;0"),
        ("SELECT lcm(CAST(4 AS DECIMAL(5, 0)), CAST(6 AS DECIMAL(5, 0))), lcm(4, 6) AS m", "12,12"),
        // More digits than a double has.
        (
            "SELECT ceil(9007199254740993), floor(9007199254740993), trunc(9007199254740993), round(9007199254740993), \
             abs(9007199254740993)",
            "9007199254740993,9007199254740993,9007199254740993,9007199254740993,9007199254740993",
        ),
        (
            "SELECT ceil(n), floor(n), trunc(n) FROM s WHERE g = 3",
            "-9223372036854775808,-9223372036854775808,-9223372036854775808",
        ),
        ("SELECT ceil(n), trunc(n, -1) FROM s WHERE g = 2 ORDER BY n", "1,0;,"),
        (
            "SELECT trunc(n, -2), trunc(n, g), trunc(n, -20), trunc(-n + 1, -g) FROM s WHERE g = 1 AND n > 0 LIMIT 1",
            "9223372036854775800,9223372036854775807,0,-9223372036854775800",
        ),
        (
            "SELECT trunc(CAST(18446744073709551615 AS BIGINT UNSIGNED), -1), trunc(7, CAST(NULL AS BIGINT))",
            "18446744073709551610,",
        ),
        ("SELECT arrow_typeof(ceil(CAST(1 AS SMALLINT))), arrow_typeof(trunc(CAST(1 AS SMALLINT), 1))", "Int16,Int16"),
        ("SELECT ceil(1.5), floor(-1.5), trunc(1.25, 1), ceil(NULL)", "2.0,-2.0,1.2,"),
        (
            "SELECT ceil(CAST('9007199254740993.01' AS DECIMAL(20, 2))), floor(CAST('-9007199254740993.01' AS DECIMAL(20, 2))), \
             trunc(CAST('9007199254740993.99' AS DECIMAL(20, 2)), 1), round(CAST('9007199254740993.49' AS DECIMAL(20, 2)))",
            "9007199254740994.00,-9007199254740994.00,9007199254740993.90,9007199254740993",
        ),
        (
            "SELECT median(CAST(v AS DECIMAL(20, 1))), avg(CAST(v AS DECIMAL(20, 0))) FROM (VALUES (9007199254740993), \
             (9007199254740994)) AS v(v)",
            "9007199254740993.5,9007199254740993.5000",
        ),
    ] {
        assert_eq!(answer(sql).await.as_deref(), Ok(expected), "{sql}");
    }
}

#[tokio::test]
async fn what_does_not_fit_fails() {
    let sum_of_integers = "`sum`: the result does not fit into Int64; CAST the argument to DECIMAL(38, 0) or DOUBLE";
    let sum_of_decimals =
        "`sum`: the result does not fit into Decimal128(38, 0); CAST the argument to DOUBLE, which rounds";
    for (sql, expected) in [
        (
            "SELECT -n FROM s WHERE g = 3",
            "`-`: Arithmetic overflow: Overflow happened on: - -9223372036854775808; CAST an operand to DECIMAL(38, 0) \
             or DOUBLE",
        ),
        ("SELECT g, -n FROM s GROUP BY g, -n", "`-`: Arithmetic overflow"),
        ("SELECT g FROM s WHERE -n > 5", "`-`: Arithmetic overflow"),
        ("SELECT (SELECT max(-n) FROM s)", "`-`: Arithmetic overflow"),
        ("SELECT n - 1 FROM s WHERE g = 3", "`-`: Arithmetic overflow"),
        ("SELECT sum(n) FROM s WHERE n > 0", sum_of_integers),
        ("SELECT g, sum(n) FROM s WHERE n > 0 GROUP BY g", sum_of_integers),
        ("SELECT sum(DISTINCT n) FROM s WHERE n > 0", sum_of_integers),
        ("SELECT sum(DISTINCT n), count(DISTINCT g) FROM s WHERE n > 0", sum_of_integers),
        ("SELECT g % 1, sum(DISTINCT n), count(DISTINCT g) FROM s WHERE n > 0 GROUP BY 1", sum_of_integers),
        ("SELECT sum(n) OVER (ORDER BY g ROWS 1 PRECEDING) FROM s WHERE n > 1", sum_of_integers),
        ("SELECT sum(n) OVER (ORDER BY g) FROM s WHERE n > 1", sum_of_integers),
        ("SELECT sum(DISTINCT n) OVER (ORDER BY n ROWS 1 PRECEDING) FROM s WHERE n > 0", sum_of_integers),
        ("SELECT sum(d) FROM s WHERE d > 1", sum_of_decimals),
        ("SELECT g, sum(d) FROM s WHERE d > 1 GROUP BY g", sum_of_decimals),
        (
            "SELECT sum(DISTINCT CAST(v AS DECIMAL(38, 0))) FROM (VALUES \
             ('60000000000000000000000000000000000000'), ('60000000000000000000000000000000000001')) AS v(v)",
            sum_of_decimals,
        ),
        ("SELECT sum(t) FROM s WHERE g = 1", "`sum`: the result does not fit into Duration"),
        ("SELECT d + d FROM s WHERE d > 1", "`+`: Arithmetic overflow"),
        ("SELECT d * 2 FROM s WHERE d > 1", "CAST an operand to DOUBLE, which rounds"),
        ("SELECT d / CAST('0.01' AS DECIMAL(3, 2)) FROM s", "`/`: Arithmetic overflow"),
        ("SELECT d / 0 FROM s WHERE g = 2", "Divide by zero"),
        ("SELECT n << 1 FROM s WHERE g = 3", "`<<`: Arithmetic overflow"),
        ("SELECT 1 << 63", "`<<`: Arithmetic overflow"),
        ("SELECT 1 << 64", "`<<`: Arithmetic overflow: Overflow happened on: 1 << 64; multiply a DECIMAL(38, 0)"),
        ("SELECT 8 >> -1", "`>>`: Arithmetic overflow"),
        ("SELECT lcm(CAST(99 AS DECIMAL(2, 0)), CAST(98 AS DECIMAL(2, 0)))", "`lcm`: Arithmetic overflow: 9702"),
        ("SELECT avg(CAST(1 AS DECIMAL(70, 0)))", "`avg`: the sum of values of DECIMAL(70, 0) may not fit"),
        ("SELECT date_part('microsecond', t) FROM s WHERE g = 1", "Can't cast value"),
        // DataFusion itself fails on these.
        ("SELECT abs(n) FROM s WHERE g = 3", "overflow"),
        ("SELECT n / -1 FROM s WHERE g = 3", "overflow"),
        ("SELECT gcd(n, 0) FROM s WHERE g = 3", "overflow"),
        ("SELECT lcm(n, 9223372036854775806) FROM s WHERE n > 1", "overflow"),
        ("SELECT factorial(21)", "overflow"),
        ("SELECT CAST(CAST(n AS DOUBLE) * 10 AS BIGINT) FROM s WHERE g = 1", "Can't cast value"),
        ("SELECT CAST(n AS INT) FROM s WHERE g = 1", "Can't cast value"),
        ("SELECT CAST(d AS DECIMAL(20, 0)) FROM s WHERE g = 1", "too large"),
    ] {
        let failure = answer(sql).await.expect_err(sql);
        let (found, expected) = (failure.to_lowercase(), expected.to_lowercase());
        assert!(found.contains(&expected), "{sql}: {failure}");
    }
}

#[tokio::test]
async fn columns_have_the_names_of_their_operators() {
    let frame = context().sql("SELECT -n, d * 2, n << 1, date_part('epoch', t) FROM s").await.unwrap();
    let names = frame.schema().field_names();
    assert_eq!(names, ["(- s.n)", "s.d * Int64(2)", "s.n << Int64(1)", "date_part(Utf8(\"epoch\"),s.t)"]);
    let batches = frame.limit(0, Some(0)).unwrap().collect().await.unwrap();
    assert!(batches.iter().all(|batch| batch.schema().field(0).name() == "(- s.n)"));
}

/// What DataFusion does with groups that it sees once.
#[test]
fn rows_become_totals_without_a_group() {
    let sum = || Aggregate::sum(&DataType::Int64).unwrap().groups_accumulator().unwrap();
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(MAX), None, Some(1), Some(2)]));
    let filter = BooleanArray::from(vec![Some(true), Some(true), None, Some(true)]);
    let states = sum().convert_to_state(&[values], Some(&filter)).unwrap();
    let mut merged = sum();
    merged.merge_batch(&states, &[0, 1, 2, 0], 3).unwrap();
    assert!(merged.evaluate(EmitTo::First(1)).is_err());
    let mut merged = sum();
    merged.merge_batch(&states, &[0, 1, 2, 3], 4).unwrap();
    let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(MAX), None]));
    assert_eq!(&merged.evaluate(EmitTo::First(2)).unwrap(), &expected);
    let expected: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(2)]));
    assert_eq!(&merged.evaluate(EmitTo::All).unwrap(), &expected);
}
