//! Every row of every table, compared with what was sent.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::checker::{BRONZE, QUARANTINE};
use super::topic::{Action, Event, PARTITIONS, Topic};
use crate::delta::{list_files, open_log};

/// Where an event is.
type Place = (i32, i64);

/// Compares all tables. Gives what is wrong.
pub(super) async fn compare(folder: &Path, silver: &[&str], topic: &Topic) -> Vec<String> {
    let mut wrong = Vec::new();
    let events: BTreeMap<Place, Event> = (0..PARTITIONS)
        .flat_map(|partition| {
            let events = topic.events(partition, 0, topic.end(partition));
            (0..).zip(events).map(move |(offset, event)| ((partition, offset), event))
        })
        .collect();
    let mut compare = |table: &str, found: BTreeMap<String, u64>, expected: BTreeMap<String, u64>| {
        let keys = found.keys().chain(expected.keys());
        let of = |rows: &BTreeMap<String, u64>, key: &String| rows.get(key).copied().unwrap_or(0);
        let differ = keys.filter(|key| of(&found, key) != of(&expected, key));
        let differ: Vec<_> = differ.map(|key| format!("{key}: {} times", of(&found, key))).take(5).collect();
        if !differ.is_empty() {
            wrong.push(format!("table {table} has {}", differ.join(", ")));
        }
    };
    let key = |(partition, offset): &Place, event: &Event| {
        format!("{partition}/{offset} {}", String::from_utf8_lossy(&event.value))
    };
    let found = rows(folder, BRONZE)
        .await
        .iter()
        .flat_map(|batch| {
            let (places, values) = (places(batch, "partition", "offset"), text(batch, "value"));
            places.into_iter().zip(values).map(|((partition, offset), value)| format!("{partition}/{offset} {value}"))
        })
        .collect::<Vec<_>>();
    compare(BRONZE, counted(found), counted(events.iter().map(|(place, event)| key(place, event))));

    let id = |event: &Event| format!("id {}", event.id);
    let is_row = |event: &&Event| event.action == Action::Row;
    for table in silver {
        let batches = rows(folder, table).await;
        let ids = |batch: &RecordBatch| numbers(batch, "id");
        let found: Vec<(Place, i64)> = batches
            .iter()
            .flat_map(|batch| places(batch, "_partition", "_offset").into_iter().zip(ids(batch)))
            .collect();
        if *table == "deduplicated" {
            let mut expected = counted(events.values().filter(is_row).map(id));
            expected.values_mut().for_each(|times| *times = 1);
            compare(table, counted(found.iter().map(|(_, id)| format!("id {id}"))), expected);
        } else {
            let text = |(partition, offset): &Place, id: i64| format!("{partition}/{offset} id {id}");
            let expected = events.iter().filter(|(_, event)| is_row(event)).map(|(place, event)| text(place, event.id));
            compare(table, counted(found.iter().map(|(place, id)| text(place, *id))), counted(expected));
        }
    }

    let found = rows(folder, QUARANTINE)
        .await
        .iter()
        .flat_map(|batch| {
            let (tables, places) = (text(batch, "table"), places(batch, "partition", "offset"));
            tables.into_iter().zip(places).map(|(table, place)| format!("{table} {place:?}")).collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    let expected = events.iter().flat_map(|(place, event)| {
        let tables = match event.action {
            Action::Unrouted => vec!["unrouted"],
            Action::Reject | Action::Trap => silver.to_vec(),
            Action::Row | Action::Drop => Vec::new(),
        };
        tables.into_iter().map(move |table| format!("{table} {place:?}"))
    });
    compare(QUARANTINE, counted(found), counted(expected));
    wrong
}

/// How often each text is there.
fn counted(texts: impl IntoIterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for text in texts {
        *counted.entry(text).or_default() += 1;
    }
    counted
}

async fn rows(folder: &Path, table: &str) -> Vec<RecordBatch> {
    let path = folder.join(table);
    let Some(log) = open_log(&path).unwrap() else { return Vec::new() };
    let mut batches = Vec::new();
    for file in list_files(&log).await.unwrap() {
        let file = std::fs::File::open(path.join(file.path.as_ref())).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        batches.extend(reader.map(Result::unwrap));
    }
    batches
}

fn places(batch: &RecordBatch, partition: &str, offset: &str) -> Vec<Place> {
    let partitions = cast(batch.column_by_name(partition).unwrap(), &DataType::Int32).unwrap();
    let partitions = partitions.as_primitive::<Int32Type>().values().to_vec();
    partitions.into_iter().zip(numbers(batch, offset)).collect()
}

fn numbers(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn text(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = cast(batch.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}
