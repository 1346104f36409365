//! The folder of a run.

use std::path::PathBuf;

use anyhow::Context;

/// A new folder below the system's folder for temporary files. It stays unless it is removed.
pub(super) struct RunFolder {
    pub(super) path: PathBuf,
}

impl RunFolder {
    pub(super) fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("silverd-chaos-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        // The links of a path are followed by the C library, too, so its names must be the same.
        let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
        Ok(Self { path })
    }

    pub(super) fn keep(self) -> PathBuf {
        self.path
    }

    pub(super) fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }
}
