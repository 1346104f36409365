//! WASI of guests: no host call outlives a deadline, and clocks and random numbers depend on nothing but the event.

use std::time::{Duration, Instant};

use silverd::plugin::Limits;
use silverd_core::outcome::Code;

use crate::harness::guest::{self, limits};
use crate::harness::hostile_guest::{WIT, chunk, module_with_imports, transform, transformer};

const IMPORTS: &str = r#"
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $sleep (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
  (import "wasi:random/random@0.2.0" "get-random-bytes" (func $random_bytes (param i64 i32)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
"#;
const WORLD: &str = "world table { import wasi:clocks/monotonic-clock@0.2.0; import wasi:io/poll@0.2.0; import \
                     wasi:random/random@0.2.0; import wasi:cli/exit@0.2.0;";
const WASI: &str = "
  package wasi:io@0.2.0 { interface poll { resource pollable { block: func(); } } }
  package wasi:clocks@0.2.0 {
    interface monotonic-clock {
      use wasi:io/poll@0.2.0.{pollable};
      now: func() -> u64;
      subscribe-duration: func(when: u64) -> pollable;
    }
  }
  package wasi:random@0.2.0 {
    interface random { get-random-u64: func() -> u64; get-random-bytes: func(len: u64) -> list<u8>; }
  }
  package wasi:cli@0.2.0 { interface exit { exit: func(status: result); } }
";

/// A guest that does this on an event whose value contains "poison", as a core module.
fn guest(misbehave: &str) -> Vec<u8> {
    module_with_imports(IMPORTS, &(WIT.replace("world table {", WORLD) + WASI), misbehave)
}

/// What becomes of such an event: `None` if it has a row.
fn outcome(misbehave: &str) -> Option<(Code, String)> {
    let module = guest(misbehave);
    let of_module = outcome_of(&module);
    assert_eq!(of_module, outcome_of(&guest::component(&module)), "silverd makes a component of a module itself");
    of_module
}

fn outcome_of(guest: &[u8]) -> Option<(Code, String)> {
    let mut guest = transformer(guest, Limits { transform_ms_max: 2_000, ..limits() });
    let output = transform(&mut guest, &chunk(["poison".to_owned(), "good".to_owned()]));
    output.rejected.into_iter().next().map(|reject| (reject.code, reject.reason))
}

#[test]
fn a_sleep_is_over_at_once_and_endless_sleeps_end_at_the_deadline() {
    let began = Instant::now();
    // An hour, and half of eternity.
    for nanoseconds in ["3600000000000", "9223372036854775807"] {
        let sleep = format!(
            "(local $p i32) (local.set $p (call $sleep (i64.const {nanoseconds}))) (call $block (local.get \
                             $p)) (call $drop (local.get $p))"
        );
        assert_eq!(outcome(&sleep), None);
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    let endless = "(local $p i32) (loop $again (local.set $p (call $sleep (i64.const 1000000000))) (call $block (local.get \
                   $p)) (call $drop (local.get $p)) (br $again))";
    assert_eq!(outcome(endless).unwrap().0, Code::Timeout);
}

#[test]
fn clocks_stand_still_and_random_numbers_are_equal() {
    let unless = |condition: &str| format!("(if (i32.eqz {condition}) (then (unreachable)))");
    assert_eq!(outcome(&unless("(i64.eq (call $now) (call $now))")), None);
    assert_eq!(outcome(&unless("(i64.eq (call $random) (call $random))")), None);
    // The same number in every instance: an instance of its own computed it.
    let known = format!("(i64.eq (call $random) (i64.const {}))", i64::from_ne_bytes([0b0101_0110; 8]));
    assert_eq!(outcome(&unless(&known)), None);
    assert_ne!(outcome(&unless("(i64.eq (call $random) (i64.const 4))")), None);
}

#[test]
fn what_the_host_keeps_for_a_guest_is_bounded() {
    // Pollables that are never dropped; many bytes at once; the end of the process.
    let hoard = "(loop $again (drop (call $sleep (i64.const 1))) (br $again))";
    let flood = "(call $random_bytes (i64.const 1000000000) (i32.const 48))";
    for misbehave in [hoard, flood, "(call $exit (i32.const 0))"] {
        let (code, reason) = outcome(misbehave).unwrap();
        assert_eq!(code, Code::InvalidOutput, "{misbehave}: {reason}");
    }
}
