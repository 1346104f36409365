//! Coverage-guided fuzzing, with libFuzzer: `SILVERD_FUZZ` names the target, the arguments are libFuzzer's. `scripts/fuzz`
//! builds it so that the coverage of silverd's own crates guides it, and keeps the corpus.
//!
//! A target gets bytes, and fails by a panic, by taking too long or too much memory, or by an assertion on what it found. With
//! `SILVERD_FUZZ_PLANTED` it also fails on one input that random bytes do not hit: this shows that it would find such an input.

#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use targets::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SILVERD_FUZZ").unwrap_or_default();
    let known: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
    let target = targets::ALL.iter().find(|(of, _)| *of == name);
    target.unwrap_or_else(|| panic!("SILVERD_FUZZ names no target: expected one of {}", known.join(", "))).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
