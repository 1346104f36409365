//! What a new version must show before it may fill a table.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use deltalake_core::logstore::LogStoreRef;
use silverd_core::config::{Limits, Reload, SilverTable};
use silverd_core::route::Router;
use silverd_core::shadow::Shadow;

use super::{Candidate, shadow_run};
use crate::sample;
use crate::silver::{fit, given, load_file};
use crate::transform::{Digest, Host, Plugin, Transformer};

/// What a proof needs.
#[derive(Clone)]
pub struct Kit {
    pub host: Arc<Host>,
    pub limits: Limits,
    pub bronze: LogStoreRef,
    /// Paths of pipeline.toml count from here.
    pub base: PathBuf,
}

/// Loads a version, which has this digest, and proves it beside the one that serves: its world, what it is given, its schema, and a shadow run.
/// `None` if it is the one that serves.
pub async fn prove(
    kit: &Kit,
    config: &SilverTable,
    reload: &Reload,
    (file, lies): (&Path, &Digest),
    serving: &Arc<Plugin>,
) -> anyhow::Result<Option<Candidate>> {
    let written_at: Option<SystemTime> = file.metadata().and_then(|found| found.modified()).ok();
    let plugin = {
        let (kit, config, file) = (kit.clone(), config.clone(), file.to_path_buf());
        let (lies_there, serving) = (*lies == serving.digest, serving.clone());
        let load = move || {
            if lies_there && given(&config, &kit.base)? == serving.given {
                return Ok(None);
            }
            load_file(&config, &kit.base, kit.host, kit.limits, &file).map(Some)
        };
        match tokio::task::spawn_blocking(load).await?? {
            Some(plugin) => Arc::new(plugin),
            None => return Ok(None),
        }
    };
    fit(config, &plugin, &kit.base).await.context("its rows do not fit the table")?;
    let shadow = beside(kit, config, reload, serving, &plugin).await?;
    let max_new_rejects = config.max_new_rejects.unwrap_or(reload.max_new_rejects);
    if let Some(shadow) = &shadow
        && shadow.added_share() > max_new_rejects
    {
        bail!(
            "shadow run: it rejects {} of {} events which the version that serves takes, {:.1} %, and max_new_rejects \
             allows {:.1} %. If that is meant, raise max_new_rejects in [silver.{}]. {shadow}",
            shadow.rejects_added,
            shadow.events,
            100.0 * shadow.added_share(),
            100.0 * max_new_rejects,
            config.name
        );
    }
    let transformer = tokio::task::spawn_blocking(move || start(plugin)).await??;
    Ok(Some(Candidate { transformer, config: config.clone(), shadow, max_new_rejects, written_at, back: false }))
}

/// A plugin with an instance that waits for its first event.
pub fn start(plugin: Arc<Plugin>) -> anyhow::Result<Transformer> {
    let mut transformer = Transformer::new(plugin);
    transformer.start()?;
    Ok(transformer)
}

/// The shadow run; `None` where there is nothing to compare.
async fn beside(
    kit: &Kit,
    config: &SilverTable,
    reload: &Reload,
    old: &Arc<Plugin>,
    new: &Arc<Plugin>,
) -> anyhow::Result<Option<Shadow>> {
    if reload.shadow_events == 0 {
        return Ok(None);
    }
    let router = Router::new(std::slice::from_ref(config));
    let events = sample::newest(&kit.bronze, &router, 0, reload.shadow_events).await;
    let events = events.context("shadow run: read the newest events of bronze")?;
    let (old, new) = (old.clone(), new.clone());
    let run = move || shadow_run(&old, &new, &events).context("shadow run");
    tokio::task::spawn_blocking(run).await?
}
