//! The program that runs.

use std::path::{Path, PathBuf};

/// This program, even if its file was replaced after its start.
pub fn this_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    if running.exists() { running.to_path_buf() } else { std::env::current_exe().unwrap_or_default() }
}
