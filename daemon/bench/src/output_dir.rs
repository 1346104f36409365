//! The folder in which the measured tables are written.

use std::path::PathBuf;

use anyhow::{Context, ensure};

/// The folder of the tables. A temporary one is deleted on drop.
pub(crate) struct OutputDir {
    pub(crate) path: PathBuf,
    is_temporary: bool,
}

impl OutputDir {
    /// This folder, which must be new or empty; `None`: a temporary one.
    pub(crate) fn create(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let is_temporary = path.is_none();
        let path = path.unwrap_or_else(|| std::env::temp_dir().join(format!("silverd-bench-{}", uuid::Uuid::new_v4())));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let mut entries = std::fs::read_dir(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(entries.next().is_none(), "--out {} is not empty: name a new folder", path.display());
        Ok(Self { path, is_temporary })
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if self.is_temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
