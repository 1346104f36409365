//! silverd: Kafka to Delta Lake, through WebAssembly.

use std::process::ExitCode;

use silverd::runtime::allocator::{self, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    allocator::configure();
    silverd::cli::main()
}
