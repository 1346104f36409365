//! The shop's plugins before and after the contract's version 0.2: those of `fixtures/made_before` parse raw JSON for
//! themselves, those of `plugins/` get typed input. What the former accept, the latter accept with the same rows; and no
//! batching of the events makes a difference.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use silverd::plugin::{Config, Limits, Plugin, ReferenceFile, TransformOutput, Transformer, build};
use silverd_core::chunk::Chunk;
use silverd_core::generate::{Generator, Options};
use silverd_core::rows::file_schema;

use crate::harness::hostile_guest::{HOST, chunk, transform};
use crate::harness::{SILVER, fixture, root};

/// The wasm of each of the shop's tables, as it was built with the contract's first version.
static BEFORE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = PathBuf::from(fixture("made_before")).join("data/.silverd/plugins");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.collect()
});

fn config(table: &str) -> Config {
    let contents = std::fs::read(root().join("data/reference/products.csv")).unwrap();
    let products = ReferenceFile { name: "products".to_owned(), contents };
    Config {
        settings: Vec::new(),
        reference: if table == "page_view" { Vec::new() } else { vec![products] },
        wit: None,
    }
}

fn before(table: &str) -> Transformer {
    let interface = format!("/{}@", table.replace('_', "-"));
    let plugins = BEFORE
        .iter()
        .filter_map(|wasm| Plugin::compile(HOST.clone(), table, wasm, config(table), Limits::default()).ok());
    let plugin = plugins.into_iter().find(|plugin| plugin.schema.interface.contains(&interface));
    Transformer::new(Arc::new(plugin.unwrap_or_else(|| panic!("made_before has a plugin of {table}"))))
}

fn now(table: &str, limits: Limits) -> Transformer {
    let wasm = std::fs::read(build::wasm_of(&root().join("plugins").join(table)).unwrap()).unwrap();
    Transformer::new(Arc::new(Plugin::compile(HOST.clone(), table, &wasm, config(table), limits).unwrap()))
}

/// The rows, without the comments of their columns, which have changed.
fn rows(transformer: &Transformer, output: &TransformOutput) -> RecordBatch {
    let rows = concat_batches(&file_schema(&transformer.plugin().schema), &output.rows).unwrap();
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| (field.name().clone(), column.clone(), field.is_nullable()));
    RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>()).unwrap()
}

fn offsets(rows: &RecordBatch) -> BTreeSet<i64> {
    rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().values().iter().copied().collect()
}

/// The events of a table, generated, and those of the fixture.
fn events(table: &str) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(Options { seed: 7, ..Options::default() });
    let generated = (0..6_000).map(|_| generator.next(1_750_000_000_000_000).value);
    let fixture = std::fs::read(fixture("shop-events.jsonl")).unwrap();
    let lines = fixture.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec);
    let name = format!("\"{table}\"");
    generated.chain(lines).filter(|event| String::from_utf8_lossy(event).contains(&name)).collect()
}

/// Events with a byte changed, added or removed, cut off, or with a member twice.
fn damaged(events: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(11);
    let mut damage = |event: &Vec<u8>| {
        let mut event = event.clone();
        let at = random.random_range(0..event.len());
        match random.random_range(0..6) {
            0 => event[at] = random.random(),
            1 => event[at] = b"{}[]\",:\\0 9-n"[random.random_range(0..13)],
            2 => drop(event.remove(at)),
            3 => event.insert(at, b"{}[]\",:\\0 9-n"[random.random_range(0..13)]),
            4 => event.truncate(at),
            _ => {
                let twice = [b"{\"user_id\": \"first\", ", &event[1..]].concat();
                event = twice;
            }
        }
        event
    };
    events.iter().flat_map(|event| [damage(event), damage(event)]).collect()
}

fn chunk_of(events: &[Vec<u8>]) -> Chunk {
    // The harness makes a chunk of texts; most damaged events are.
    chunk(events.iter().map(|event| String::from_utf8_lossy(event).into_owned()))
}

#[test]
fn typed_input_gives_the_rows_of_the_plugins_before() {
    for table in SILVER {
        let good = events(table);
        let (mut before, mut now) = (before(table), now(table, Limits::default()));
        let chunk = chunk_of(&good);
        let (old, new) = (transform(&mut before, &chunk), transform(&mut now, &chunk));
        assert!(old.counts.rows > 300, "{table}: {:?}", old.counts);
        assert_eq!(old.counts, new.counts, "{table}");
        assert_eq!(rows(&before, &old), rows(&now, &new), "{table}");

        let chunk = chunk_of(&damaged(&good));
        let (old, new) = (transform(&mut before, &chunk), transform(&mut now, &chunk));
        assert!(old.counts.rows > 100 && old.counts.rejected > 100, "{table}: {:?}", old.counts);
        let (old, new) = (rows(&before, &old), rows(&now, &new));
        let accepted = offsets(&old);
        let lost: Vec<_> = accepted.difference(&offsets(&new)).copied().collect();
        let event = lost.first().map(|at| String::from_utf8_lossy(chunk.values().value(*at as usize)));
        assert!(lost.is_empty(), "{table} loses {} events, such as {event:?}", lost.len());
        let found = new.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
        let shared: BooleanArray = found.values().iter().map(|at| Some(accepted.contains(at))).collect();
        assert_eq!(filter_record_batch(&new, &shared).unwrap(), old, "{table}");
    }
}

#[test]
fn batching_makes_no_difference() {
    for table in SILVER {
        let events: Vec<_> = events(table).into_iter().take(400).collect();
        let chunk = chunk_of(&[damaged(&events), events].concat());
        let outcomes = |rows_max, bytes_max, threads| {
            let limits = Limits { batch_rows_max: rows_max, batch_bytes_max: bytes_max, ..Limits::default() };
            let mut transformer = now(table, limits).with_further_threads(threads);
            let output = transform(&mut transformer, &chunk);
            let rejected = output.rejected.iter();
            let rejected: Vec<_> = rejected.map(|reject| (reject.record, reject.code, reject.reason.clone())).collect();
            (rows(&transformer, &output), output.counts, rejected)
        };
        let whole = outcomes(4_096, 4 << 20, 0);
        assert!(whole.1.rejected > 50, "{table}: {:?}", whole.1);
        for (rows_max, bytes_max) in [(1, 4 << 20), (7, 4 << 20), (4_096, 2_000)] {
            for threads in [0, 3] {
                let found = outcomes(rows_max, bytes_max, threads);
                assert_eq!(
                    found, whole,
                    "{table} in batches of {rows_max} events, {bytes_max} B, {threads} more threads"
                );
            }
        }
    }
}
