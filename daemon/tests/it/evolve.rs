//! Tables that grow with their plugins, read back by two implementations of Delta.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, UInt8Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use serde_json::{Value, json};
use silverd::delta::{CommitError, Encoder, Table, TableSpec, writer_properties};
use silverd_core::config::Compression;
use silverd_core::rows::file_schema;
use silverd_core::schema::{Column, Kind, TableSchema};
use silverd_core::zone::Zone;

use crate::harness::{self, python};

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
        ("cluster_id" | "_cluster_id" | "topic" | "_topic", few_values @ DataType::Dictionary(..)) => {
            cast(&StringArray::from(vec!["x", "x"]), few_values).unwrap()
        }
        (_, DataType::Int32) => Arc::new(Int32Array::from(vec![0, 0])),
        (_, DataType::Int64) => Arc::new(Int64Array::from(ids.to_vec())),
        (_, DataType::Timestamp(..)) => Arc::new(TimestampMicrosecondArray::from(vec![0, 0]).with_timezone("UTC")),
        (name, _) => text(name),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

async fn open(path: &Path, schema: &TableSchema) -> anyhow::Result<Table> {
    let (name, path) = ("hits".to_owned(), path.to_path_buf());
    let spec = TableSpec { name, path, schema: file_schema(schema), doc: None, time_zone: Zone::UTC };
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

/// The kinds of actions in a commit.
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
async fn table_evolves_and_accepts_the_earlier_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut table = open(path, &first()).await.unwrap();
    append(&mut table, &first(), 0).await.unwrap();
    let mut stale = open(path, &first()).await.unwrap();

    let mut table = open(path, &second()).await.unwrap();
    let fit = table.fit();
    let reported = fit.changes.iter().map(ToString::to_string).chain(fit.notices.iter().map(ToString::to_string));
    assert_eq!(
        reported.collect::<Vec<_>>(),
        [
            "field `kind`: comment changed",
            "field `kind`: cases added: c",
            "field `items[].qty`: added, integer or null",
            "field `plan`: added, string or null",
            "field `id`: the plugin's integer is written as the table's long",
            "field `note`: the plugin no longer returns it; the column stays, and is null in new rows",
        ]
    );
    // A commit of progress alone does not change the schema; the first rows and the change are one log entry.
    table.append(Vec::new(), &[("x".to_owned(), 1)], json!({})).await.unwrap();
    assert_eq!(actions(path, 2), ["txn"]);
    let mut concurrent = open(path, &second()).await.unwrap();
    append(&mut table, &second(), 2).await.unwrap();
    let mut kinds = actions(path, 3);
    kinds.sort();
    assert_eq!(kinds, ["add", "metaData", "txn"]);
    table.append(Vec::new(), &[("x".to_owned(), 3)], json!({})).await.unwrap();

    // A writer that opened the table before notices the change, and can write again after it has read the log.
    for (late, schema) in [(&mut stale, first()), (&mut concurrent, second())] {
        let found = append(late, &schema, 9).await.unwrap_err();
        assert!(matches!(found, CommitError::Fenced { .. } | CommitError::MetadataChanged(3)), "{found}");
        late.reload().await.unwrap();
    }
    assert!(concurrent.fit().changes.is_empty());
    append(&mut stale, &first(), 4).await.unwrap();

    // The earlier plugin still fits; the table keeps its new columns.
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
    let mut ours: Vec<_> = harness::rows(path).iter().map(of).collect();
    ours.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(ours, expected());

    let dump = path.join("rows.jsonl");
    let names = columns.join(",");
    let args = ["--columns", &names, "--sort-by", "id", "--rows-json", dump.to_str().unwrap()];
    let Some(report) = python::check_delta(path, &args) else { return };
    let theirs: Vec<Value> =
        std::fs::read_to_string(&dump).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(theirs, expected());
    let column = |name: &str| {
        let schema = report["schema"].as_array().unwrap();
        schema.iter().find(|column| column["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert_eq!(column("id"), json!({ "name": "id", "type": "long", "nullable": false, "comment": "Id." }));
    assert_eq!(column("plan"), json!({ "name": "plan", "type": "string", "nullable": true, "comment": "Plan." }));
    assert_eq!(column("kind")["comment"], "Kind.", "the comment is that of the plugin that wrote last");
}

/// An incompatible schema is rejected before anything is written, with instructions.
#[tokio::test(flavor = "multi_thread")]
async fn incompatible_schema_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut table = open(path, &first()).await.unwrap();
    append(&mut table, &first(), 0).await.unwrap();
    let mut bad = first();
    bad.columns[0].kind = Kind::Utf8;
    bad.columns[1].kind = cases(&["a", "z"]);
    bad.columns[2].nullable = false;
    bad.columns[3] = column("more", Kind::Bool, false, "More.");
    let error = open(path, &bad).await.err().unwrap();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "open table hits in {}: the plugin's row does not fit the existing table:\n  \
             field `id`: the table has long, the plugin declares string; the type of a column cannot change: declare it as `s64`, or \
             give the new field another name\n  \
             field `kind`: the table has enum a, b, the plugin declares enum a, z; renaming a case would \
             split the rows in two: keep the old cases and add the new ones\n  \
             field `items`: the table has array<struct<sku: string or null>>, the plugin declares nothing; a non-null column \
             cannot be omitted: keep the field\n  \
             field `more`: the table has nothing, the plugin declares boolean; existing rows have no value for it: \
             declare it as `option<…>`\n\
             Change the plugin as described, or let silverd rebuild the table from Bronze: set another `path` in \
             pipeline.toml, or remove the table's folder while silverd is stopped",
            path.display()
        )
    );
    assert_eq!(std::fs::read_dir(path.join("_delta_log")).unwrap().count(), 2);
}

/// One commit rewrites the table's files with the wider type; an earlier writer notices it, and can write again.
#[tokio::test(flavor = "multi_thread")]
async fn column_is_widened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut narrow = first();
    narrow.columns[0].kind = Kind::Int32;
    let mut table = open(path, &narrow).await.unwrap();
    append(&mut table, &narrow, 0).await.unwrap();
    append(&mut table, &narrow, 2).await.unwrap();

    let mut wide = open(path, &first()).await.unwrap();
    let reported: Vec<_> = wide.fit().changes.iter().map(ToString::to_string).collect();
    assert_eq!(reported, ["field `id`: widened from integer to long; the table's files are rewritten"]);
    let early = append(&mut wide, &first(), 9).await.unwrap_err();
    assert!(early.to_string().contains("columns must be widened before rows of their type are added"), "{early}");
    // Rows of the narrow type that are committed in between are widened, too.
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
    assert!(matches!(late, CommitError::MetadataChanged(_) | CommitError::Fenced { .. }), "{late}");
    table.reload().await.unwrap();
    append(&mut table, &narrow, 8).await.unwrap();

    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || check_widened(&path)).await.unwrap();
}

fn check_widened(path: &Path) {
    let ids = |path: &Path| {
        let mut ids: Vec<_> = harness::rows(path).iter().map(|row| row["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(path), (0..10).collect::<Vec<_>>());
    python::run("check_widened.py", &[path.to_str().unwrap()]);
}
