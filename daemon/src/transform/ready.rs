//! Plugins where there is no cargo, as in a container: the wasm that another machine built into the mounted folder, or
//! else the one that was packed with silverd.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::build::{builds, newest};

/// The folder of the plugins that were packed with silverd, by the name of their source folders.
const PACKED: &str = "SILVERD_PLUGINS";

/// The wasm of a source folder that cannot be built here; `None` where there is a cargo to build it, or nothing is found.
pub fn ready_made(folder: &Path) -> Option<PathBuf> {
    let packed = std::env::var_os(PACKED)?;
    if has_cargo() {
        return None;
    }
    let name = format!("{}.wasm", folder.file_name()?.to_str()?.replace('-', "_"));
    let packed = Path::new(&packed).join(&name);
    newest(targets(folder).flat_map(builds), &name).or_else(|| packed.is_file().then_some(packed))
}

/// The target folders of a plugin: its own, and its workspace's.
pub fn targets(folder: &Path) -> impl Iterator<Item = PathBuf> {
    [Some(folder), folder.parent()].into_iter().flatten().map(|of| of.join("target"))
}

fn has_cargo() -> bool {
    static HAS_CARGO: LazyLock<bool> = LazyLock::new(|| {
        let mut cargo = Command::new("cargo");
        cargo.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        cargo.status().is_ok_and(|status| status.success())
    });
    *HAS_CARGO
}
