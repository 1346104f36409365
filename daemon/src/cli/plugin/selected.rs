//! The plugin that a command works on, and the table of pipeline.toml that it fills, if there is one.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use silverd_core::config::{Limits, SilverTable};

use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::plugin::{Config, Host, Plugin, Source, VersionFile, load_trial};

pub(super) struct SelectedPlugin {
    /// As it was given on the command line.
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) setup: Option<Setup>,
    /// The table that it fills, and the table's index in pipeline.toml.
    pub(super) table: Option<(usize, SilverTable)>,
    pub(super) limits: Limits,
    pub(super) host: Arc<Host>,
}

impl SelectedPlugin {
    /// Finds a plugin by its folder, its file, or the name of its table. `table` names the table if the plugin fills several,
    /// or none.
    pub(super) fn find(config: &Path, given: &str, table: Option<&str>) -> anyhow::Result<Self> {
        let setup = if config.exists() { Some(Setup::read(config)?) } else { None };
        let table_named = |name: &str| {
            let tables = setup.iter().flat_map(|setup| setup.pipeline.silver.iter().enumerate());
            tables.filter(|(_, table)| &*table.name == name).map(|(at, table)| (at, table.clone())).next()
        };
        let base_dir = setup.as_ref().map(|setup| setup.base_dir.clone()).unwrap_or_default();
        let source = match (Path::new(given), table_named(given)) {
            (path, _) if path.exists() => Source::Plugin(path.to_path_buf()),
            (_, Some((_, table))) => Source::of(&table, &base_dir),
            _ => wrong_use!(
                "there is no plugin {given}: give the folder of a cargo package, a .wasm file, or a table of pipeline.toml"
            ),
        };
        let table = match table {
            Some(name) => match table_named(name) {
                Some(table) => Some(table),
                None => wrong_use!("--table {name}: pipeline.toml has no [silver.{name}]"),
            },
            None => match table_named(given).filter(|_| !Path::new(given).exists()) {
                Some(table) => Some(table),
                None => match &source {
                    Source::Plugin(path) => table_with_plugin(path, setup.as_ref())?,
                    Source::Sql(sql) => table_named(&sql.table().name),
                },
            },
        };
        let (host, limits) = match &setup {
            Some(setup) => (setup.host()?, setup.pipeline.limits.clone()),
            None => (Host::new()?, Limits::default()),
        };
        Ok(Self { name: given.to_owned(), source, setup, table, limits, host })
    }

    /// The version of the sources as they are now. If it must be built, that does not release it.
    pub(super) fn version(&self) -> anyhow::Result<VersionFile> {
        self.source.build_trial()
    }

    /// The plugin, with the settings and reference files of its table. It is not kept: a trial takes no other version's place.
    pub(super) fn load(&self) -> anyhow::Result<Plugin> {
        let (host, limits) = (self.host.clone(), self.limits.clone());
        match (&self.table, &self.setup) {
            (Some((_, table)), Some(setup)) => {
                // This file, even if it is blocked, or pipeline.toml names another plugin for the table.
                Ok(load_trial(table, &setup.base_dir, host, limits, &self.version()?)?)
            }
            _ => Plugin::compile(host, &self.name, &self.version()?.read()?, Config::default(), limits)
                .context("no table of pipeline.toml uses this plugin, so it gets no settings and no reference files"),
        }
    }
}

/// The table that uses the plugin at this path.
fn table_with_plugin(path: &Path, setup: Option<&Setup>) -> anyhow::Result<Option<(usize, SilverTable)>> {
    let Some(setup) = setup else { return Ok(None) };
    let canonical = |path: &Path| path.canonicalize().ok();
    let uses_it = |table: &SilverTable| match Source::of(table, &setup.base_dir) {
        Source::Plugin(of_table) => canonical(&of_table) == canonical(path),
        Source::Sql(_) => false,
    };
    let tables: Vec<_> = setup.pipeline.silver.iter().enumerate().filter(|(_, table)| uses_it(table)).collect();
    match tables[..] {
        [] => Ok(None),
        [(at, table)] => Ok(Some((at, table.clone()))),
        _ => {
            let names: Vec<_> = tables.iter().map(|(_, table)| table.name.to_string()).collect();
            wrong_use!("{} fills several tables: name one with --table, of {}", path.display(), names.join(", "))
        }
    }
}
