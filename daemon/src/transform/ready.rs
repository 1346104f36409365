//! Plugins where there is no cargo, as in a container: the wasm that another machine built into the mounted folder, or
//! else the one that was packed with silverd.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::build::PROFILES;

/// The folder of the plugins that were packed with silverd, by the name of their source folders.
const PACKED: &str = "SILVERD_PLUGINS";

/// The wasm of a source folder that cannot be built here; `None` where there is a cargo to build it, or nothing is found.
pub fn ready_made(folder: &Path, targets: &[&str]) -> Option<PathBuf> {
    let packed = std::env::var_os(PACKED)?;
    if has_cargo() {
        return None;
    }
    let name = format!("{}.wasm", folder.file_name()?.to_str()?.replace('-', "_"));
    let workspaces = [Some(folder), folder.parent()].into_iter().flatten();
    let built = workspaces.flat_map(|of| targets.iter().map(move |target| of.join("target").join(target)));
    let built = built.flat_map(|target| PROFILES.map(|profile| target.join(profile).join(&name)));
    let newest = built.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file))).max();
    let packed = Path::new(&packed).join(name);
    newest.map(|(_, file)| file).or_else(|| packed.is_file().then_some(packed))
}

fn has_cargo() -> bool {
    static HAS_CARGO: LazyLock<bool> = LazyLock::new(|| {
        let mut cargo = Command::new("cargo");
        cargo.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        cargo.status().is_ok_and(|status| status.success())
    });
    *HAS_CARGO
}
