#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use silverd_core::chunk::{Chunk, ChunkBuilder, Record, TimestampType};
use silverd_core::input::{Decoder, Image, InputField, Records, input_wit, interface_wit};
use silverd_core::offsets::LogPartition;

use super::definition::Definition;
use super::evaluate::{Evaluated, Evaluator};
use super::{EventColumns, RowSql, SqlError};

const FIELDS: [(&str, &str); 6] = [
    ("event_id", "string"),
    ("ts", "timestamp"),
    ("n", "option<s64>"),
    ("text", "option<string>"),
    ("total", "option<money>"),
    ("items", "list<{ sku: string, qty: u32, price: money }>"),
];
const PRICES: &[u8] = b"sku,name\na,Apple\nb,Berry\nb,Bean\n";

fn definition(sql: &str) -> Definition {
    let fields = FIELDS.map(|(key, ty)| InputField { key, ty, comment: (key == "ts").then_some("When it was.") });
    let input = interface_wit("silverd:sql", "event", &input_wit(&fields).unwrap());
    let json = serde_json::json!({ "silverd_sql": 1, "sql": sql, "input": input, "not_null": ["event_id", "ts"] });
    Definition::parse(json.to_string().as_bytes()).unwrap()
}

fn references() -> [(&'static str, &'static [u8]); 1] {
    [("prices", PRICES)]
}

fn chunk(events: &[String]) -> Chunk {
    let (mut builder, log) = ChunkBuilder::of(&LogPartition::new("c", "shop", 3));
    for (offset, value) in (0..).zip(events) {
        let headers = std::iter::empty::<(Cow<'_, str>, Option<&[u8]>)>();
        let timestamp = Some((1_700_000_000_000, TimestampType::CreateTime));
        builder.push(
            log,
            offset,
            Record { offset, timestamp, key: Some(b"key"), value: Some(value.as_bytes()), headers },
        );
    }
    builder.finish(0)
}

/// The outcomes of events, in batches of so many.
fn evaluate(sql: &str, events: &[String], batch: usize) -> Evaluated {
    let definition = definition(sql);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut evaluator = runtime.block_on(Evaluator::new(&definition, references(), 64 << 20)).unwrap();
    let columns = EventColumns::of(&definition.input, sql).unwrap();
    let chunk = chunk(events);
    let (records, mut decoder) = (Records::new(&chunk), Decoder::default());
    let rows: Vec<u32> = (0..events.len() as u32).collect();
    let mut all: Option<Evaluated> = None;
    for rows in rows.chunks(batch) {
        let mut image = Image::default();
        for row in rows {
            decoder.decode(&columns.ty, &records, *row as usize, &mut image, 1 << 20).unwrap();
        }
        let events = columns.batch(&records, rows, &mut image).unwrap();
        let mut found = runtime.block_on(evaluator.evaluate(&events)).unwrap();
        // Numbers count within a batch.
        found.row_events.iter_mut().for_each(|event| *event += rows[0]);
        found.rejects.iter_mut().for_each(|reject| reject.event += rows[0]);
        all = Some(match all {
            None => found,
            Some(before) => Evaluated {
                rows: concat_batches(&before.rows.schema(), [&before.rows, &found.rows]).unwrap(),
                row_events: [before.row_events, found.row_events].concat(),
                rejects: [before.rejects, found.rejects].concat(),
            },
        });
    }
    all.unwrap()
}

fn event(rest: &str) -> String {
    format!(r#"{{"event_id": "e", "ts": "2026-01-02T03:04:05Z", {rest}}}"#)
}

fn text(rows: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(rows)).unwrap().to_string()
}

#[track_caller]
fn check_rows(sql: &str, events: &[String], expected: &str) {
    let found = evaluate(sql, events, 100);
    let trimmed =
        |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&text(&found.rows)), trimmed(expected), "{sql}");
    assert!(found.rejects.is_empty(), "{:?}", found.rejects);
}

#[test]
fn one_event_gives_no_one_or_several_rows() {
    let events = [
        event(r#""items": [{"sku": "a", "qty": 2, "price": "1.50"}, {"sku": "b", "qty": 1, "price": 3}]"#),
        event(r#""n": 1, "items": []"#),
        event(r#""items": [{"sku": "zz", "qty": 4294967295, "price": 0.01}]"#),
    ];
    check_rows(
        "SELECT event_id, ts, item['sku'] AS sku, p.name, item['price'] * item['qty'] AS total
         FROM (SELECT event_id, ts, unnest(items) AS item FROM event WHERE n IS NULL) AS line
         LEFT JOIN prices p ON p.sku = item['sku']",
        &events,
        "+----------+----------------------+-----+-------+-------------+
         | event_id | ts                   | sku | name  | total       |
         +----------+----------------------+-----+-------+-------------+
         | e        | 2026-01-02T03:04:05Z | a   | Apple | 3.00        |
         | e        | 2026-01-02T03:04:05Z | b   | Berry | 3.00        |
         | e        | 2026-01-02T03:04:05Z | b   | Bean  | 3.00        |
         | e        | 2026-01-02T03:04:05Z | zz  |       | 42949672.95 |
         +----------+----------------------+-----+-------+-------------+",
    );
    let found = evaluate("SELECT event_id, ts, unnest(items) AS item FROM event", &events, 100);
    assert_eq!(found.row_events, [0, 0, 2]);
    let origin =
        "SELECT event_id, ts, _topic AS topic, _partition AS p, _offset AS o, _key AS k, _timestamp AS at FROM event";
    let found = text(&evaluate(origin, &events[..1], 1).rows);
    assert!(found.contains("| shop  | 3 | 0 | key | 2023-11-14T22:13:20Z |"), "{found}");
}

#[test]
fn an_error_rejects_its_event_alone_and_names_the_column() {
    let mut events: Vec<String> =
        (0..100).map(|n| event(&format!(r#""n": {n}, "text": "{n}", "items": []"#))).collect();
    events[17] = event(r#""n": 0, "text": "x", "items": []"#);
    events[18] = event(r#""n": 9223372036854775807, "text": "1", "items": []"#);
    events[99] = event(r#""n": 5, "text": "reject", "items": []"#);
    let sql = "SELECT event_id, ts, 100 / (n + 1) AS share,
                      CASE WHEN text = 'reject' THEN reject('text: it says ' || text) ELSE CAST(text AS BIGINT) END AS number
               FROM event";
    let found = evaluate(sql, &events, 100);
    assert_eq!(found.row_events.len(), 97);
    let rejects: Vec<_> = found.rejects.iter().map(|reject| (reject.event, reject.reason.as_str())).collect();
    assert_eq!(rejects.len(), 3, "{rejects:?}");
    assert_eq!(rejects[0], (17, "number: Cannot cast string 'x' to value of Int64 type"));
    assert!(
        rejects[1].0 == 18 && rejects[1].1.starts_with("share: ") && rejects[1].1.contains("verflow"),
        "{rejects:?}"
    );
    assert_eq!(rejects[2], (99, "number: text: it says reject"));
    // A null where none may be, and an error in WHERE.
    let sql = "SELECT nullif(event_id, text) AS event_id, ts FROM event WHERE 10 / n < 100";
    let events = [
        event(r#""n": 1, "text": "e", "items": []"#),
        event(r#""n": 0, "items": []"#),
        event(r#""n": 1, "text": "f", "items": []"#),
    ];
    let found = evaluate(sql, &events, 100);
    assert_eq!(found.row_events, [2]);
    let rejects: Vec<_> = found.rejects.iter().map(|reject| (reject.event, reject.reason.as_str())).collect();
    assert_eq!(
        rejects,
        [(0, "event_id: null, and the table needs a value in this column"), (1, "Divide by zero error")]
    );
}

#[test]
fn any_batching_gives_the_same_rows() {
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let events: Vec<String> = (0..300)
        .map(|_| {
            let items: Vec<String> = (0..next(4))
                .map(|_| {
                    format!(
                        r#"{{"sku": "{}", "qty": {}, "price": {}}}"#,
                        ["a", "b", "c"][next(3) as usize],
                        next(5),
                        next(900)
                    )
                })
                .collect();
            let text = ["1", "2", "x", "", "é"][next(5) as usize];
            event(&format!(r#""n": {}, "text": "{text}", "items": [{}]"#, next(4), items.join(",")))
        })
        .collect();
    for sql in [
        "SELECT event_id, ts, n, 12 / n AS part, CAST(text AS INT) AS number FROM event WHERE length(text) < 2",
        "SELECT event_id, ts, item['sku'] AS sku, 6 / item['qty'] AS q, p.name FROM
         (SELECT event_id, ts, unnest(items) AS item FROM event) e JOIN prices p ON p.sku = item['sku']",
        "SELECT *, upper(text) AS upper FROM event",
        "WITH a AS (SELECT *, n * 2 AS twice FROM event) SELECT event_id, ts, twice FROM a WHERE twice > 2",
        // Collected, and next to errors; and a CASE of truth values, which becomes AND and OR.
        "SELECT event_id, ts, CASE WHEN text = 'x' THEN reject('text: ' || text) ELSE 12 / n END AS part FROM event",
        "SELECT event_id, ts, CASE WHEN text = 'x' THEN reject('x') ELSE n > 1 END AS yes FROM event",
        "SELECT event_id, ts, coalesce(n, CASE WHEN text = 'x' THEN reject('x') ELSE 0 END) AS n FROM event",
        "SELECT event_id, ts, item['sku'] AS sku,
           CASE WHEN item['qty'] = 0 THEN reject('items.qty: 0') ELSE item['qty'] END AS qty
         FROM (SELECT event_id, ts, unnest(items) AS item FROM event) e",
        "SELECT event_id, ts, CASE WHEN n = 3 THEN reject('in a query') ELSE twice END AS twice
         FROM (SELECT *, CASE WHEN n = 2 THEN reject('in it') ELSE n * 2 END AS twice FROM event) e WHERE twice < 9",
    ] {
        let whole = evaluate(sql, &events, 300);
        assert!(!whole.row_events.is_empty());
        for batch in [1, 7, 128] {
            let parts = evaluate(sql, &events, batch);
            assert_eq!(text(&parts.rows), text(&whole.rows), "{sql} in batches of {batch}");
            assert_eq!(parts.row_events, whole.row_events);
            assert_eq!(format!("{:?}", parts.rejects), format!("{:?}", whole.rejects));
        }
    }
}

/// Half of the events are rejected, in one execution: none for each of them.
#[test]
fn rejects_are_collected_in_one_execution() {
    let events: Vec<String> =
        (0..1000).map(|n| event(&format!(r#""n": {n}, "text": "{}", "items": []"#, n % 4))).collect();
    let sql = "SELECT event_id, ts,
                 CASE WHEN text = '1' THEN reject('text: it is ' || text) ELSE n END AS n,
                 CASE text WHEN '1' THEN reject('later') WHEN '3' THEN reject(NULL) ELSE upper(text) END AS upper
               FROM event";
    let definition = definition(sql);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut evaluator = runtime.block_on(Evaluator::new(&definition, references(), 64 << 20)).unwrap();
    let columns = EventColumns::of(&definition.input, sql).unwrap();
    let chunk = chunk(&events);
    let (records, mut decoder, mut image) = (Records::new(&chunk), Decoder::default(), Image::default());
    let rows: Vec<u32> = (0..events.len() as u32).collect();
    for row in &rows {
        decoder.decode(&columns.ty, &records, *row as usize, &mut image, 1 << 20).unwrap();
    }
    let events = columns.batch(&records, &rows, &mut image).unwrap();
    let found = runtime.block_on(evaluator.evaluate(&events)).unwrap();
    assert_eq!(evaluator.runs.into_inner(), 1);
    assert!(found.row_events.iter().all(|event| event % 2 == 0) && found.row_events.len() == 500);
    assert_eq!(found.rejects.len(), 500);
    for reject in &found.rejects {
        let expected = if reject.event % 4 == 1 { "n: text: it is 1" } else { "upper: rejected by the table's SQL" };
        assert_eq!(reject.reason, expected, "event {}", reject.event);
    }
}

#[test]
fn columns_have_types_and_comments() {
    let sql = "-- Orders.
        SELECT
          event_id, -- Who.
          ts, n AS a, CAST(n AS INT) AS b, text, total, n > 1 AS c, n * 1.5e0 AS d, -- The last of the line.
          CAST(ts AS DATE) AS e,
          items,
          length(text) AS f,
          total * n AS g, CAST(text AS BYTEA) AS h, CAST(n AS DECIMAL(20, 0)) AS i
        FROM event -- no column";
    let schema = RowSql::plan(definition(sql), references()).unwrap().schema;
    let columns: Vec<_> = schema
        .columns
        .iter()
        .map(|column| {
            let null = if column.nullable { "?" } else { "" };
            let doc = column.doc.as_deref().unwrap_or_default();
            format!("{}{null} {:?} {doc}", column.name, column.kind.arrow()).trim().to_owned()
        })
        .collect();
    insta::assert_snapshot!(columns.join("\n"));
    assert_eq!(schema.doc.as_deref(), Some("Orders."));
}

#[test]
fn sql_that_looks_at_several_events_is_refused_with_its_place() {
    for (sql, expected, place) in [
        ("SELECT event_id, sum(n) AS n FROM event GROUP BY event_id", "`sum` is an aggregate", "sum"),
        ("SELECT DISTINCT event_id, ts FROM event", "DISTINCT looks at several rows", "DISTINCT"),
        ("SELECT event_id FROM event GROUP BY event_id", "GROUP BY looks at several rows", "GROUP"),
        ("SELECT event_id, ts FROM event ORDER BY ts", "ORDER BY looks at several rows", "ORDER"),
        ("SELECT event_id, ts FROM event LIMIT 1", "LIMIT looks at several rows", "LIMIT"),
        ("SELECT event_id, row_number() OVER () AS r FROM event", "a window function looks at several events", "OVER"),
        ("SELECT event_id FROM event UNION ALL SELECT event_id FROM event", "reads `event` more than once", "event"),
        ("SELECT a.event_id FROM event a JOIN event b ON a.n = b.n", "reads `event` more than once", "event"),
        ("SELECT event_id, (SELECT max(sku) FROM prices) AS p FROM event", "a subquery in an expression", ""),
        ("SELECT event_id FROM event WHERE text IN (SELECT sku FROM prices)", "a subquery in an expression", ""),
        ("SELECT event_id, random() AS r FROM event", "`random` gives something else at each call", "random"),
        ("SELECT event_id, now() AS ts FROM event", "`now` gives something else at each call", "now"),
        ("SELECT p.sku FROM prices p LEFT JOIN event e ON e.text = p.sku", "gives rows that are of no event", "JOIN"),
        ("SELECT sku FROM prices", "it reads no event", "FROM"),
        ("SELECT event_id, ts, n + 1 FROM event", "needs a name of letters", ""),
        ("SELECT event_id, ts, n AS event_date FROM event", "a name that silverd adds itself", "event_date"),
        ("SELECT event_id, ts, n AS ts2, n AS ts2 FROM event", "ts2", ""),
        ("SELECT event_id, ts, NULL AS x FROM event", "is always null", "x"),
        ("SELECT event_id, ts, CAST(total AS DECIMAL(18, 3)) AS x FROM event", "money has 2 places", "x"),
        ("SELECT event_id, tz FROM event", "tz", "tz"),
        ("SELECT event_id,, ts FROM event", "Expected: an expression", ","),
        ("SELECT event_id, nosuch(n) AS x FROM event", "nosuch", ""),
        ("SELECT __event AS x, event_id, ts FROM event", "__event", "__event"),
        ("INSERT INTO event VALUES (1)", "expected one query", ""),
        ("SELECT event_id FROM event; SELECT 1", "", ""),
    ] {
        let error = match RowSql::plan(definition(sql), references()) {
            Ok(_) => panic!("{sql} is accepted"),
            Err(error) => error,
        };
        let found = error.downcast_ref::<SqlError>().unwrap_or_else(|| panic!("{sql}: {error:#}"));
        assert!(found.to_string().contains(expected), "{sql}: {found}");
        if !place.is_empty() {
            let marked = found.place.clone().map(|place| &sql[place]);
            assert_eq!(marked, Some(place), "{sql}: {found}");
        }
    }
}

/// Nothing of the SQL is computed in the daemon, only in the process that evaluates it.
#[test]
fn planning_computes_nothing() {
    let sql = "SELECT event_id, ts, length(repeat('x', 2000000000)) AS n FROM event";
    RowSql::plan(definition(sql), references()).unwrap();
}
