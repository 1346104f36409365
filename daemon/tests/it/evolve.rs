//! Tables that grow with their plugins, read back by two implementations of Delta.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, UInt8Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Int8Type, SchemaRef};
use serde_json::{Value, json};
use silverd::delta::{CommitError, Encoder, Spec, Table, writer_properties};
use silverd_core::config::Compression;
use silverd_core::rows::file_schema;
use silverd_core::schema::{Column, Kind, TableSchema};

use crate::harness::root;
use crate::truth;

fn column(name: &str, kind: Kind, nullable: bool, doc: &str) -> Column {
    Column { name: name.to_owned(), kind, nullable, doc: Some(doc.to_owned()) }
}

fn cases(cases: &[&str]) -> Kind {
    Kind::Enum(cases.iter().map(|case| (*case).to_owned()).collect())
}

fn schema(columns: Vec<Column>) -> TableSchema {
    TableSchema { interface: "test:silver/hits".to_owned(), doc: None, columns }
}

fn items(fields: Vec<Column>) -> Kind {
    Kind::List(Box::new(Column { name: "element".to_owned(), kind: Kind::Struct(fields), nullable: false, doc: None }))
}

fn first() -> TableSchema {
    let sku = column("sku", Kind::Utf8, false, "SKU.");
    schema(vec![
        column("id", Kind::Int64, false, "Id."),
        column("kind", cases(&["a", "b"]), false, "Kind."),
        column("note", Kind::Utf8, true, "Note."),
        column("items", items(vec![sku]), false, "Items."),
    ])
}

/// Another order, a narrower id, a case and two fields more, another comment, and no note.
fn second() -> TableSchema {
    let sku = column("sku", Kind::Utf8, false, "SKU.");
    let qty = column("qty", Kind::Int32, true, "Pieces.");
    schema(vec![
        column("kind", cases(&["b", "a", "c"]), false, "Kind of hit."),
        column("items", items(vec![qty, sku]), false, "Items."),
        column("id", Kind::Int32, false, "Id."),
        column("plan", Kind::Utf8, true, "Plan."),
    ])
}

/// Two rows, `id` and `id + 1`, of one of the schemas.
fn rows(schema: &SchemaRef, id: i64) -> RecordBatch {
    let ids = [id, id + 1];
    let text =
        |prefix: &str| Arc::new(StringArray::from_iter_values(ids.map(|id| format!("{prefix}{id}")))) as ArrayRef;
    let columns = schema.fields().iter().map(|field| match (field.name().as_str(), field.data_type()) {
        ("id", DataType::Int32) => Arc::new(Int32Array::from_iter_values(ids.map(|id| id as i32))) as ArrayRef,
        ("kind", _) => {
            let names: Vec<_> = field.metadata()["silverd.enum"].split(',').collect();
            let last = names.len() as u8 - 1;
            Arc::new(DictionaryArray::new(UInt8Array::from(vec![0, last]), Arc::new(StringArray::from(names))))
        }
        ("items", DataType::List(item)) => {
            let DataType::Struct(fields) = item.data_type() else { panic!("records") };
            let of = |name: &str| match name {
                "qty" => Arc::new(Int32Array::from(vec![None, Some(id as i32)])) as ArrayRef,
                _ => text("sku-"),
            };
            let columns = fields.iter().map(|field| of(field.name())).collect();
            let items = StructArray::new(fields.clone(), columns, None);
            Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths([2, 0]), Arc::new(items), None))
        }
        ("cluster_id" | "_cluster_id" | "topic" | "_topic", DataType::Dictionary(..)) => {
            Arc::new(["x", "x"].into_iter().collect::<DictionaryArray<Int8Type>>())
        }
        (_, DataType::Int32) => Arc::new(Int32Array::from(vec![0, 0])),
        (_, DataType::Int64) => Arc::new(Int64Array::from(ids.to_vec())),
        (_, DataType::Timestamp(..)) => Arc::new(TimestampMicrosecondArray::from(vec![0, 0]).with_timezone("UTC")),
        (name, _) => text(name),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

async fn open(path: &Path, schema: &TableSchema) -> anyhow::Result<Table> {
    let spec = Spec { name: "hits".to_owned(), path: path.to_path_buf(), schema: file_schema(schema), doc: None };
    Table::open(&spec).await
}

/// Writes two rows, as a worker does.
async fn append(table: &mut Table, schema: &TableSchema, id: i64) -> Result<u64, CommitError> {
    let compression = Compression::default();
    let properties = writer_properties(&compression).unwrap().build();
    let encoder = Encoder::new(table.layout().unwrap(), properties, &compression);
    let (file, bytes) = encoder.encode(0, &[rows(&file_schema(schema), id)]).unwrap();
    file.put(&table.store(), bytes).await.unwrap();
    Ok(table.append(vec![file], &[("x".to_owned(), id)], json!({})).await?.version)
}

/// What kinds of actions a commit has.
fn actions(path: &Path, version: u64) -> Vec<String> {
    let text = std::fs::read_to_string(path.join(format!("_delta_log/{version:020}.json"))).unwrap();
    let kind = |line: &str| serde_json::from_str::<Value>(line).unwrap().as_object().unwrap().keys().next().cloned();
    text.lines().filter_map(kind).filter(|kind| kind != "commitInfo").collect()
}

fn expected() -> Vec<Value> {
    let row = |id: i64, kind: &str, note: Value, items: Value, plan: Value| json!({ "id": id, "kind": kind, "note": note, "items": items, "plan": plan });
    let null = Value::Null;
    let old = |id: i64| {
        let items =
            json!([{ "sku": format!("sku-{id}"), "qty": null }, { "sku": format!("sku-{}", id + 1), "qty": null }]);
        [
            row(id, "a", json!(format!("note{id}")), items, null.clone()),
            row(id + 1, "b", json!(format!("note{}", id + 1)), json!([]), null.clone()),
        ]
    };
    let new = [
        row(
            2,
            "b",
            null.clone(),
            json!([{ "sku": "sku-2", "qty": null }, { "sku": "sku-3", "qty": 2 }]),
            json!("plan2"),
        ),
        row(3, "c", null.clone(), json!([]), json!("plan3")),
    ];
    old(0).into_iter().chain(new).chain(old(4)).chain(old(6)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_grows_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut table = open(path, &first()).await.unwrap();
    append(&mut table, &first(), 0).await.unwrap();
    let mut stale = open(path, &first()).await.unwrap();

    let mut table = open(path, &second()).await.unwrap();
    let fit = table.fit();
    let told = fit.changes.iter().map(ToString::to_string).chain(fit.notices.iter().map(ToString::to_string));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "field `kind`: another comment",
            "field `kind`: takes the cases c",
            "field `items[].qty`: added, integer or null",
            "field `plan`: added, string or null",
            "field `id`: the plugin's integer is written as the table's long",
            "field `note`: the plugin no longer gives it; it stays in the table, null in new rows",
        ]
    );
    // Progress alone changes nothing; the rows come with the change, in one entry of the log.
    table.append(Vec::new(), &[("x".to_owned(), 1)], json!({})).await.unwrap();
    assert_eq!(actions(path, 2), ["txn"]);
    let mut beside = open(path, &second()).await.unwrap();
    append(&mut table, &second(), 2).await.unwrap();
    let mut kinds = actions(path, 3);
    kinds.sort();
    assert_eq!(kinds, ["add", "metaData", "txn"]);
    table.append(Vec::new(), &[("x".to_owned(), 3)], json!({})).await.unwrap();

    // Who had the table open before sees that it is another one, and goes on with it once it has read the log.
    for (late, schema) in [(&mut stale, first()), (&mut beside, second())] {
        let found = append(late, &schema, 9).await.unwrap_err();
        assert!(matches!(found, CommitError::Fenced { .. } | CommitError::Changed(3)), "{found}");
        late.reload().await.unwrap();
    }
    assert!(beside.fit().changes.is_empty());
    append(&mut stale, &first(), 4).await.unwrap();

    // The plugin of before fits; the table stays as it has grown.
    let mut table = open(path, &first()).await.unwrap();
    let version = append(&mut table, &first(), 6).await.unwrap();
    assert!(!actions(path, version).contains(&"metaData".to_owned()));

    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || read_back(&path)).await.unwrap();
}

fn read_back(path: &Path) {
    let columns = ["id", "kind", "note", "items", "plan"];
    let of = |row: &serde_json::Map<String, Value>| -> Value {
        columns.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect()
    };
    let mut ours: Vec<_> = truth::rows(path).iter().map(of).collect();
    ours.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(ours, expected());

    let Ok(python) = std::env::var("SILVERD_TEST_PYTHON") else {
        eprintln!("SILVERD_TEST_PYTHON is not set: no second implementation of Delta reads the table");
        return;
    };
    let dump = path.join("rows.jsonl");
    let output = Command::new(&python)
        .arg(root().join(".ci/check_delta.py"))
        .arg(path)
        .args(["--columns", &columns.join(","), "--sort-by", "id", "--rows-json", dump.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<Value> =
        std::fs::read_to_string(&dump).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(theirs, expected());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let column = |name: &str| {
        let schema = report["schema"].as_array().unwrap();
        schema.iter().find(|column| column["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert_eq!(column("id"), json!({ "name": "id", "type": "long", "nullable": false, "comment": "Id." }));
    assert_eq!(column("plan"), json!({ "name": "plan", "type": "string", "nullable": true, "comment": "Plan." }));
    assert_eq!(column("kind")["comment"], "Kind.", "the plugin of before has the last word on its comments");
}

/// What cannot be is refused before anything is written, with a plan.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_grow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut table = open(path, &first()).await.unwrap();
    append(&mut table, &first(), 0).await.unwrap();
    let mut bad = first();
    bad.columns[0].kind = Kind::Utf8;
    bad.columns[1].kind = cases(&["a", "z"]);
    bad.columns[2].nullable = false;
    bad.columns[3] = column("more", Kind::Bool, false, "More.");
    let refused = open(path, &bad).await.err().unwrap();
    assert_eq!(
        format!("{refused:#}"),
        format!(
            "open table hits in {}: the plugin's row does not fit the table that stands there:\n  \
             field `id`: the table has long, the plugin declares string; a column keeps its type: declare it as `s64`, or \
             name the new field otherwise\n  \
             field `kind`: the table has enum a, b, the plugin declares enum a, z; a renamed case would part its rows in \
             two: keep the old cases beside the new ones\n  \
             field `note`: the table has string or null, the plugin declares string; there may be nulls in it already: \
             declare it as `option<…>`\n  \
             field `items`: the table has array<struct<sku: string>>, the plugin declares nothing; a column that is never \
             null cannot be left out: keep the field\n  \
             field `more`: the table has nothing, the plugin declares boolean; the rows that stand there have no value for \
             it: declare it as `option<…>`\n\
             Change the plugin as said, or let the table be made anew from Bronze: under another `path` in pipeline.toml, \
             beside the old one, or in its place, by removing its folder while silverd is stopped",
            path.display()
        )
    );
    assert_eq!(std::fs::read_dir(path.join("_delta_log")).unwrap().count(), 2);
}

/// A wider type writes the table's files anew, in one commit; a writer of before notices, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_becomes_wider() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut narrow = first();
    narrow.columns[0].kind = Kind::Int32;
    let mut table = open(path, &narrow).await.unwrap();
    append(&mut table, &narrow, 0).await.unwrap();
    append(&mut table, &narrow, 2).await.unwrap();

    let mut wide = open(path, &first()).await.unwrap();
    let told: Vec<_> = wide.fit().changes.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["field `id`: widened from integer to long; the table's files are written anew"]);
    let early = append(&mut wide, &first(), 9).await.unwrap_err();
    assert!(early.to_string().contains("columns must be widened before rows of their type are added"), "{early}");
    // Rows of the narrow type come in between, and are widened with the others.
    append(&mut table, &narrow, 4).await.unwrap();
    let encoder = Encoder::new(
        wide.layout().unwrap(),
        writer_properties(&Compression::default()).unwrap().build(),
        &Compression::default(),
    );
    wide.widen(&encoder).await.unwrap();
    assert!(wide.fit().changes.is_empty());
    let kinds = actions(path, wide.version());
    assert_eq!(kinds.iter().filter(|kind| *kind == "add").count(), 3, "{kinds:?}");
    assert!(kinds.contains(&"metaData".to_owned()), "{kinds:?}");
    append(&mut wide, &first(), 6).await.unwrap();
    let late = append(&mut table, &narrow, 9).await.unwrap_err();
    assert!(matches!(late, CommitError::Changed(_) | CommitError::Fenced { .. }), "{late}");
    table.reload().await.unwrap();
    append(&mut table, &narrow, 8).await.unwrap();

    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || widened(&path)).await.unwrap();
}

fn widened(path: &Path) {
    let ids = |path: &Path| {
        let mut ids: Vec<_> = truth::rows(path).iter().map(|row| row["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(path), (0..10).collect::<Vec<_>>());
    let Ok(python) = std::env::var("SILVERD_TEST_PYTHON") else { return };
    let script = "import sys, deltalake\n\
                  rows = lambda **at: sorted((r, str(t.type)) for t in [deltalake.DeltaTable(sys.argv[1], **at).to_pyarrow_table()['id']] for r in t.to_pylist())\n\
                  assert rows() == [(i, 'int64') for i in range(10)], rows()\n\
                  assert rows(version=2) == [(i, 'int32') for i in range(4)], rows(version=2)\n\
                  # Arrow's threads may abort an interpreter that ends in order.\n\
                  import os; os._exit(0)\n";
    let output = Command::new(&python).args(["-c", script]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
