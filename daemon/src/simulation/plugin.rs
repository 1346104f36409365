//! The plugin of the simulated tables, in versions that differ in one column. It does with an event what the event says.

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Its file, in the folder of pipeline.toml.
pub(super) const FILE: &str = "plugin.wasm";
pub(super) const VERSIONS: u32 = 4;

const WIT: &str = r"
package simulated:table@0.1.0;

interface events {
  use silverd:pipeline/types@0.1.0.{batch, reject, timestamp};

  record row { id: s64, ts: timestamp, version: u32 }

  record output { rows: list<row>, row-events: list<u32>, rejects: list<reject> }

  transform: func(events: batch) -> output;
}

world table {
  export events;
}
";

/// The parts of an event's value are where `Event` puts them: what to do at 14, the id at 22, the second at 41.
const CODE: &str = r#"
  (memory (export "memory") 64)
  (data (i32.const 16) "the event asks for it")
  (global $top (mut i32) (i32.const 1024))

  (func $alloc (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $alloc (local.get 3)))

  (func $number (param $at i32) (param $digits i32) (result i64)
    (local $sum i64)
    (loop $next
      (local.set $sum (i64.add
        (i64.mul (local.get $sum) (i64.const 10))
        (i64.sub (i64.load8_u (local.get $at)) (i64.const 48))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $digits (i32.sub (local.get $digits) (i32.const 1)))
      (br_if $next (local.get $digits)))
    (local.get $sum))

  (func (export "simulated:table/events@0.1.0#transform")
    (param $values i32) (param i32) (param $ends i32) (param $events i32)
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (local $output i32) (local $event i32) (local $start i32) (local $action i32)
    (local $rows i32) (local $row-events i32) (local $row-count i32) (local $row i32)
    (local $rejects i32) (local $reject-count i32) (local $reject i32)
    (local.set $rows (call $alloc (i32.mul (local.get $events) (i32.const 24))))
    (local.set $row-events (call $alloc (i32.mul (local.get $events) (i32.const 4))))
    (local.set $rejects (call $alloc (i32.mul (local.get $events) (i32.const 16))))
    (local.set $output (call $alloc (i32.const 24)))
    (local.set $start (local.get $values))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $event) (local.get $events)))
        (local.set $action (i32.load8_u offset=14 (local.get $start)))
        (if (i32.eq (local.get $action) (i32.const 51)) (then (unreachable)))
        (if (i32.eq (local.get $action) (i32.const 50)) (then
          (local.set $reject (i32.add (local.get $rejects) (i32.mul (local.get $reject-count) (i32.const 16))))
          (i32.store (local.get $reject) (local.get $event))
          (i32.store8 offset=4 (local.get $reject) (i32.const 3))
          (i32.store offset=8 (local.get $reject) (i32.const 16))
          (i32.store offset=12 (local.get $reject) (i32.const 21))
          (local.set $reject-count (i32.add (local.get $reject-count) (i32.const 1)))))
        (if (i32.eq (local.get $action) (i32.const 48)) (then
          (local.set $row (i32.add (local.get $rows) (i32.mul (local.get $row-count) (i32.const 24))))
          (i64.store (local.get $row) (call $number (i32.add (local.get $start) (i32.const 22)) (i32.const 12)))
          (i64.store offset=8 (local.get $row) (i64.mul (i64.const 1000000)
            (call $number (i32.add (local.get $start) (i32.const 41)) (i32.const 10))))
          (i32.store offset=16 (local.get $row) (i32.const VERSION))
          (i32.store (i32.add (local.get $row-events) (i32.mul (local.get $row-count) (i32.const 4))) (local.get $event))
          (local.set $row-count (i32.add (local.get $row-count) (i32.const 1)))))
        (local.set $start (i32.add (local.get $values)
          (i32.load (i32.add (local.get $ends) (i32.mul (local.get $event) (i32.const 4))))))
        (local.set $event (i32.add (local.get $event) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $output) (local.get $rows))
    (i32.store offset=4 (local.get $output) (local.get $row-count))
    (i32.store offset=8 (local.get $output) (local.get $row-events))
    (i32.store offset=12 (local.get $output) (local.get $row-count))
    (i32.store offset=16 (local.get $output) (local.get $rejects))
    (i32.store offset=20 (local.get $output) (local.get $reject-count))
    (local.get $output))

  (func (export "cabi_post_simulated:table/events@0.1.0#transform") (param i32)
    (global.set $top (i32.const 1024)))
"#;

/// A version as a core module, as `cargo build` makes it.
pub(super) fn module(version: u32) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", include_str!("../../../wit/v0.1/types.wit")).unwrap();
    let package = resolve.push_str("table.wit", WIT).unwrap();
    let world = resolve.select_world(&[package], Some("table")).unwrap();
    let code = CODE.replace("VERSION", &version.to_string());
    let mut module = wat::parse_str(format!("(module {code})")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}
