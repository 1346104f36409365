//! Where cargo writes a plugin's wasm.

use std::path::PathBuf;

/// The target whose modules have no imports.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";
/// The targets that a plugin may be built for: by plain cargo, and by `cargo component build`.
const TARGETS: [&str; 3] = [TARGET, "wasm32-wasip1", "wasm32-wasip2"];
/// `cargo component build` without `--release` builds a plugin as well, but a slow one.
const PROFILES: [&str; 2] = ["release", "debug"];

/// The folders of a target folder to which a plugin may be built.
pub(super) fn build_folders(target: PathBuf) -> impl Iterator<Item = PathBuf> {
    let targets = TARGETS.iter().map(move |name| target.join(name));
    targets.flat_map(|target| PROFILES.map(|profile| target.join(profile)))
}

/// The newest build, whatever command built it.
pub(super) fn newest(folders: impl Iterator<Item = PathBuf>, name: &str) -> Option<PathBuf> {
    let files = folders.map(|folder| folder.join(name));
    files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file))).max().map(|(_, file)| file)
}
