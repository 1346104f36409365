//! Links functions that have the same machine code once: generic code over many types has thousands of them.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name: &str| env::var(name).unwrap_or_default();
    // LLD, which Rust brings for this target. A linker that the user has named may not know the option.
    let brings_lld = var("TARGET") == "x86_64-unknown-linux-gnu";
    let is_named = !var("RUSTC_LINKER").is_empty() || var("CARGO_ENCODED_RUSTFLAGS").contains("link");
    if brings_lld && !is_named {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
