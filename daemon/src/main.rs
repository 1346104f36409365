//! silverd: Kafka to Delta Lake, through WebAssembly.

use std::process::ExitCode;

use clap::Parser;
use silverd::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    silverd::cli::main(Cli::parse())
}
