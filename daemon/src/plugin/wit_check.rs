//! Checks the WIT files of a plugin before it is built: about an unknown type the SDK's macro gives pages of errors of what it
//! would have generated.

use std::path::{Path, PathBuf};

use anyhow::bail;
use wit_parser::Resolve;

use super::build::files_under;

/// Parses the files that the plugin in a folder names in `silverd_plugin::export!`. What cannot be found here, cargo reports.
///
/// # Errors
///
/// With file, line and column, if a file is not valid.
pub(super) fn check_wit(folder: &Path) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    for file in wit_files(folder).into_iter().flatten() {
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(()) };
        if let Err(error) = resolve.push_source(&file.display().to_string(), &text) {
            bail!("{}", resolve.render_error(&error));
        }
    }
    Ok(())
}

/// The contract's types and the WIT file of the table; `None` if the sources name none.
fn wit_files(folder: &Path) -> Option<[PathBuf; 2]> {
    let mut sources = Vec::new();
    files_under(&folder.join("src"), &mut sources, &mut Vec::new());
    let named = sources.iter().find_map(|source| {
        let text = std::fs::read_to_string(source).ok()?;
        let (_, arguments) = text.split_once("export!")?;
        Some([argument(arguments, "types:")?.to_owned(), argument(arguments, "table:")?.to_owned()])
    });
    let [types, table] = named?;
    Some([folder.join(types).canonicalize().ok()?, folder.join(table).canonicalize().ok()?])
}

/// The text in quotes after a key that begins a line.
fn argument<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
    value.trim_start().strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TYPES: &str = include_str!("../../../wit/types.wit");
    const TABLE: &str = include_str!("../../../wit/silver/page-view.wit");
    const LIB: &str = "silverd_plugin::export! {\n    plugin: PageView,\n    types: \"../wit/types.wit\",\n    \
                       table: \"../wit/table.wit\",\n    world: \"shop:silver/page-view-plugin\",\n}\n";

    /// The error about a table's WIT file.
    fn check(table: &str, lib: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("plugin");
        for (file, text) in [("wit/types.wit", TYPES), ("wit/table.wit", table), ("plugin/src/lib.rs", lib)] {
            let file = folder.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        check_wit(&plugin).err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn an_unknown_type_is_named_with_its_place() {
        assert_eq!(check(TABLE, LIB), None);
        let at = TABLE.find(": string").unwrap() + 2;
        let line = TABLE[..at].lines().count();
        let column = at - TABLE[..at].rfind('\n').unwrap();
        let wrong = format!("{}strng{}", &TABLE[..at], &TABLE[at + "string".len()..]);
        let error = check(&wrong, LIB).unwrap();
        assert!(error.contains("`strng` does not exist"), "{error}");
        assert!(error.contains(&format!("/wit/table.wit:{line}:{column}")), "{error}");
        // Not of the SDK's macro: cargo says what is wrong.
        assert_eq!(check(&wrong, "pub fn main() {}"), None);
        assert_eq!(check(&wrong, &LIB.replace("table.wit", "none.wit")), None);
        let error = check("package a:b;\ninterface c {\n  record row { x: u8 y: u8 }\n}\n", LIB).unwrap();
        assert!(error.contains("/wit/table.wit:3:"), "{error}");
    }
}
