//! A row of `gold.day_status`: one day of one table.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, SecondsFormat};
use serde::{Serialize, Serializer};
use silverd_core::days::{DayReason, DayState};
use silverd_core::schema::COMMENT;

use crate::delta::format_day;

/// What is published of one day of a table. Times are in microseconds since the epoch, UTC.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DayRow {
    /// The name in queries.
    pub(crate) table: String,
    /// In days since the epoch.
    #[serde(rename = "event_date", serialize_with = "day_as_text")]
    pub(crate) day: i32,
    #[serde(serialize_with = "state_as_text")]
    pub(crate) state: DayState,
    /// When it took this state.
    #[serde(serialize_with = "time_as_text")]
    pub(crate) since: i64,
    /// The kinds of the reasons why it may change, in one text.
    pub(crate) reason: Option<String>,
    /// The same for people.
    pub(crate) may_change_because: Option<String>,
    #[serde(serialize_with = "some_time_as_text")]
    pub(crate) complete_until: Option<i64>,
    pub(crate) commit_version: Option<i64>,
    /// The next offset of each partition, as JSON.
    #[serde(serialize_with = "offsets_as_json")]
    pub(crate) offsets: Option<String>,
    /// Rows that were added to the day after it was final for the first time.
    pub(crate) late_events: i64,
    #[serde(serialize_with = "some_time_as_text")]
    pub(crate) first_final_at: Option<i64>,
}

/// The columns of the table's files. `event_date` is in their paths.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("table_name", DataType::Utf8, false, "The table, by its name in queries."),
        field(
            "state",
            DataType::Utf8,
            false,
            "`final`: the day's rows do not change unless this says `provisional` first.",
        ),
        field("since", timestamp(), false, "Since when the day has had this state."),
        field(
            "reason",
            DataType::Utf8,
            true,
            "Kinds of reasons why the day may change, separated by commas; null if final.",
        ),
        field("may_change_because", DataType::Utf8, true, "The same in words."),
        field("complete_until", timestamp(), true, "Up to which event time the table had all events; null: not known."),
        field("commit_version", DataType::Int64, true, "Version of the table at that time."),
        field("offsets", DataType::Utf8, true, "Next offset of each partition at that time, as JSON."),
        field("late_events", DataType::Int64, false, "Rows added after the day was final for the first time."),
        field("first_final_at", timestamp(), true, "When the day was final for the first time."),
    ]))
}

fn field(name: &str, ty: DataType, nullable: bool, doc: &str) -> Field {
    Field::new(name, ty, nullable).with_metadata([(COMMENT.to_owned(), doc.to_owned())].into())
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl DayRow {
    /// A day of which nothing but its state is known.
    pub(crate) fn new(table: &str, day: i32, state: DayState, since: i64) -> Self {
        Self {
            table: table.to_owned(),
            day,
            state,
            since,
            reason: None,
            may_change_because: None,
            complete_until: None,
            commit_version: None,
            offsets: None,
            late_events: 0,
            first_final_at: None,
        }
    }

    /// The reasons as the columns have them.
    pub(super) fn set_reasons(&mut self, reasons: &[DayReason]) {
        let joined = |texts: Vec<String>, separator: &str| (!texts.is_empty()).then(|| texts.join(separator));
        self.reason = joined(kinds(reasons).into_iter().map(str::to_owned).collect(), ", ");
        self.may_change_because = joined(reasons.iter().map(|reason| reason.sentence(&time_text)).collect(), "; ");
    }

    /// Whether it was published with reasons of these kinds.
    pub(crate) fn has_reasons(&self, reasons: &[DayReason]) -> bool {
        self.reason.as_deref().unwrap_or_default() == kinds(reasons).join(", ")
    }
}

/// Each kind once.
fn kinds(reasons: &[DayReason]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = reasons.iter().map(DayReason::kind).collect();
    kinds.dedup();
    kinds
}

pub(super) fn to_batch(rows: &[DayRow]) -> anyhow::Result<RecordBatch> {
    let text = |of: fn(&DayRow) -> Option<&str>| Arc::new(StringArray::from_iter(rows.iter().map(of))) as ArrayRef;
    let long = |of: fn(&DayRow) -> Option<i64>| Arc::new(Int64Array::from_iter(rows.iter().map(of))) as ArrayRef;
    let time = |of: fn(&DayRow) -> Option<i64>| {
        Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(of)).with_timezone("UTC")) as ArrayRef
    };
    let columns = vec![
        text(|row| Some(row.table.as_str())),
        text(|row| Some(row.state.as_str())),
        time(|row| Some(row.since)),
        text(|row| row.reason.as_deref()),
        text(|row| row.may_change_because.as_deref()),
        time(|row| row.complete_until),
        long(|row| row.commit_version),
        text(|row| row.offsets.as_deref()),
        long(|row| Some(row.late_events)),
        time(|row| row.first_final_at),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The rows of a file of one day.
pub(super) fn from_batch(batch: &RecordBatch, day: i32) -> anyhow::Result<Vec<DayRow>> {
    let column = |name: &str, ty: &DataType| {
        let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
        anyhow::Ok(cast(column, ty)?)
    };
    let text = |name: &str| column(name, &DataType::Utf8);
    let (tables, states) = (text("table_name")?, text("state")?);
    let (reasons, sentences, offsets) = (text("reason")?, text("may_change_because")?, text("offsets")?);
    let time = |name: &str| column(name, &timestamp());
    let (since, until, first_final) = (time("since")?, time("complete_until")?, time("first_final_at")?);
    let (versions, late) = (column("commit_version", &DataType::Int64)?, column("late_events", &DataType::Int64)?);
    let text_at =
        |array: &ArrayRef, row: usize| array.is_valid(row).then(|| array.as_string::<i32>().value(row).to_owned());
    let time_at = |array: &ArrayRef, row: usize| {
        array.is_valid(row).then(|| array.as_primitive::<TimestampMicrosecondType>().value(row))
    };
    let long_at =
        |array: &ArrayRef, row: usize| array.is_valid(row).then(|| array.as_primitive::<Int64Type>().value(row));
    let row_at = |row: usize| {
        let state = text_at(&states, row).unwrap_or_default();
        Ok(DayRow {
            table: text_at(&tables, row).context("a row without a table")?,
            day,
            state: DayState::parse(&state)
                .ok_or_else(|| anyhow!("the state `{state}`: expected provisional or final"))?,
            since: time_at(&since, row).unwrap_or_default(),
            reason: text_at(&reasons, row),
            may_change_because: text_at(&sentences, row),
            complete_until: time_at(&until, row),
            commit_version: long_at(&versions, row),
            offsets: text_at(&offsets, row),
            late_events: long_at(&late, row).unwrap_or_default(),
            first_final_at: time_at(&first_final, row),
        })
    };
    (0..batch.num_rows()).map(row_at).collect()
}

fn time_text(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Secs, true),
        None => format!("{micros} µs"),
    }
}

fn day_as_text<S: Serializer>(day: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_day(*day))
}

fn state_as_text<S: Serializer>(state: &DayState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

fn time_as_text<S: Serializer>(micros: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time_text(*micros))
}

fn some_time_as_text<S: Serializer>(micros: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match micros {
        Some(micros) => time_as_text(micros, serializer),
        None => serializer.serialize_none(),
    }
}

fn offsets_as_json<S: Serializer>(offsets: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let parsed = offsets.as_ref().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    parsed.serialize(serializer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(table: &str) -> DayRow {
        DayRow {
            table: table.to_owned(),
            day: 20_000,
            state: DayState::Provisional,
            since: 5,
            reason: None,
            may_change_because: None,
            complete_until: Some(1_700_000_000_000_000),
            commit_version: Some(7),
            offsets: Some("{\"t/0\":4}".to_owned()),
            late_events: 2,
            first_final_at: None,
        }
    }

    #[test]
    fn rows_are_read_as_they_are_written() {
        let mut rows = vec![row("a"), DayRow { state: DayState::Final, complete_until: None, ..row("b") }];
        rows[0].set_reasons(&[DayReason::Quarantine { count: 2 }, DayReason::Rebuild]);
        assert_eq!(from_batch(&to_batch(&rows).unwrap(), 20_000).unwrap(), rows);
    }

    #[test]
    fn a_row_as_json() {
        let mut row = row("a");
        let reason = DayReason::WaitsForLateEvents { until: 1_700_000_000_000_000 };
        row.set_reasons(std::slice::from_ref(&reason));
        assert!(row.has_reasons(&[reason]) && !row.has_reasons(&[]));
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["event_date"], "2024-10-04");
        assert_eq!(json["may_change_because"], "late events may come until 2023-11-14T22:13:20Z");
        assert_eq!(json["offsets"]["t/0"], 4);
        assert_eq!(json["first_final_at"], serde_json::Value::Null);
    }
}
