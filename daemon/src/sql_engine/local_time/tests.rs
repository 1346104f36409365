#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use chrono::DateTime;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionConfig;
use proptest::prelude::*;
use silverd_core::zone::Zone;

use crate::sql_engine::bounded_context;

/// The answer of a query over the table `t`, whose column `ts` has these instants in this zone; `id` counts them.
async fn answer(zone: &str, instants: &[&str], sql: &str) -> Result<String, String> {
    let times = instants.iter().map(|instant| DateTime::parse_from_rfc3339(instant).unwrap().timestamp_micros());
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone(zone));
    let ids: ArrayRef = Arc::new((0..instants.len()).map(|id| Some(id.to_string())).collect::<StringArray>());
    let utc: ArrayRef = Arc::new(times.as_primitive::<TimestampMicrosecondType>().clone().with_timezone("UTC"));
    let batch = RecordBatch::try_from_iter([("id", ids), ("ts", times), ("utc", utc)]).unwrap();
    let mut session = SessionConfig::new().with_target_partitions(1);
    session.options_mut().execution.time_zone = Some(zone.to_owned());
    let context = bounded_context(64 << 20, session).unwrap();
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    let frame = context.sql(sql).await.map_err(|failure| failure.to_string())?;
    let batches = frame.collect().await.map_err(|failure| failure.to_string())?;
    let mut cells = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            cells.extend(batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap()));
        }
    }
    Ok(cells.join(","))
}

#[track_caller]
fn check(zone: &str, instant: &str, expressions: &[(&str, &str)]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (expression, expected) in expressions {
        let found = runtime.block_on(answer(zone, &[instant], &format!("SELECT {expression} FROM t")));
        assert_eq!(found.as_deref(), Ok(*expected), "{expression} of {instant} in {zone}");
    }
}

#[test]
fn days_and_hours_are_those_of_local_clocks() {
    check(
        "Europe/Berlin",
        "2025-03-30T12:00:00Z",
        &[
            ("date_trunc('day', ts)", "2025-03-30T00:00:00+01:00"),
            ("date_trunc('month', ts)", "2025-03-01T00:00:00+01:00"),
            ("datetrunc('hour', ts)", "2025-03-30T14:00:00+02:00"),
            ("date_bin(INTERVAL '1 day', ts)", "2025-03-30T00:00:00+01:00"),
            ("date_bin(INTERVAL '6 hours', ts)", "2025-03-30T12:00:00+02:00"),
            ("date_bin(INTERVAL '1 month', ts)", "2025-03-01T00:00:00+01:00"),
            (
                "date_bin(INTERVAL '1 day', ts, CAST('2025-01-01 06:00:00' AS TIMESTAMP WITH TIME ZONE))",
                "2025-03-30T06:00:00+02:00",
            ),
            ("date_part('hour', ts)", "14"),
            ("extract(day FROM ts)", "30"),
            ("to_char(ts, '%Y-%m-%d %H:%M')", "2025-03-30 14:00"),
            ("CAST(ts AS DATE)", "2025-03-30"),
            ("CAST(ts AS TIMESTAMP)", "2025-03-30T14:00:00"),
            ("ts", "2025-03-30T14:00:00+02:00"),
            ("date_trunc('day', utc)", "2025-03-30T00:00:00Z"),
        ],
    );
    // Clocks go from two o'clock to three.
    check("Europe/Berlin", "2025-03-29T12:00:00Z", &[("ts + INTERVAL '1 day'", "2025-03-30T13:00:00+02:00")]);
    // Clocks show half past two twice.
    for (instant, hour, quarter) in [
        ("2025-10-26T00:40:00Z", "2025-10-26T02:00:00+02:00", "2025-10-26T02:30:00+02:00"),
        ("2025-10-26T01:40:00Z", "2025-10-26T02:00:00+01:00", "2025-10-26T02:30:00+01:00"),
    ] {
        check(
            "Europe/Berlin",
            instant,
            &[
                ("date_trunc('hour', ts)", hour),
                ("date_bin(INTERVAL '1 hour', ts)", hour),
                ("date_bin(INTERVAL '15 minutes', ts)", quarter),
                ("date_trunc('day', ts)", "2025-10-26T00:00:00+02:00"),
            ],
        );
    }
    check(
        "Asia/Kolkata",
        "2025-01-01T00:10:00Z",
        &[
            ("date_bin(INTERVAL '1 hour', ts)", "2025-01-01T05:00:00+05:30"),
            ("date_trunc('hour', ts)", "2025-01-01T05:00:00+05:30"),
        ],
    );
    // Two o'clock became half past one: the hour of one has ninety minutes.
    check(
        "Australia/Lord_Howe",
        "2025-04-05T15:15:00Z",
        &[
            ("date_trunc('hour', ts)", "2025-04-06T01:00:00+11:00"),
            ("date_bin(INTERVAL '30 minutes', ts)", "2025-04-06T01:30:00+10:30"),
        ],
    );
    check("Pacific/Apia", "2011-12-31T12:00:00Z", &[("date_trunc('month', ts)", "2012-01-01T00:00:00+14:00")]);
    check("Pacific/Apia", "2011-12-30T10:00:00Z", &[("date_bin(INTERVAL '1 day', ts)", "2011-12-31T00:00:00+14:00")]);
}

#[test]
fn a_day_with_two_midnights_is_one_day() {
    for instant in ["2025-11-02T04:30:00Z", "2025-11-02T05:30:00Z", "2025-11-02T20:00:00Z"] {
        check(
            "America/Havana",
            instant,
            &[
                ("date_trunc('day', ts)", "2025-11-02T00:00:00-04:00"),
                ("date_bin(INTERVAL '1 day', ts)", "2025-11-02T00:00:00-04:00"),
            ],
        );
    }
    // A day without a midnight begins at one o'clock.
    check(
        "America/Havana",
        "2025-03-09T12:00:00Z",
        &[
            ("date_trunc('day', ts)", "2025-03-09T01:00:00-04:00"),
            ("CAST(CAST(ts AS DATE) AS TIMESTAMP WITH TIME ZONE)", "2025-03-09T01:00:00-04:00"),
            ("ts >= CAST(ts AS DATE)", "true"),
        ],
    );
}

#[test]
fn dates_and_times_without_a_zone_are_local() {
    check(
        "Europe/Berlin",
        "2025-03-29T23:30:00Z",
        &[
            ("ts >= DATE '2025-03-30'", "true"),
            ("DATE '2025-03-30' > ts", "false"),
            ("ts BETWEEN DATE '2025-03-30' AND DATE '2025-03-31'", "true"),
            ("ts NOT BETWEEN DATE '2025-03-29' AND DATE '2025-03-30'", "true"),
            ("date_trunc('day', ts) IN (DATE '2025-03-29', DATE '2025-03-30')", "true"),
            ("ts >= '2025-03-30'", "true"),
            ("ts < '2025-03-30 00:30:01'", "true"),
            ("ts < TIMESTAMP '2025-03-30 00:30:01'", "true"),
            ("extract(epoch FROM ts - DATE '2025-03-30')", "1800.0"),
            ("extract(epoch FROM ts - utc)", "0.0"),
            ("extract(epoch FROM ts - CAST(DATE '2025-03-30' AS TIMESTAMP))", "1800.0"),
            ("ts = utc", "true"),
            // The literal is compared with an instant, and not with what clocks show.
            ("CAST(ts AS TIMESTAMP) > CAST('2025-03-30 01:00:00' AS TIMESTAMP WITH TIME ZONE)", "false"),
            ("CAST(CAST(ts AS DATE) AS TIMESTAMP) >= CAST('2025-03-30 01:00:00' AS TIMESTAMP WITH TIME ZONE)", "false"),
            ("CAST(CAST(ts AS TIMESTAMP) AS TIMESTAMP WITH TIME ZONE) = ts", "true"),
            // Clocks skip half past two.
            ("ts < TIMESTAMP '2025-03-30 02:30:00'", "true"),
            ("utc >= DATE '2025-03-30'", "false"),
            ("date_trunc('day', now()) = CAST(current_date AS TIMESTAMP WITH TIME ZONE)", "true"),
            ("extract(epoch FROM now() - utc) > 86400", "true"),
        ],
    );
    check("Europe/Berlin", "2025-03-29T22:30:00Z", &[("ts >= DATE '2025-03-30'", "false")]);
}

#[test]
fn rows_are_grouped_by_local_days() {
    let instants = ["2025-10-25T21:59:59Z", "2025-10-25T22:00:00Z", "2025-10-26T22:59:59Z", "2025-10-26T23:00:00Z"];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for day in ["date_trunc('day', ts)", "date_bin(INTERVAL '1 day', ts)", "CAST(ts AS DATE)"] {
        let sql = format!("SELECT count(*) FROM t GROUP BY {day} ORDER BY {day}");
        assert_eq!(runtime.block_on(answer("Europe/Berlin", &instants, &sql)).as_deref(), Ok("1,2,1"), "{day}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// A part begins no later than the time in it, and a day where its zone says.
    #[test]
    fn parts_begin_where_the_zone_says(
        name in prop::sample::select(vec![
            "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana",
            "America/St_Johns", "America/Sao_Paulo",
        ]),
        seconds in 946_684_800i64..1_767_225_600,
    ) {
        let instant = DateTime::from_timestamp(seconds, 0).unwrap().to_rfc3339();
        let zone = Zone::parse(name).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sql = "SELECT CAST(extract(epoch FROM date_trunc('day', ts)) AS BIGINT), \
                   CAST(extract(epoch FROM date_trunc('hour', ts)) AS BIGINT), \
                   CAST(extract(epoch FROM date_bin(INTERVAL '7 hours', ts)) AS BIGINT) FROM t";
        let found = runtime.block_on(answer(name, &[&instant], sql)).unwrap();
        let found: Vec<i64> = found.split(',').map(|cell| cell.parse().unwrap()).collect();
        let start = zone.start_of_day(zone.day_of(seconds * 1_000_000)) / 1_000_000;
        prop_assert_eq!(found[0], start);
        prop_assert!(found.iter().all(|begin| *begin <= seconds), "{found:?}");
    }
}

#[test]
fn the_types_stay() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(super::local_zone(&utc), None);
    assert_eq!(super::local_zone(&DataType::Timestamp(TimeUnit::Second, None)), None);
    assert_eq!(super::local_zone(&DataType::Timestamp(TimeUnit::Second, Some("+02:00".into()))), None);
    let berlin = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
    assert_eq!(super::local_zone(&berlin).map(|(_, zone)| zone.name()), Some("Europe/Berlin"));
}
