//! Table features that another engine switches on.

use std::fs;
use std::path::Path;

use roaring::RoaringTreemap;
use serde_json::{Value, json};

use super::super::harness::{
    Daemon, Project, SILVER, actions, commit_as_other_engine, entries, expected, finding_kinds, rows, until, verify,
};
use super::{drained, metadata};

fn with_properties(table: &Path, properties: &[(&str, &str)]) -> Value {
    let mut metadata = metadata(table);
    for (key, value) in properties {
        metadata["configuration"][*key] = json!(value);
    }
    json!({ "metaData": metadata })
}

/// Metadata of a table with column mapping.
fn with_column_mapping(table: &Path) -> Value {
    fn annotate(ty: &mut Value, id: &mut u32) {
        if let Some(element) = ty.get_mut("elementType") {
            annotate(element, id);
        }
        for field in ty.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
            *id += 1;
            field["metadata"]["delta.columnMapping.id"] = json!(*id);
            field["metadata"]["delta.columnMapping.physicalName"] = field["name"].clone();
            annotate(&mut field["type"], id);
        }
    }
    let mut action = with_properties(table, &[("delta.columnMapping.mode", "name")]);
    let mut schema: Value = serde_json::from_str(action["metaData"]["schemaString"].as_str().unwrap()).unwrap();
    let mut id = 0;
    annotate(&mut schema, &mut id);
    action["metaData"]["schemaString"] = json!(schema.to_string());
    action["metaData"]["configuration"]["delta.columnMapping.maxColumnId"] = json!(id.to_string());
    action
}

fn writer(version: u32) -> Value {
    json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": version } })
}

fn named(reader: &[&str], writer: &[&str]) -> Value {
    let writer: Vec<_> = reader.iter().chain(writer).chain(&["appendOnly", "invariants"]).collect();
    json!({ "protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer } })
}

/// Another drain of 500 events ends well.
fn goes_on(project: &Project) {
    project.generate(&["--count", "500", "--seed", "6"]);
    project.silverd(&["run", "--drain"]);
}

/// As the protocol says: in Z85, groups of four bytes.
fn z85(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let mut text = String::new();
    for group in bytes.chunks(4) {
        let mut padded = [0; 4];
        padded[..group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes(padded);
        text.extend((0..5).rev().map(|place| DIGITS[(number / 85u32.pow(place) % 85) as usize] as char));
    }
    text
}

/// Deletes rows of the newest file by a deletion vector in the log.
fn delete_rows(table: &Path, deleted: &[u64]) {
    let all: Vec<_> = entries(table).values().flat_map(|entry| actions(entry)).collect();
    let add = all.iter().rev().find_map(|action| action.get("add")).unwrap();
    let mut bytes = 1_681_511_377_u32.to_le_bytes().to_vec();
    deleted.iter().collect::<RoaringTreemap>().serialize_into(&mut bytes).unwrap();
    let vector = json!({
        "storageType": "i", "pathOrInlineDv": z85(&bytes), "sizeInBytes": bytes.len(), "cardinality": deleted.len() });
    let mut added = add.clone();
    added["deletionVector"] = vector;
    let remove = json!({ "path": add["path"], "dataChange": true, "deletionTimestamp": 1, "extendedFileMetadata": true,
        "partitionValues": add["partitionValues"], "size": add["size"] });
    commit_as_other_engine(
        table,
        &[named(&["deletionVectors"], &[]), json!({ "remove": remove }), json!({ "add": added })],
    );
}

fn count(project: &Project, table: &str) -> usize {
    project.query(&format!("SELECT count(*) AS n FROM {table}"))[0]["n"].as_u64().unwrap() as usize
}

fn listed(project: &Project, table: &str) -> usize {
    project.query(&format!("SELECT _offset FROM {table}")).len()
}

#[test]
fn rows_that_a_deletion_vector_deletes_are_not_read() {
    let project = drained("deletion-vectors");
    let before = expected::check(&project);
    for table in ["bronze", "page_view"] {
        delete_rows(&project.path(table), &[0, 2, 3]);
        assert_eq!(count(&project, table), before[table] - 3, "{table}");
    }
    assert_eq!(listed(&project, "page_view"), before["page_view"] - 3);
    let project_sum = |table: &str| project.query(&format!("SELECT sum(_offset) AS n FROM {table}"));
    let sum = project_sum("page_view");
    // Compaction writes the files without them.
    project.silverd(&["maintain", "page_view"]);
    assert_eq!((count(&project, "page_view"), project_sum("page_view")), (before["page_view"] - 3, sum));
    goes_on(&project);
    assert!(count(&project, "page_view") > before["page_view"] - 3);
    assert_eq!(count(&project, "bronze"), before["bronze"] - 3 + 500);
}

#[test]
fn in_commit_timestamps_are_written() {
    let project = drained("in-commit-timestamps");
    let path = project.path("page_view");
    let future = 4_000_000_000_000_i64;
    let info =
        json!({ "commitInfo": { "inCommitTimestamp": future, "timestamp": future, "operation": "SET TBLPROPERTIES" } });
    let properties = with_properties(&path, &[("delta.enableInCommitTimestamps", "true")]);
    commit_as_other_engine(&path, &[info, named(&[], &["inCommitTimestamp"]), properties]);
    let version = entries(&path).into_keys().next_back().unwrap();
    goes_on(&project);
    expected::check(&project);
    let mut last = future;
    for (version, entry) in entries(&path).range(version + 1..) {
        let first = actions(entry).into_iter().next().unwrap();
        let at = first["commitInfo"]["inCommitTimestamp"].as_i64().unwrap_or_else(|| panic!("{version}: {first}"));
        assert!(at > last, "{version}: {at} after {last}");
        last = at;
    }
    assert!(last > future, "there were commits");
}

#[test]
fn constraints_are_checked() {
    let project = drained("constraints");
    let path = project.path("add_to_cart");
    commit_as_other_engine(
        &path,
        &[writer(3), with_properties(&path, &[("delta.constraints.some", "qty > 0 AND _offset >= 0")])],
    );
    goes_on(&project);
    let counts = expected::check(&project);

    commit_as_other_engine(&path, &[with_properties(&path, &[("delta.constraints.dear", "price > 1000000")])]);
    project.generate(&["--count", "500", "--seed", "7"]);
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("violate the constraint `dear` (price > 1000000)"), "{errors}");
    assert!(
        errors.contains("DROP CONSTRAINT dear") && errors.contains("partition") && errors.contains("offset"),
        "{errors}"
    );
    assert_eq!(rows(&path).len(), counts["add_to_cart"], "nothing of it is committed");
    assert!(rows(&project.path("bronze")).len() > counts["bronze"], "the others go on");
    assert!(rows(&project.path("page_view")).len() > counts["page_view"], "the others go on");

    let mut without = with_properties(&path, &[]);
    without["metaData"]["configuration"].as_object_mut().unwrap().remove("delta.constraints.dear");
    commit_as_other_engine(&path, &[without]);
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
}

/// Rows are appended; a correction, which replaces rows, is refused with the property.
#[test]
fn tables_that_only_grow_are_not_corrected() {
    for (name, protocol, property) in
        [("append-only", 2, "delta.appendOnly"), ("change-data-feed", 4, "delta.enableChangeDataFeed")]
    {
        let project = drained(name);
        for table in ["bronze", "page_view", "quarantine"] {
            let path = project.path(table);
            commit_as_other_engine(&path, &[writer(protocol), with_properties(&path, &[(property, "true")])]);
        }
        goes_on(&project);
        expected::check(&project);
        let errors = project.silverd_fails(&["rebuild", "page_view"], 1);
        assert!(errors.contains(property) && errors.contains("SET TBLPROPERTIES"), "{errors}");
        project.silverd(&["maintain"]);
        expected::check(&project);
    }
}

/// What silverd cannot write stops that table alone.
#[test]
fn features_that_silverd_cannot_write_are_named() {
    let cases = [
        ("columnMapping", json!({ "protocol": { "minReaderVersion": 2, "minWriterVersion": 5 } })),
        ("rowTracking", named(&[], &["rowTracking", "domainMetadata"])),
        ("icebergCompatV1", named(&[], &["icebergCompatV1"])),
    ];
    let project = drained("unknown-features");
    let before = rows(&project.path("bronze")).len();
    for (table, (feature, protocol)) in SILVER.iter().zip(cases) {
        let path = project.path(table);
        let metadata = match feature {
            "columnMapping" => with_column_mapping(&path),
            _ => with_properties(&path, &[]),
        };
        commit_as_other_engine(&path, &[protocol, metadata]);
        project.generate(&["--count", "200", "--seed", "6"]);
        let errors = project.silverd_fails(&["run", "--drain"], 1);
        assert!(errors.contains(&format!("switched on the table feature `{feature}`")), "{errors}");
        assert!(errors.contains(&format!("DROP FEATURE {feature}")) && errors.contains("`path`"), "{errors}");
    }
    assert_eq!(rows(&project.path("bronze")).len(), before + 600, "bronze goes on");
    let (report, code) = verify(project.folder.path(), &[]);
    for table in SILVER {
        assert!(finding_kinds(&report).contains(&format!("{table}: not-writable")), "{report:#}");
    }
    assert_eq!(code, Some(1));
}

#[test]
fn columns_that_another_engine_renamed_are_read() {
    let project = drained("column-mapping");
    let counts = expected::check(&project);
    let path = project.path("page_view");
    let of_url = |column: &str| {
        let sql = format!(
            "SELECT {column} AS url, count(*) AS n FROM page_view WHERE {column} LIKE '/p%' GROUP BY 1 ORDER BY 1"
        );
        project.query(&sql)
    };
    let before = of_url("url");
    assert!(!before.is_empty());
    let mut renamed = with_column_mapping(&path);
    let schema = renamed["metaData"]["schemaString"].as_str().unwrap();
    let schema = schema.replace(r#""name":"url""#, r#""name":"page""#);
    renamed["metaData"]["schemaString"] = json!(schema);
    commit_as_other_engine(&path, &[json!({ "protocol": { "minReaderVersion": 2, "minWriterVersion": 5 } }), renamed]);
    assert_eq!(of_url("page"), before);
    assert_eq!(count(&project, "page_view"), counts["page_view"]);
    let all = project.query("SELECT * FROM page_view WHERE event_date >= DATE '2000-01-01' LIMIT 1");
    assert!(all[0].get("page").is_some() && all[0].get("url").is_none(), "{all:?}");
}

/// A daemon waits for somebody to change Bronze again, and the dashboard is there meanwhile.
#[test]
fn a_daemon_starts_while_bronze_cannot_be_written() {
    let project = drained("bronze-refused");
    let path = project.path("bronze");
    let before = rows(&path).len();
    commit_as_other_engine(
        &path,
        &[json!({ "protocol": { "minReaderVersion": 2, "minWriterVersion": 5 } }), with_column_mapping(&path)],
    );
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until_logged("table feature `columnMapping`", 1);
    assert_eq!(daemon.get("/health/live").status, 200);
    let ready = daemon.get("/health/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("table feature `columnMapping`"), "{}", ready.body);
    project.generate(&["--count", "500", "--seed", "6"]);
    commit_as_other_engine(&path, &[with_properties(&path, &[("delta.columnMapping.mode", "none")])]);
    until("bronze is written again", || daemon.get("/health/ready").status == 200);
    daemon.until("all events", |_| rows(&path).len() == before + 500);
}

/// The retention that somebody set is respected, and not changed.
#[test]
fn a_retention_that_somebody_set_stays() {
    let project = drained("retention-of-others");
    project.silverd(&["maintain"]);
    let path = project.path("page_view");
    let own = metadata(&path)["configuration"]["delta.logRetentionDuration"].clone();
    assert!(own.as_str().unwrap().ends_with("seconds"), "{own}");
    let theirs =
        [("delta.logRetentionDuration", "interval 90 days"), ("delta.deletedFileRetentionDuration", "interval 1 week")];
    commit_as_other_engine(&path, &[with_properties(&path, &theirs)]);
    project.silverd(&["maintain"]);
    for (key, value) in theirs {
        assert_eq!(metadata(&path)["configuration"][key], value, "{key}");
    }
}

/// A checkpoint of the second kind, after which nothing of the log before it is left.
#[test]
fn v2_checkpoints_are_read() {
    let project = drained("v2-checkpoint");
    let path = project.path("page_view");
    commit_as_other_engine(
        &path,
        &[named(&["v2Checkpoint"], &[]), with_properties(&path, &[("delta.checkpointPolicy", "v2")])],
    );
    let log = entries(&path);
    let (version, mut state, mut txns) = (*log.keys().next_back().unwrap(), Vec::new(), Vec::new());
    for action in log.values().flat_map(|entry| actions(entry)) {
        let kind = action.as_object().unwrap().keys().next().unwrap().clone();
        match kind.as_str() {
            "add" => state.push(action),
            "protocol" | "metaData" => {
                state.retain(|other: &Value| other.get(&kind).is_none());
                state.push(action);
            }
            "txn" => {
                txns.retain(|other: &Value| other["txn"]["appId"] != action["txn"]["appId"]);
                txns.push(action);
            }
            _ => {}
        }
    }
    let lines: Vec<_> =
        [json!({ "checkpointMetadata": { "version": version } })].into_iter().chain(state).chain(txns).collect();
    let name = format!("{version:020}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json");
    let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    fs::write(path.join("_delta_log").join(name), text).unwrap();
    for entry in log.values() {
        fs::remove_file(entry).unwrap();
    }
    goes_on(&project);
    expected::check(&project);
    project.silverd(&["maintain"]);
    expected::check(&project);
}
