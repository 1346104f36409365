//! Validates a new plugin version before it may write a table.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use deltalake_core::logstore::LogStoreRef;
use silverd_core::chunk::Chunk;
use silverd_core::config::{Limits, Reload, SilverTable};
use silverd_core::route::Router;
use silverd_core::shadow::Shadow;

use super::pending::Candidate;
use super::shadow::shadow_run;
use crate::bronze::newest_events;
use crate::cases::failed_cases;
use crate::delta::PluginVersion;
use crate::plugin::{Digest, Host, Plugin, Source, Transformer, VersionFile, config_digest, load_file, version_with};
use crate::runtime::causes;
use crate::tables::silver::check_fit;

/// What is needed to load a version and to validate it.
#[derive(Clone)]
pub(crate) struct PluginLoader {
    pub(crate) host: Arc<Host>,
    pub(crate) limits: Limits,
    pub(crate) bronze: LogStoreRef,
    /// The folder to which the paths in pipeline.toml are relative.
    pub(crate) base_dir: PathBuf,
}

/// A build that is to be validated, with the current settings and reference files.
pub(crate) struct Build {
    pub(crate) file: VersionFile,
    pub(crate) digest: Digest,
    /// The cases in the plugin's folder are for this build, and not for a later one.
    pub(crate) has_cases: bool,
}

/// A version that must not serve.
#[derive(Debug, thiserror::Error)]
#[error("{}", causes(.why))]
pub(crate) struct RejectedVersion {
    pub(crate) version: PluginVersion,
    why: anyhow::Error,
}

/// Loads a build, and validates it: its world, its configuration, its schema, its cases, and a shadow run against the active
/// version. `None` if it is the active version.
///
/// # Errors
///
/// [`RejectedVersion`] if the build is at fault.
pub(crate) async fn validate(
    loader: &PluginLoader,
    config: &SilverTable,
    reload: &Reload,
    Build { file, digest, has_cases }: Build,
    active: &Arc<Plugin>,
) -> anyhow::Result<Option<Candidate>> {
    let written_at = file.modified();
    let has_active_digest = digest == active.digest;
    let plugin = {
        let (loader, config, active) = (loader.clone(), config.clone(), active.clone());
        let load = move || {
            let given = config_digest(&config, &loader.base_dir)?;
            if has_active_digest && given == active.config_digest {
                return Ok(None);
            }
            let loaded = load_file(&config, &loader.base_dir, loader.host, loader.limits, &file);
            loaded.map(Some).map_err(|failure| match (failure.key.is_none(), file.exists()) {
                (true, true) => {
                    let version = version_with(digest.as_str(), &given);
                    anyhow::Error::new(RejectedVersion { version, why: failure.into() })
                }
                _ => failure.into(),
            })
        };
        match tokio::task::spawn_blocking(load).await?? {
            Some(plugin) => Arc::new(plugin),
            None => return Ok(None),
        }
    };
    let rejected = |why: anyhow::Error| RejectedVersion { version: plugin.version(), why };
    let fit = check_fit(config, &plugin, &loader.base_dir).await;
    fit.context("its rows do not fit the table").map_err(rejected)?;
    if has_cases {
        check_cases(loader, config, &plugin).await.map_err(rejected)?;
    }
    let shadow = match newest_events_of(loader, config, reload).await? {
        None => None,
        Some(events) => {
            let (active, new) = (active.clone(), plugin.clone());
            let compared = tokio::task::spawn_blocking(move || shadow_run(&active, &new, &events)).await?;
            compared.context("shadow run").map_err(rejected)?
        }
    };
    let max_new_rejects = config.max_new_rejects.unwrap_or(reload.max_new_rejects);
    if let Some(shadow) = &shadow {
        check_rejects(shadow, max_new_rejects, &config.name).map_err(rejected)?;
    }
    let started = {
        let plugin = plugin.clone();
        tokio::task::spawn_blocking(move || start(plugin)).await?
    };
    let transformer = started.map_err(rejected)?;
    let config = config.clone();
    Ok(Some(Candidate { transformer, config, shadow, max_new_rejects, written_at, is_earlier_version: false }))
}

/// Instantiates a plugin, so that its first event need not wait for that.
pub(super) fn start(plugin: Arc<Plugin>) -> anyhow::Result<Transformer> {
    let mut transformer = Transformer::new(plugin);
    transformer.start()?;
    Ok(transformer)
}

/// The events of the shadow run: the table's newest ones. `None` without a shadow run.
async fn newest_events_of(
    loader: &PluginLoader,
    config: &SilverTable,
    reload: &Reload,
) -> anyhow::Result<Option<Chunk>> {
    if reload.shadow_events == 0 {
        return Ok(None);
    }
    let router = Router::new(std::slice::from_ref(config));
    let events = newest_events::newest(&loader.bronze, &router, 0, reload.shadow_events).await;
    events.context("shadow run: read the newest events of bronze").map(Some)
}

/// Runs the table's cases.
async fn check_cases(loader: &PluginLoader, config: &SilverTable, plugin: &Arc<Plugin>) -> anyhow::Result<()> {
    let (source, plugin) = (Source::of(config, &loader.base_dir), plugin.clone());
    let failed = tokio::task::spawn_blocking(move || failed_cases(&source, &plugin)).await?.context("run its cases")?;
    match failed {
        Some(failed) => bail!("{failed}. `silverd plugin test {}` shows all", config.name),
        None => Ok(()),
    }
}

fn check_rejects(shadow: &Shadow, max_new_rejects: f64, table: &str) -> anyhow::Result<()> {
    // No share of these is allowed: such a version fails on live events, too.
    ensure!(
        shadow.faults_added == 0,
        "shadow run: it fails on {} of {} events on which the current version does not fail ({})",
        shadow.faults_added,
        shadow.events,
        shadow.fault_example.as_deref().unwrap_or_default()
    );
    ensure!(
        shadow.added_share() <= max_new_rejects,
        "shadow run: it rejects {} of {} events that the current version accepts, {:.1} %, and max_new_rejects allows \
         {:.1} %. If this is intended, raise max_new_rejects in [silver.{table}]. {shadow}",
        shadow.rejects_added,
        shadow.events,
        100.0 * shadow.added_share(),
        100.0 * max_new_rejects
    );
    Ok(())
}
