//! Replaces a file by renaming, so that whoever reads or watches it never sees a part of the new text, also
//! after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

/// Writes the text to a temporary file in the same folder, and renames that to `path`. Permissions and a symbolic link
/// stay as they are. Missing folders are created.
pub(crate) fn atomic_write(path: &Path, text: &str) -> anyhow::Result<()> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let folder = target.parent().unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".{}.new", target.file_name().unwrap_or_default().to_string_lossy()));
    let replace = || {
        fs::create_dir_all(folder)?;
        write(&temporary, text, target.metadata().ok().map(|found| found.permissions()))?;
        fs::rename(&temporary, &target)?;
        File::open(folder)?.sync_all()
    };
    replace().inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(|| format!("write {}", path.display()))
}

fn write(temporary: &Path, text: &str, permissions: Option<fs::Permissions>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    if permissions.is_some() {
        // Until it has the permissions of the file that it replaces: that may be one with passwords.
        options.mode(0o600);
    }
    let mut file = options.open(temporary)?;
    file.write_all(text.as_bytes())?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn permissions_and_links_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real/file"), folder.path().join("link"));
        atomic_write(&file, "one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        atomic_write(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(folder.path().join("real")).unwrap().count(), 1, "no temporary file is left");
    }
}
