//! Plugins where cargo is not installed, as in a container: the wasm that another machine built in the mounted folder,
//! or the one that was packaged with silverd.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::build_output::{build_folders, newest};

/// The environment variable with the folder of the plugins that were packaged with silverd. Their files have the names
/// of the source folders.
const PACKAGED: &str = "SILVERD_PLUGINS";

/// The wasm of a source folder that cannot be built here; `None` if cargo is installed, or if there is none.
pub(super) fn prebuilt_wasm(folder: &Path) -> Option<PathBuf> {
    let packaged = std::env::var_os(PACKAGED)?;
    if has_cargo() {
        return None;
    }
    let name = format!("{}.wasm", folder.file_name()?.to_str()?.replace('-', "_"));
    let packaged = Path::new(&packaged).join(&name);
    newest(target_folders(folder).flat_map(build_folders), &name).or_else(|| packaged.is_file().then_some(packaged))
}

/// The target folders of a plugin: its own, and that of its workspace.
pub(super) fn target_folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    [Some(folder), folder.parent()].into_iter().flatten().map(|parent| parent.join("target"))
}

fn has_cargo() -> bool {
    static HAS_CARGO: LazyLock<bool> = LazyLock::new(|| {
        let mut cargo = Command::new("cargo");
        cargo.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        cargo.status().is_ok_and(|status| status.success())
    });
    *HAS_CARGO
}
