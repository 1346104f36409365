//! Where the versions of a table come from: a plugin's folder or file, or the SQL in pipeline.toml.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use silverd_core::config::{SilverTable, SqlInput, SqlTransform, Transform};

use super::build::{PluginLocation, trial_wasm_of, wasm_of};
use super::digest::Digest;
use crate::row_sql::Definition;

/// Where the versions of a table come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A source folder, or a file.
    Plugin(PathBuf),
    Sql(Arc<SqlSource>),
}

/// A table with SQL.
#[derive(Debug)]
pub(crate) struct SqlSource {
    table: SilverTable,
    transform: SqlTransform,
    base_dir: PathBuf,
}

/// The file that a version is loaded from, or its text.
#[derive(Clone, Debug)]
pub(crate) enum VersionFile {
    File(PathBuf),
    Sql(Arc<Definition>),
}

/// The newest build of a plugin, as a daemon finds it. The SQL of a table is always built.
pub(crate) struct NewestBuild {
    pub(crate) file: VersionFile,
    pub(crate) digest: Digest,
    /// The plugin's sources were changed since.
    pub(crate) sources_are_newer: bool,
}

impl Source {
    /// The source of a table, whose paths are relative to `base_dir`.
    pub(crate) fn of(table: &SilverTable, base_dir: &Path) -> Self {
        match &table.transform {
            Transform::Plugin(plugin) => Self::Plugin(base_dir.join(&**plugin)),
            Transform::Sql(transform) => Self::Sql(Arc::new(SqlSource {
                table: table.clone(),
                transform: transform.clone(),
                base_dir: base_dir.to_path_buf(),
            })),
        }
    }

    /// The newest version. Builds a source folder if necessary, which releases it; see [`wasm_of`].
    pub(crate) fn build(&self) -> anyhow::Result<VersionFile> {
        match self {
            Self::Plugin(plugin) => wasm_of(plugin).map(VersionFile::File),
            Self::Sql(sql) => sql.version(),
        }
    }

    /// The version of the sources as they are now; see [`trial_wasm_of`].
    pub(crate) fn build_trial(&self) -> anyhow::Result<VersionFile> {
        match self {
            Self::Plugin(plugin) => trial_wasm_of(plugin).map(VersionFile::File),
            Self::Sql(sql) => sql.version(),
        }
    }

    /// The newest build; `None` if there is none. Builds nothing.
    pub(crate) fn newest(&self) -> anyhow::Result<Option<NewestBuild>> {
        let (file, sources_are_newer) = match self {
            Self::Plugin(plugin) if !plugin.exists() => return Ok(None),
            Self::Plugin(plugin) => {
                let location = PluginLocation::of(plugin)?;
                let Some(wasm) = location.wasm() else { return Ok(None) };
                let sources_are_newer = location.has_newer_sources(&wasm)?;
                (VersionFile::File(wasm), sources_are_newer)
            }
            Self::Sql(sql) => (sql.version()?, false),
        };
        Ok(Some(NewestBuild { digest: file.digest()?, file, sources_are_newer }))
    }

    /// The digest of the newest build; `None` if there is none. Builds nothing.
    pub(crate) fn newest_digest(&self) -> anyhow::Result<Option<Digest>> {
        self.location()?.newest()?.map(|newest| newest.digest()).transpose()
    }

    /// Where a newer version will be found. Runs `cargo metadata` if the plugin is a package.
    pub(crate) fn location(&self) -> anyhow::Result<SourceLocation> {
        Ok(match self {
            Self::Plugin(plugin) => SourceLocation::Plugin(PluginLocation::of(plugin)?),
            Self::Sql(sql) => SourceLocation::Sql(sql.clone()),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(plugin) => plugin.display().fmt(f),
            Self::Sql(sql) => write!(f, "the SQL of [silver.{}]", sql.table.name),
        }
    }
}

impl SqlSource {
    pub(crate) fn table(&self) -> &SilverTable {
        &self.table
    }

    pub(crate) fn base_dir(&self) -> &Path {
        &self.base_dir
    }

    fn version(&self) -> anyhow::Result<VersionFile> {
        let definition = Definition::of(&self.table, &self.transform, &self.base_dir)?;
        Ok(VersionFile::Sql(Arc::new(definition)))
    }

    /// The file with the record `input`, if it is not in pipeline.toml.
    fn input_file(&self) -> Option<PathBuf> {
        match &self.transform.input.value {
            SqlInput::Fields(_) => None,
            SqlInput::File(file) => Some(self.base_dir.join(file)),
        }
    }
}

/// Where newer versions are found, for those who look at it repeatedly. Nothing is built.
pub(crate) enum SourceLocation {
    Plugin(PluginLocation),
    Sql(Arc<SqlSource>),
}

impl SourceLocation {
    /// The newest version; `None` if a plugin is not built.
    pub(crate) fn newest(&self) -> anyhow::Result<Option<VersionFile>> {
        match self {
            Self::Plugin(location) => Ok(location.wasm().map(VersionFile::File)),
            Self::Sql(sql) => sql.version().map(Some),
        }
    }

    /// The file that a newer version replaces.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Plugin(location) => location.wasm(),
            Self::Sql(sql) => sql.input_file(),
        }
    }

    /// The folders in which a newer one may appear. They need not exist.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::Plugin(location) => location.folders(),
            Self::Sql(sql) => {
                sql.input_file().and_then(|file| file.parent().map(Path::to_path_buf)).into_iter().collect()
            }
        }
    }
}

impl VersionFile {
    pub(crate) fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(file) => std::fs::read(file).with_context(|| format!("read plugin {}", file.display())),
            Self::Sql(definition) => Ok(definition.to_bytes()),
        }
    }

    pub(crate) fn digest(&self) -> anyhow::Result<Digest> {
        Ok(Digest::of(&self.read()?))
    }

    /// When the file was written.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::File(file) => file.metadata().and_then(|metadata| metadata.modified()).ok(),
            Self::Sql(_) => None,
        }
    }

    pub(crate) fn exists(&self) -> bool {
        match self {
            Self::File(file) => file.is_file(),
            Self::Sql(_) => true,
        }
    }
}

impl fmt::Display for VersionFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "plugin {}", file.display()),
            Self::Sql(_) => f.write_str("the table's SQL"),
        }
    }
}
