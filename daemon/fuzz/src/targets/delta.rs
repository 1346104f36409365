//! Files of a Delta log that another engine has written, or that a disk has damaged.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ReaderBuilder;
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use silverd::fuzzing;
use silverd_core::verify::Entry;

use super::edits::edited;
use super::planted;

/// The readers of an entry agree on its application ids, and read the same actions again.
pub fn log_entry(text: &[u8]) {
    let entry = Entry::parse(0, text);
    assert_eq!(entry, Entry::parse(0, text));
    let ids = fuzzing::log_entry(text);
    // One reader looks for keys in the text, where they are not written with escapes or in the form of an array.
    let is_plain = |line: &[u8]| line.trim_ascii().is_empty() || line.trim_ascii().starts_with(b"{");
    let is_plain = !text.contains(&b'\\') && text.split(|byte| *byte == b'\n').all(is_plain);
    if let (Ok(entry), Ok(ids), true) = (&entry, &ids, is_plain) {
        let of_entry: HashMap<String, i64> = entry.txns.iter().cloned().collect();
        assert_eq!(of_entry, *ids);
    }
    planted(|| ids.is_ok() && entry.is_ok_and(|entry| entry.txns.len() >= 3 && entry.adds.len() >= 2));
}

const CHECKPOINT: &str = r#"
{"protocol":{"minReaderVersion":3}}
{"metaData":{"id":"x","configuration":{"delta.appendOnly":"true"}}}
{"txn":{"appId":"silverd:c:t:0","version":3}}
{"txn":{"appId":"silverd:c:t:1","version":4}}
{"add":{"path":"a","size":1,"stats":"{}"}}
"#;

/// A checkpoint in Parquet.
static PARQUET: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let field = |name: &str, ty: DataType| Field::new(name, ty, true);
    let action = |name: &str, fields: Vec<Field>| field(name, DataType::Struct(fields.into()));
    let entries = vec![Field::new("key", DataType::Utf8, false), field("value", DataType::Utf8)];
    let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
    let properties = DataType::Map(Arc::new(entries), false);
    let schema = Arc::new(Schema::new(vec![
        action("protocol", vec![field("minReaderVersion", DataType::Int32)]),
        action("metaData", vec![field("id", DataType::Utf8), field("configuration", properties)]),
        action("txn", vec![field("appId", DataType::Utf8), field("version", DataType::Int64)]),
        action("add", vec![field("path", DataType::Utf8), field("size", DataType::Int64)]),
    ]));
    let mut rows = ReaderBuilder::new(schema.clone()).build(CHECKPOINT.as_bytes()).expect("a reader");
    let rows = rows.next().expect("a batch").expect("valid rows");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).expect("a writer");
    writer.write(&rows).expect("the rows fit");
    writer.close().expect("the file is written");
    let (ids, verified) = fuzzing::checkpoint("parquet", &bytes);
    assert!(verified.is_ok() && ids.as_ref().is_ok_and(|ids| ids.len() == 2), "{ids:?}, {verified:?}");
    bytes
});

/// A panic of the Parquet reader is an error of the file, which silverd catches; all others end the run.
static PARQUET_MAY_PANIC: LazyLock<()> = LazyLock::new(|| {
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("/parquet-")) {
            end(panic);
        }
    }));
});

/// A checkpoint in JSON, or edits of one in Parquet.
pub fn checkpoint(bytes: &[u8]) {
    LazyLock::force(&PARQUET_MAY_PANIC);
    if !bytes.first().is_some_and(|first| b"{\n ".contains(first)) {
        let (ids, verified) = fuzzing::checkpoint("parquet", &edited(&PARQUET, bytes));
        for reason in [ids.err(), verified.err()].into_iter().flatten() {
            assert!(!reason.is_empty());
        }
        return;
    }
    let (ids, verified) = fuzzing::checkpoint("80a083e8-7026-4e79-81be-64bd76c43a11.json", bytes);
    let Ok(()) = verified else { return };
    let ids = ids.expect("the ids of a checkpoint that is intact");
    if let Some(expected) = ids_in(bytes) {
        assert_eq!(ids, expected);
    }
    planted(|| ids.len() >= 3);
}

/// The application ids, read by serde_json; `None` if readers may differ: a key is there twice, or a value has another type.
fn ids_in(bytes: &[u8]) -> Option<HashMap<String, i64>> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\\'))?;
    let mut ids = HashMap::new();
    let mut actions = 0;
    for action in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let action = action.ok()?;
        let Some(txn) = action.as_object()?.get("txn") else { continue };
        ids.insert(txn.get("appId")?.as_str()?.to_owned(), txn.get("version")?.as_i64()?);
        actions += 1;
    }
    let is_once = |key: &str| text.matches(key).count() == actions;
    ["\"txn\"", "\"appId\"", "\"version\""].into_iter().all(is_once).then_some(ids)
}
