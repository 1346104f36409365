//! silverd: Kafka to Delta Lake, through WebAssembly.

mod clock;
mod delta;
mod transform;

fn main() {}
