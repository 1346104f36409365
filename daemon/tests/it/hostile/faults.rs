//! Guests that trap, loop without end, use too much memory, or have a bad allocator.

use silverd::plugin::Limits;
use silverd_core::outcome::Code;
use wit_component::StringEncoding;

use super::{check, check_clean, check_events, good_guest, trap};
use crate::harness::guest::{self, limits};
use crate::harness::hostile_guest::{component, module, transformer};

#[test]
fn trap_rejects_its_event_with_the_innermost_functions() {
    check(trap("unreachable", "it trapped: wasm `unreachable` instruction executed in misbehave"));
    check(trap("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "it trapped: integer divide by zero in misbehave"));
    check(trap("(drop (i32.load (i32.const -4)))", "it trapped: out of bounds memory access in misbehave"));
    check(trap(
        "(call $misbehave (local.get 0) (local.get 1) (local.get 2))",
        "it trapped: call stack exhausted in misbehave < misbehave < misbehave < misbehave",
    ));
    // A valid output, and a trap in `cabi_post`.
    check(trap("(global.set $answer (i32.const 96))", "it trapped: wasm `unreachable` instruction executed in post"));
}

/// A guest that misbehaves on every event.
#[track_caller]
fn check_always(functions: &str, code: Code, reason: &str) {
    let mut guest = transformer(&component("", functions, "table"), limits());
    check_events(&mut guest, 2, &[0, 1], code, reason);
    check_clean(&mut good_guest());
}

#[test]
fn bad_allocators_reject_every_event() {
    let realloc = |body: &str| format!("(func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {body})");
    check_always(
        &realloc("(i32.const 0x7ffffff8)"),
        Code::InvalidOutput,
        "its answer is not valid: realloc return: beyond end of memory",
    );
    check_always(
        &realloc("(i32.const 0x3ffffc)"),
        Code::InvalidOutput,
        "its answer is not valid: realloc return: beyond end of memory",
    );
    check_always(
        &realloc("(i32.const 0x401)"),
        Code::InvalidOutput,
        "its answer is not valid: realloc return: result not aligned",
    );
    check_always(&realloc("unreachable"), Code::Trap, "it trapped: wasm `unreachable` instruction executed");
}

#[test]
fn string_encodings_other_than_utf8_are_rejected() {
    let plugin = guest::component(&module("", "", "table", StringEncoding::UTF16));
    check_events(
        &mut transformer(&plugin, limits()),
        2,
        &[0, 1],
        Code::InvalidOutput,
        "its answer is not valid: its strings are not UTF-8",
    );
}

#[test]
fn endless_loop_is_stopped() {
    let limits = Limits { transform_ms_max: 300, ..limits() };
    let mut guest = transformer(&component("(loop $again (br $again))", "", "table"), limits);
    check_events(
        &mut guest,
        8,
        &[5],
        Code::Timeout,
        "it ran for longer than 100 ms, its share of the 300 ms that limits.transform_time_max allows a batch",
    );
    check_clean(&mut good_guest());
}

#[test]
fn memory_limit_is_enforced() {
    let hog = "(loop $again (br_if $again (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable";
    let limits = Limits { memory_bytes_max: 6 << 20, ..limits() };
    let mut guest = transformer(&component(hog, "", "table"), limits);
    check_events(
        &mut guest,
        1_000,
        &[3, 4, 999],
        Code::Memory,
        "it asked for 7340032 bytes of memory; limits.memory_bytes_max allows 6291456",
    );
    check_clean(&mut good_guest());
}
