//! The plugin that a command is about, and the table of pipeline.toml that it fills, if there is one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use silverd_core::config::{Limits, SilverTable};

use crate::cli::setup::Setup;
use crate::silver::load_file;
use crate::transform::{Config, Host, Plugin, build};

pub struct Subject {
    /// As the author named it.
    pub name: String,
    /// The plugin: a cargo package's folder, or a file.
    pub path: PathBuf,
    pub setup: Option<Setup>,
    /// The table that it fills, and where that stands in pipeline.toml.
    pub table: Option<(usize, SilverTable)>,
    pub limits: Limits,
    pub host: Arc<Host>,
}

impl Subject {
    /// Finds a plugin by its folder, its file, or the name of its table. `table` says which table is meant where the
    /// plugin fills several, or none.
    pub fn find(config: &Path, given: &str, table: Option<&str>) -> anyhow::Result<Self> {
        let setup = if config.exists() { Some(Setup::read(config)?) } else { None };
        let named = |name: &str| {
            let tables = setup.iter().flat_map(|setup| setup.pipeline.silver.iter().enumerate());
            tables.filter(|(_, table)| &*table.name == name).map(|(at, table)| (at, table.clone())).next()
        };
        let base = setup.as_ref().map(|setup| setup.base.clone()).unwrap_or_default();
        let path = match (Path::new(given), named(given)) {
            (path, _) if path.exists() => path.to_path_buf(),
            (_, Some((_, table))) => base.join(&**table.plugin),
            _ => bail!(
                "there is no plugin {given}: name a cargo package's folder, a .wasm file, or a table of pipeline.toml"
            ),
        };
        let table = match table {
            Some(name) => Some(named(name).with_context(|| format!("there is no [silver.{name}] in pipeline.toml"))?),
            None => match named(given).filter(|_| !Path::new(given).exists()) {
                Some(table) => Some(table),
                None => filled_by(&path, setup.as_ref())?,
            },
        };
        let (host, limits) = match &setup {
            Some(setup) => (setup.host()?, setup.pipeline.limits.clone()),
            None => (Host::new()?, Limits::default()),
        };
        Ok(Self { name: given.to_owned(), path, setup, table, limits, host })
    }

    /// The file that holds the plugin; built from its sources if it must be.
    pub fn wasm(&self) -> anyhow::Result<PathBuf> {
        build::wasm_of(&self.path)
    }

    /// The plugin, with the settings and reference files of its table.
    pub fn load(&self) -> anyhow::Result<Plugin> {
        let (host, limits) = (self.host.clone(), self.limits.clone());
        match (&self.table, &self.setup) {
            (Some((_, table)), Some(setup)) => {
                // What was named is meant, even if pipeline.toml has another plugin for the table, or it is held off.
                load_file(table, &setup.base, host, limits, &self.wasm()?)
            }
            _ => Plugin::load(host, &self.name, &self.wasm()?, Config::default(), limits)
                .context("no table of pipeline.toml has this plugin, so it gets no settings and no reference files"),
        }
    }
}

/// The table that a plugin fills.
fn filled_by(path: &Path, setup: Option<&Setup>) -> anyhow::Result<Option<(usize, SilverTable)>> {
    let Some(setup) = setup else { return Ok(None) };
    let of = |path: &Path| path.canonicalize().ok();
    let same = |table: &SilverTable| of(&setup.base.join(&**table.plugin)) == of(path);
    let tables: Vec<_> = setup.pipeline.silver.iter().enumerate().filter(|(_, table)| same(table)).collect();
    match tables[..] {
        [] => Ok(None),
        [(at, table)] => Ok(Some((at, table.clone()))),
        _ => {
            let names: Vec<_> = tables.iter().map(|(_, table)| table.name.to_string()).collect();
            bail!("{} fills several tables: say which by --table, one of {}", path.display(), names.join(", "))
        }
    }
}
