//! WebAssembly guests that a test builds from the text format, with a WIT world.

use silverd::plugin::Limits;
use silverd_core::input::{EventType, Input};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The types of the contract.
pub const TYPES: &str = include_str!("../../../../wit/types.wit");

/// The types of the contract's first version, whose components silverd still takes.
pub const TYPES_0_1: &str = include_str!("../../../../wit/v0.1/types.wit");

/// The interface that a guest may import.
const LOGGING: &str = include_str!("../../../../wit/deps/logging.wit");

/// A memory of 4 MiB whose first KiB is the guest's scratch space, and an allocator that can only free everything at
/// once.
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

/// The contract's `cabi_realloc`, which uses this allocator.
pub const REALLOC: &str = r#"
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (call $alloc (local.get 2) (local.get 3)))
"#;

/// A function that returns the pointer and the length that it gets. It frees all memory once the host has read them.
pub fn echo(function: &str) -> String {
    format!(
        r#"
  (func (export "{function}") (param $at i32) (param $len i32) (result i32)
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (local.get $len))
    (i32.const 16))
  (func (export "cabi_post_{function}") (param i32) (call $free-all))
"#
    )
}

/// The type of the events that the world of a package takes, which has one.
pub fn event_type(wit: &str) -> EventType {
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", TYPES).unwrap();
    let package = resolve.push_str("table.wit", wit).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    match Input::of_world(&resolve, world, None).unwrap() {
        Input::Typed(ty) => ty,
        Input::Raw(version) => panic!("raw records of {version:?}"),
    }
}

/// A core module with the world `world` of the package `wit`, as `cargo build` produces.
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

/// A core module without a world.
pub fn core(code: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {code})")).unwrap_or_else(|error| panic!("{error}"))
}

/// A core module as a component, as `cargo component build` produces.
pub fn component(module: &[u8]) -> Vec<u8> {
    let encoded = ComponentEncoder::default().validate(true).module(module).and_then(|mut encoder| encoder.encode());
    encoded.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Limits that only a misbehaving guest of these tests exceeds.
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
