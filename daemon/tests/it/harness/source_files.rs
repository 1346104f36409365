//! The files of the repository that people write.

use std::path::{Path, PathBuf};

use super::root;

/// Every file in a folder of the repository that people write.
pub fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_ours =
            !matches!(name, "target" | ".git" | "Cargo.lock" | "screenshots") && !path.ends_with("made_before");
        // The tables of the repository's pipeline.toml, and of the examples.
        let has_tables = name == "data" && (folder == root() || folder.starts_with(root().join("examples")));
        if path.is_dir() && is_ours && !has_tables {
            files.extend(source_files(&path));
        } else if path.is_file() && is_ours {
            files.push(path);
        }
    }
    files
}
