//! What is fuzzed, and what must hold of each input.

mod component;
mod delta;
mod edits;
mod events;
#[allow(dead_code)]
#[path = "../../../tests/it/harness/guest.rs"]
mod guest;
mod http;
mod lift;
mod lower;
mod sql;
mod texts;

use std::sync::LazyLock;

pub type Target = fn(&[u8]);

/// Every target by its name. `scripts/fuzz` lists them.
pub const ALL: [(&str, Target); 14] = [
    ("checkpoint", delta::checkpoint),
    ("component", component::component),
    ("config", texts::config),
    ("decode", events::decode),
    ("http", http::http),
    ("infer", events::infer),
    ("lift", lift::lift),
    ("log_entry", delta::log_entry),
    ("lower", lower::lower),
    ("route", events::route),
    ("sql", sql::sql),
    ("tape", events::tape),
    ("values", texts::values),
    ("wit", texts::wit),
];

/// Fails on an input that only a fuzzer finds, if that is asked for.
pub fn planted(is_hit: impl FnOnce() -> bool) {
    static ASKED_FOR: LazyLock<bool> = LazyLock::new(|| std::env::var_os("SILVERD_FUZZ_PLANTED").is_some());
    assert!(!*ASKED_FOR || !is_hit(), "the planted fault is found");
}
