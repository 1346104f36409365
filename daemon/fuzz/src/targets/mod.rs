//! What is fuzzed, and what must hold of each input.

mod events;
mod texts;

use std::sync::LazyLock;

pub type Target = fn(&[u8]);

/// Every target by its name. `scripts/fuzz` lists them.
pub const ALL: [(&str, Target); 7] = [
    ("config", texts::config),
    ("decode", events::decode),
    ("infer", events::infer),
    ("route", events::route),
    ("tape", events::tape),
    ("values", texts::values),
    ("wit", texts::wit),
];

/// Fails on an input that only a fuzzer finds, if that is asked for.
pub fn planted(is_hit: impl FnOnce() -> bool) {
    static ASKED_FOR: LazyLock<bool> = LazyLock::new(|| std::env::var_os("SILVERD_FUZZ_PLANTED").is_some());
    assert!(!*ASKED_FOR || !is_hit(), "the planted fault is found");
}
