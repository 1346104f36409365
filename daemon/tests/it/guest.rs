//! Guests made in a test: a core module in the text format, with the world that it claims to be of.

use silverd::transform::Limits;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract's own types.
pub const TYPES: &str = include_str!("../../../wit/types.wit");

/// What a guest may import.
pub const LOGGING: &str = include_str!("../../../wit/deps/logging.wit");

/// A memory of 4 MiB, its first KiB left to the guest, and an allocator that frees nothing but everything.
pub const ALLOCATOR: &str = r#"
  (memory (export "memory") 64)
  (global $top (mut i32) (i32.const 1024))
  (func $alloc (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (loop $until-it-fits
      (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 0x10000)))
        (then
          (if (i32.lt_s (memory.grow (i32.const 64)) (i32.const 0)) (then (unreachable)))
          (br $until-it-fits))))
    (local.get $at))
  (func $free-all (global.set $top (i32.const 1024)))
"#;

/// The contract's allocator, by the one above.
pub const REALLOC: &str = r#"
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (call $alloc (local.get 2) (local.get 3)))
"#;

/// A core module that says that it is of `world`, of the package `wit`, as `cargo build` makes them.
pub fn module(code: &str, types: &str, wit: &str, world: &str, strings: StringEncoding) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", types).unwrap();
    resolve.push_str("logging.wit", LOGGING).unwrap();
    let package = resolve.push_str("table.wit", wit).unwrap_or_else(|error| panic!("{error:#}\n{wit}"));
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = core(code);
    embed_component_metadata(&mut module, &resolve, world, strings).unwrap();
    module
}

/// A core module that says nothing of its world.
pub fn core(code: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {code})")).unwrap_or_else(|error| panic!("{error}"))
}

/// A core module as a component, as `cargo component build` makes them.
pub fn component(module: &[u8]) -> Vec<u8> {
    let encoded = ComponentEncoder::default().validate(true).module(module).and_then(|mut encoder| encoder.encode());
    encoded.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Limits that no honest guest of these tests comes near.
pub fn limits() -> Limits {
    Limits {
        memory_bytes_max: 16 << 20,
        transform_ms_max: 60_000,
        output_bytes_max: 1 << 20,
        batch_rows_max: 1_000,
        batch_bytes_max: 1 << 20,
        log_lines_per_second: 20,
    }
}
