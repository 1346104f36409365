//! silverd: Kafka to Delta Lake, through WebAssembly.

use std::process::ExitCode;

#[cfg(not(all(target_os = "linux", target_env = "gnu")))] // elsewhere: see silverd::runtime::allocator
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    silverd::runtime::allocator::configure();
    silverd::cli::main()
}
