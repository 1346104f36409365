//! silverd: Kafka to Delta Lake, through WebAssembly.

use std::process::ExitCode;

use clap::Parser;
use silverd::cli::Cli;

#[cfg(not(all(target_os = "linux", target_env = "gnu")))] // elsewhere: see silverd::memory
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    silverd::memory::settle();
    silverd::cli::main(Cli::parse())
}
