//! From pipeline.toml on disk to a checked pipeline.

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use silverd_core::config::{
    self, ConfigError, ConfigErrors, Limits, Pipeline, SilverTable, SqlInput, SqlTransform, Transform, place_in_string,
};

use super::WrongUse;
use crate::alerts::{InvalidAlert, check_alert};
use crate::cases::failed_cases;
use crate::delta::{check_zone, set_fsync};
use crate::plugin::{FaultyKey, Host, LoadError, Loaded, Plugin, Source, load_plugin, load_unreleased};
use crate::row_sql::SqlError;
use crate::runtime::file_watch::FileStamp;
use crate::runtime::this_program;
use crate::sql::{self, Tables};
use crate::tables::silver::check_fit;

/// Errors in pipeline.toml, rendered with their lines.
#[derive(Debug)]
pub struct InvalidConfig {
    text: String,
    count: usize,
    file: PathBuf,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "error" } else { "errors" };
        writeln!(f, "{}\n{}: {} {plural}", self.text.trim_end(), self.file.display(), self.count)
    }
}

impl std::error::Error for InvalidConfig {}

/// A checked pipeline and where it came from.
pub struct Setup {
    pub pipeline: Pipeline,
    /// The folder of pipeline.toml, from which its paths count.
    pub base_dir: PathBuf,
    /// The file's stamp before it was read: whoever watches the file starts from here, and misses no save.
    pub file_stamp: FileStamp,
    file: PathBuf,
    text: String,
}

impl Setup {
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let absolute = std::path::absolute(file)?;
        let file_stamp = FileStamp::of([&absolute]);
        let text = std::fs::read_to_string(file).map_err(|failure| {
            WrongUse::error(format!(
                "read {} (name another file with --config, or run silverd in the folder that has it): {failure}",
                file.display()
            ))
        })?;
        let pipeline = config::check(&text, &|name| std::env::var(name).ok())
            .map_err(|errors| invalid_config(&errors, file, &text))?;
        let base_dir = absolute.parent().map(Path::to_path_buf).unwrap_or_default();
        set_fsync(pipeline.commit.fsync);
        Ok(Self { pipeline, base_dir, file_stamp, file: file.to_path_buf(), text })
    }

    /// The place of a Silver table in pipeline.toml.
    pub fn table(&self, name: &str) -> anyhow::Result<usize> {
        let tables = &self.pipeline.silver;
        tables.iter().position(|table| *table.name == *name).ok_or_else(|| {
            let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
            let (file, names) = (self.file.display(), names.join(", "));
            WrongUse::error(format!("{file} has no [silver.{name}]; its Silver tables are {names}"))
        })
    }

    /// The place of that table, or those of all.
    pub fn tables(&self, name: Option<&str>) -> anyhow::Result<Vec<usize>> {
        match name {
            Some(name) => Ok(vec![self.table(name)?]),
            None => Ok((0..self.pipeline.silver.len()).collect()),
        }
    }

    /// Moves the tables to another folder; plugins and reference data stay where they are.
    pub fn relocate(&mut self, out: &Path) {
        let base_dir = &self.base_dir;
        let pipeline = &mut self.pipeline;
        for table in &mut pipeline.silver {
            let absolute = |path: &str| base_dir.join(path).display().to_string();
            match &mut table.transform {
                Transform::Plugin(plugin) => plugin.value = absolute(plugin),
                Transform::Sql(SqlTransform { input, .. }) => {
                    if let SqlInput::File(file) = &mut input.value {
                        *file = absolute(file);
                    }
                }
            }
            for path in table.reference.values_mut() {
                path.value = base_dir.join(&**path).display().to_string();
            }
        }
        self.base_dir = out.to_path_buf();
        let tables = pipeline.silver.iter_mut().map(|table| &mut table.path);
        let others = [
            &mut pipeline.bronze.path,
            &mut pipeline.quarantine.path,
            &mut pipeline.late.path,
            &mut pipeline.days.path,
        ];
        for path in tables.chain(others) {
            // An absolute path must not lead out of the folder.
            path.value = path.trim_start_matches('/').to_owned();
        }
    }

    /// What plugins run in, with the folder of `[state]`.
    pub fn host(&self) -> anyhow::Result<Arc<Host>> {
        let state = self.base_dir.join(&*self.pipeline.state.path);
        let host = Host::with_state(&state, &this_program(), self.pipeline.reload.mode)?;
        self.name_tables(&host);
        Ok(host)
    }

    /// Names the tables whose versions are kept.
    fn name_tables(&self, host: &Host) {
        host.add_tables(self.pipeline.silver.iter().map(|table| self.base_dir.join(&*table.path)));
    }

    /// Loads every plugin, and builds and releases those that are out of date; reports all that cannot fill their tables at
    /// once.
    ///
    /// Works for as long as it takes, on the thread that it is called on.
    pub fn load_plugins(&self, host: &Arc<Host>) -> anyhow::Result<Loaded> {
        self.load_plugins_of(host, |_| true)
    }

    /// The same for some tables.
    pub fn load_plugins_of(&self, host: &Arc<Host>, of: impl Fn(&SilverTable) -> bool) -> anyhow::Result<Loaded> {
        self.name_tables(host);
        self.load_with(host, load_plugin, of)
    }

    /// Loads every plugin to look at it, and releases none: newer sources are built where no daemon looks.
    pub(crate) fn try_plugins(&self, host: &Arc<Host>) -> anyhow::Result<Loaded> {
        self.load_with(host, load_unreleased, |_| true)
    }

    fn load_with(
        &self,
        host: &Arc<Host>,
        load: fn(&SilverTable, &Path, Arc<Host>, Limits) -> Result<Plugin, LoadError>,
        of: impl Fn(&SilverTable) -> bool,
    ) -> anyhow::Result<Loaded> {
        let runtime = tokio::runtime::Handle::current();
        let limits = self.pipeline.limits.clone();
        let (mut errors, mut loaded) = (Vec::new(), Loaded::new());
        for table in self.pipeline.silver.iter().filter(|table| of(table)) {
            let loaded_plugin = load(table, &self.base_dir, host.clone(), limits.clone()).and_then(|plugin| {
                runtime.block_on(check_fit(table, &plugin, &self.base_dir))?;
                Ok(plugin)
            });
            match loaded_plugin {
                Ok(plugin) => {
                    loaded.insert(table.name.clone(), Arc::new(plugin));
                }
                Err(failure) => errors.push(config_error(&self.text, table, &failure)),
            }
        }
        if errors.is_empty() {
            Ok(loaded)
        } else {
            Err(invalid_config(&ConfigErrors::from(errors), &self.file, &self.text).into())
        }
    }
}

impl Setup {
    /// Reports the plugins of some tables that do not pass their cases: no daemon takes them up.
    pub(crate) fn check_cases(&self, loaded: &Loaded, of: impl Fn(&SilverTable) -> bool) -> anyhow::Result<()> {
        let mut errors = Vec::new();
        for table in self.pipeline.silver.iter().filter(|table| of(table)) {
            let Some(plugin) = loaded.get(&table.name) else { continue };
            let failure = match failed_cases(&Source::of(table, &self.base_dir), plugin) {
                Ok(None) => continue,
                Ok(Some(failed)) => anyhow!("{failed}. `silverd plugin test {}` shows all", table.name),
                Err(failure) => failure.context("run its cases"),
            };
            errors.push(config_error(&self.text, table, &failure.into()));
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(invalid_config(&ConfigErrors::from(errors), &self.file, &self.text).into())
    }

    /// Reports tables whose days are those of another zone than pipeline.toml says. A running silverd does not write
    /// them.
    pub(crate) async fn check_zones(&self) -> anyhow::Result<()> {
        let mut errors = Vec::new();
        for table in &self.pipeline.silver {
            let checked = check_zone(&table.name, &self.base_dir.join(&*table.path), table.time_zone).await;
            if let Err(failure) = checked {
                let what = format!("[silver.{}] {failure:#}", table.name);
                errors.push(ConfigError::new(
                    table.event_time.span.clone(),
                    what,
                    "its days are those of `time_zone`",
                    None,
                ));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(invalid_config(&ConfigErrors::from(errors), &self.file, &self.text).into())
    }

    /// Reports SQL that is not valid or queries tables that do not exist. A running silverd works without it.
    pub fn check_sql(&self) -> anyhow::Result<()> {
        let tables = Tables::new(&self.pipeline, &self.base_dir);
        let gold = self.pipeline.gold.iter().map(|gold| (format!("gold.{}", gold.name), &gold.sql, true));
        let panels = self.pipeline.panels.iter().map(|panel| (format!("panel.{}", panel.name), &panel.sql, false));
        let errors = gold.chain(panels).filter_map(|(title, sql, of_gold)| {
            let checked = sql::check_query(&tables, sql, of_gold);
            let checked =
                if of_gold { checked.and_then(|()| sql::check_gold_zone(&tables, &title, sql)) } else { checked };
            let failure = checked.err()?;
            Some(ConfigError::new(sql.span.clone(), format!("[{title}] {failure}"), "this SQL", None))
        });
        let mut errors: Vec<_> = errors.collect();
        errors.extend(self.pipeline.alerts.iter().filter_map(|alert| {
            let (span, failure, label) = match check_alert(&tables, alert).err()? {
                InvalidAlert::Sql(failure) => (&alert.sql.span, failure, "this SQL"),
                InvalidAlert::When(failure) => (&alert.when.span, failure, "this condition"),
            };
            Some(ConfigError::new(span.clone(), format!("[alert.{}] {failure}", alert.name), label, None))
        }));
        if errors.is_empty() {
            return Ok(());
        }
        Err(invalid_config(&ConfigErrors::from(errors), &self.file, &self.text).into())
    }
}

/// A plugin's failure as an error at the place in pipeline.toml that causes it.
fn config_error(text: &str, table: &SilverTable, failure: &LoadError) -> ConfigError {
    let plugin = table.transform.span();
    if let Some(error) = failure.source.downcast_ref::<SqlError>() {
        let place = error.place.as_ref().map_or_else(|| plugin.clone(), |place| place_in_string(text, plugin, place));
        return ConfigError::new(place, format!("[silver.{}] {error}", table.name), "this SQL", None);
    }
    let label = match &table.transform {
        Transform::Plugin(_) => "this plugin",
        Transform::Sql(_) => "this SQL",
    };
    let (span, label) = match &failure.key {
        Some(FaultyKey::EventTime) => (&table.event_time.span, "this column"),
        Some(FaultyKey::Dedup) => (table.dedup.as_ref().map_or(plugin, |dedup| &dedup.by.span), "these columns"),
        Some(FaultyKey::Reference(name)) => (table.reference.get(name).map_or(plugin, |file| &file.span), "this file"),
        Some(FaultyKey::Plugin) | None => (plugin, label),
    };
    ConfigError::new(span.clone(), format!("[silver.{}] {failure:#}", table.name), label, None)
}

pub(crate) fn invalid_config(errors: &ConfigErrors, file: &Path, text: &str) -> InvalidConfig {
    let color = std::io::stderr().is_terminal();
    InvalidConfig {
        text: errors.render(&file.display().to_string(), text, color),
        count: errors.len(),
        file: file.to_path_buf(),
    }
}
