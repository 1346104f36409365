//! Files of plugins: valid ones with some edits.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use silverd::plugin::{Config, Host, Limits, Plugin, Transformer};
use wit_component::StringEncoding;

use super::edits::edited;
use super::events::chunk_of;
use super::{guest, planted};

/// A plugin that reads records itself.
const HOSTILE: &str = include_str!("../../../tests/it/fixtures/hostile.wat");
const HOSTILE_WIT: &str = include_str!("../../../tests/it/fixtures/hostile.wit");

/// A plugin whose rows are its events.
const TYPED: &str = r#"
  (func (export "test:typed/rows@0.1.0#transform") (param $at i32) (param $len i32) (result i32)
    (local $event i32) (local $events i32)
    (local.set $events (call $alloc (i32.const 4) (i32.mul (local.get $len) (i32.const 4))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $event) (local.get $len)))
        (i32.store
          (i32.add (local.get $events) (i32.mul (local.get $event) (i32.const 4)))
          (local.get $event))
        (local.set $event (i32.add (local.get $event) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (local.get $len))
    (i32.store (i32.const 24) (local.get $events))
    (i32.store (i32.const 28) (local.get $len))
    (i64.store (i32.const 32) (i64.const 0))
    (i32.const 16))
  (func (export "cabi_post_test:typed/rows@0.1.0#transform") (param i32) (call $free-all))
"#;
const TYPED_WIT: &str = "
  package test:typed@0.1.0;
  interface rows {
    use silverd:pipeline/types@0.2.0.{reject, timestamp};
    record input { id: string, at: timestamp, tags: list<string> }
    record row { id: string, at: timestamp, tags: list<string> }
    record output { rows: list<row>, row-events: list<u32>, rejects: list<reject> }
    transform: func(events: list<input>) -> output;
  }
  world table { export rows; }
";

static HOST: LazyLock<Arc<Host>> = LazyLock::new(|| Host::new().expect("start the engine"));

/// What the plugins get.
const EVENTS: [&[u8]; 2] = [br#"{"id": "a", "at": 1570000000, "tags": ["x"]}"#, b"poison"];

/// A valid file, and the columns of its table.
struct Valid {
    file: Vec<u8>,
    columns: Vec<String>,
}

/// A core module, and two components.
static VALID: LazyLock<[Valid; 3]> = LazyLock::new(|| {
    let misbehave = "(func $misbehave (param i32) (param i32) (param i32))";
    let code = [guest::ALLOCATOR, guest::REALLOC, HOSTILE, misbehave].concat();
    let core = guest::module(&code, guest::TYPES_0_1, HOSTILE_WIT, "table", StringEncoding::UTF8);
    let code = [guest::ALLOCATOR, guest::REALLOC, TYPED].concat();
    let typed = guest::module(&code, guest::TYPES, TYPED_WIT, "table", StringEncoding::UTF8);
    let files = [core.clone(), guest::component(&core), guest::component(&typed)];
    files.map(|file| {
        let plugin = load(&file).unwrap_or_else(|error| panic!("a valid plugin is refused: {error:#}"));
        Valid { columns: columns_of(&plugin), file }
    })
});

/// A guest that loops costs this time for each call.
fn load(file: &[u8]) -> anyhow::Result<Plugin> {
    let limits = Limits { transform_ms_max: 100, ..guest::limits() };
    Plugin::compile(HOST.clone(), "fuzzed", file, Config::default(), limits)
}

fn columns_of(plugin: &Plugin) -> Vec<String> {
    plugin.schema.columns.iter().map(|column| column.name.clone()).collect()
}

/// A file is refused with a reason, or its plugin gives every event an outcome. The first byte says which file is edited.
pub fn component(bytes: &[u8]) {
    let Some((which, edits)) = bytes.split_first() else { return };
    let valid = &VALID[usize::from(*which) % VALID.len()];
    let plugin = match load(&edited(&valid.file, edits)) {
        Ok(plugin) => plugin,
        Err(reason) => {
            let reason = format!("{reason:#}");
            return assert!(!reason.is_empty() && reason.len() < 64 << 10, "{reason}");
        }
    };
    let columns = columns_of(&plugin);
    assert_eq!(plugin.schema.arrow().fields().len(), columns.len());
    // A plugin that fails on every event has no outcomes.
    if let Ok(output) = Transformer::new(Arc::new(plugin)).transform(&chunk_of(None, &EVENTS), &[0, 1]) {
        let rows: usize = output.rows.iter().map(RecordBatch::num_rows).sum();
        assert!(output.counts.conserved(), "{:?}", output.counts);
        assert_eq!((output.counts.events, output.counts.rows), (2, rows as u64));
        assert_eq!(output.counts.rejected, output.rejected.len() as u64);
    }
    planted(|| columns.len() == valid.columns.len() && columns != valid.columns);
}
