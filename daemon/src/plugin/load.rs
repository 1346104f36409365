//! Loads the plugin of a table with its configuration from pipeline.toml, and checks that its rows have the columns
//! that pipeline.toml names.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use silverd_core::config::{Limits, ReloadMode, SilverTable, TableName, Transform};
use silverd_core::input::NAME_LINE;
use silverd_core::schema::{Kind, TableSchema};

use super::component::Plugin;
use super::config::{Config, ReferenceFile};
use super::deployments::version_with;
use super::digest::Digest;
use super::host::Host;
use super::source::{Source, VersionFile};
use crate::delta::PluginVersion;

/// Loaded plugins by table.
pub type Loaded = BTreeMap<TableName, Arc<Plugin>>;

/// Why a table's plugin cannot be loaded.
#[derive(Debug)]
pub(crate) struct LoadError {
    /// The key of the table's section that is wrong; `None` if the plugin itself is.
    pub(crate) key: Option<FaultyKey>,
    pub(crate) source: anyhow::Error,
}

/// A key of a `[silver.*]` section that does not fit the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FaultyKey {
    Plugin,
    EventTime,
    Dedup,
    /// The entry of `reference` with this name.
    Reference(String),
}

/// An earlier version of a table's plugin, or which part of it is no longer kept.
pub(crate) enum KeptVersion {
    Loaded(Box<Plugin>),
    /// The plugin's file is gone.
    NoPlugin,
    /// The settings and reference files that it had are gone.
    NoGiven,
}

/// Builds a plugin's newer sources, and returns its newest version.
type Build = fn(&Source) -> anyhow::Result<VersionFile>;
/// Loads a table's plugin from a file.
type LoadFile = fn(&SilverTable, &Path, Arc<Host>, Limits, &VersionFile) -> Result<Plugin, LoadError>;

/// Loads the version of a plugin that should serve its table: the newest build, for which it builds newer sources first;
/// or the one that was deployed instead.
pub(crate) fn load_plugin(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
) -> Result<Plugin, LoadError> {
    load_newest(config, base_dir, host, limits, (Source::build, load_file))
}

/// The same to look at, and not to serve: newer sources are built where no daemon looks, and nothing is kept.
pub(crate) fn load_unreleased(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
) -> Result<Plugin, LoadError> {
    load_newest(config, base_dir, host, limits, (Source::build_trial, load_trial))
}

fn load_newest(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
    (build, load): (Build, LoadFile),
) -> Result<Plugin, LoadError> {
    let kept = |digest: &str| load_kept(config, base_dir, host.clone(), limits.clone(), digest);
    let held = host.held(&config.name);
    if let (ReloadMode::Manual, Some(deployment)) = (host.reload_mode, &held.deployment)
        && let Some(plugin) = kept(&deployment.version)?
    {
        return Ok(plugin);
    }
    let file = build(&Source::of(config, base_dir))?;
    if let Some(deployment) = &held.deployment {
        let (digest, given) = (file.digest()?, config_digest(config, base_dir)?);
        let newest = version_with(digest.as_str(), &given);
        let by_hand = held.by_hand(host.reload_mode, Some(&digest));
        let rollback = Some(deployment).filter(|rollback| rollback.rolled_back && held.failed(&newest).is_some());
        if let Some(deployment) = by_hand.or(rollback)
            && let Some(plugin) = kept(&deployment.version)?
        {
            return Ok(plugin);
        }
    }
    load(config, base_dir, host.clone(), limits.clone(), &file)
}

/// Loads a table's plugin from this file, and keeps it: rows may be made with it.
pub(crate) fn load_file(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
    file: &VersionFile,
) -> Result<Plugin, LoadError> {
    let bytes = file.read()?;
    let plugin = load_bytes(config, base_dir, host, limits, file, &bytes)?;
    plugin.keep(&bytes);
    Ok(plugin)
}

/// Loads a table's plugin from this file to try it: it takes no other version's place among those that are kept.
pub(crate) fn load_trial(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
    file: &VersionFile,
) -> Result<Plugin, LoadError> {
    load_bytes(config, base_dir, host, limits, file, &file.read()?)
}

fn load_bytes(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
    file: &VersionFile,
    bytes: &[u8],
) -> Result<Plugin, LoadError> {
    let plugin = Plugin::compile(host, &config.name, bytes, plugin_config(config, base_dir)?, limits);
    let plugin = plugin.with_context(|| format!("load {file}"))?;
    check_keys(config, &plugin)?;
    Ok(plugin)
}

/// Loads an earlier version of a table's plugin with the current configuration; `None` if its file was not kept.
pub(crate) fn load_kept(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
    digest: &str,
) -> Result<Option<Plugin>, LoadError> {
    load_version(config, base_dir, host, limits, digest, None)
}

/// The version of a table's plugin that wrote some commits, with the settings and reference files that it had then;
/// `None` if either was not kept. See [`kept_version`].
pub(crate) fn load_version(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
    digest: &str,
    given: Option<&str>,
) -> Result<Option<Plugin>, LoadError> {
    let version = PluginVersion { digest: digest.to_owned(), given: given.map(str::to_owned) };
    Ok(match kept_version(config, base_dir, host, limits, &version)? {
        KeptVersion::Loaded(plugin) => Some(*plugin),
        KeptVersion::NoPlugin | KeptVersion::NoGiven => None,
    })
}

/// The version of a table's plugin that wrote some commits, with the settings and reference files that it had then.
/// Commits of older versions of silverd do not say what it had: the current ones count.
pub(crate) fn kept_version(
    config: &SilverTable,
    base_dir: &Path,
    host: Arc<Host>,
    limits: Limits,
    version: &PluginVersion,
) -> Result<KeptVersion, LoadError> {
    let (Some(kept_plugins), Some(digest)) = (&host.kept_plugins, Digest::parse(&version.digest)) else {
        return Ok(KeptVersion::NoPlugin);
    };
    let Some(bytes) = kept_plugins.get(&digest)? else { return Ok(KeptVersion::NoPlugin) };
    let current = plugin_config(config, base_dir);
    let given = match version.given.as_deref().and_then(Digest::parse) {
        None => current?,
        Some(given) => match current {
            Ok(current) if current.digest() == given => current,
            _ => match host.kept_configs.as_ref().map(|kept_configs| kept_configs.get(&given)).transpose()?.flatten() {
                Some(kept) => kept,
                None => return Ok(KeptVersion::NoGiven),
            },
        },
    };
    let plugin = Plugin::compile(host.clone(), &config.name, &bytes, given, limits);
    let plugin = plugin.with_context(|| format!("load the kept plugin {digest}"))?;
    check_keys(config, &plugin)?;
    // It was used, and it may have been given something else than before.
    plugin.keep(&bytes);
    Ok(KeptVersion::Loaded(Box::new(plugin)))
}

/// The kept file of a version; `None` if it was not kept.
pub(crate) fn kept_file(host: &Host, digest: &Digest) -> anyhow::Result<Option<PathBuf>> {
    let Some(kept_plugins) = &host.kept_plugins else { return Ok(None) };
    Ok(kept_plugins.get(digest)?.map(|_| kept_plugins.path(digest)))
}

/// The digest of a table's plugin configuration: its settings and the contents of its reference files.
pub(crate) fn config_digest(config: &SilverTable, base_dir: &Path) -> Result<Digest, LoadError> {
    Ok(plugin_config(config, base_dir)?.digest())
}

/// The configuration that a table's plugin gets.
fn plugin_config(config: &SilverTable, base_dir: &Path) -> Result<Config, LoadError> {
    let mut reference = Vec::new();
    for (name, path) in &config.reference {
        let path = base_dir.join(&**path);
        let contents = std::fs::read(&path)
            .with_context(|| format!("read reference file {}", path.display()))
            .map_err(|source| LoadError { key: Some(FaultyKey::Reference(name.clone())), source })?;
        reference.push(ReferenceFile { name: name.clone(), contents });
    }
    let wit = match config.transform {
        Transform::Plugin(_) => names_text(config, base_dir)?,
        Transform::Sql(_) => None,
    };
    let settings = config.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Config { settings, reference, wit })
}

/// The path of the table's file in `wit/silver`, whether it exists or not.
pub(crate) fn wit_file(config: &SilverTable, base_dir: &Path) -> PathBuf {
    base_dir.join("wit/silver").join(format!("{}.wit", config.name.replace('_', "-")))
}

/// The text of that file, if it names keys of JSON.
fn names_text(config: &SilverTable, base_dir: &Path) -> anyhow::Result<Option<String>> {
    let path = wit_file(config, base_dir);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text).filter(|text| text.contains(NAME_LINE))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Checks what pipeline.toml asks of the plugin.
fn check_keys(config: &SilverTable, plugin: &Plugin) -> Result<(), LoadError> {
    let error = |key| move |message: String| LoadError { key: Some(key), source: anyhow!(message) };
    let schema = &plugin.schema;
    if config.tombstones && !plugin.input.takes_tombstones() {
        let message = "`tombstones = true` needs a plugin that takes records without a value: its WIT declares `record event { \
                       input: option<input>, meta: meta }`, or it takes the raw `batch` of silverd:pipeline@0.2.0";
        return Err(error(FaultyKey::Plugin)(message.to_owned()));
    }
    check_event_time(schema, &config.event_time).map_err(error(FaultyKey::EventTime))?;
    for name in config.dedup.iter().flat_map(|dedup| dedup.by.iter()) {
        check_dedup_column(schema, name).map_err(error(FaultyKey::Dedup))?;
    }
    Ok(())
}

fn check_event_time(schema: &TableSchema, name: &str) -> Result<(), String> {
    match schema.column(name) {
        Some(column) if column.kind == Kind::Timestamp && !column.nullable => Ok(()),
        Some(_) => Err("names a column that is no `timestamp`, or one that may be null".to_owned()),
        None => Err(no_such_column(schema)),
    }
}

/// A dedup column must have a value in every row, and equal values must be equal bytes.
fn check_dedup_column(schema: &TableSchema, name: &str) -> Result<(), String> {
    match schema.column(name).map(|column| (column, &column.kind)) {
        None => Err(format!("`{name}` {}", no_such_column(schema))),
        Some((column, _)) if column.nullable => Err(format!("`{name}` names a column that may be null")),
        Some((_, Kind::Float32 | Kind::Float64 | Kind::List(_) | Kind::Struct(_))) => {
            Err(format!("`{name}` names a column of floats, lists or records, which cannot identify an event"))
        }
        Some(_) => Ok(()),
    }
}

fn no_such_column(schema: &TableSchema) -> String {
    let names: Vec<_> = schema.columns.iter().map(|column| column.name.as_str()).collect();
    format!("names no column of the table's rows, which have {}", names.join(", "))
}

impl fmt::Display for FaultyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin => f.write_str("plugin"),
            Self::EventTime => f.write_str("event_time"),
            Self::Dedup => f.write_str("dedup"),
            Self::Reference(name) => write!(f, "reference {name}"),
        }
    }
}

/// The key, if there is one; then the source. `{:#}` prints the whole chain.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) if f.alternate() => write!(f, "{key}: {:#}", self.source),
            Some(key) => write!(f, "{key}"),
            None => fmt::Display::fmt(&self.source, f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source: &(dyn std::error::Error + 'static) = &*self.source;
        match self.key {
            Some(_) => Some(source),
            None => source.source(),
        }
    }
}

impl From<anyhow::Error> for LoadError {
    fn from(source: anyhow::Error) -> Self {
        Self { key: None, source }
    }
}
