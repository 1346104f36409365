//! Loads the plugin version that a table uses when silverd starts.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use silverd_core::config::{Limits, SilverTable};
use tracing::{info, warn};

use crate::delta::{last_plugin, open_log};
use crate::plugin::build::PluginLocation;
use crate::plugin::{Digest, Host, Plugin, load_kept, load_plugin};

/// Loads the version that a table uses at startup. "Its last version" is the one that wrote the table's last commit.
///
/// | pipeline.toml names            | last version kept       | the table uses                               |
/// |--------------------------------|-------------------------|----------------------------------------------|
/// | its last version               | yes                     | its last version                             |
/// | a blocked version              | yes                     | the replacement                              |
/// | another version                | yes                     | its last version, until the other is active  |
/// | a broken plugin, or none built | yes                     | its last version                             |
/// | anything                       | no, or the table is new | what pipeline.toml names, built if necessary |
pub(crate) async fn startup_version(
    config: &SilverTable,
    base_dir: &Path,
    host: &Arc<Host>,
    limits: &Limits,
) -> anyhow::Result<Plugin> {
    let last = match open_log(&base_dir.join(&*config.path))? {
        Some(log) => last_plugin(&log).await?,
        None => None,
    };
    let (config, base_dir, host, limits) = (config.clone(), base_dir.to_path_buf(), host.clone(), limits.clone());
    let load = move || -> anyhow::Result<Plugin> {
        let kept = last.and_then(|digest| {
            load_kept(&config, &base_dir, host.clone(), limits.clone(), &digest).unwrap_or_else(|error| {
                info!(table = %config.name, "load the version that wrote the table last: {error:#}");
                None
            })
        });
        match kept {
            Some(kept) => Ok(unless_replaced(&config, &base_dir, &host, &limits, kept)),
            None => Ok(load_plugin(&config, &base_dir, host, limits)?),
        }
    };
    tokio::task::spawn_blocking(load).await?
}

/// The kept version, or the replacement if the version that pipeline.toml names is blocked in favor of another one.
fn unless_replaced(config: &SilverTable, base_dir: &Path, host: &Arc<Host>, limits: &Limits, kept: Plugin) -> Plugin {
    let candidate_digest = match digest_of_newest(&base_dir.join(&*config.plugin)) {
        Ok(Some(digest)) => digest,
        Ok(None) => return kept,
        Err(error) => {
            warn!(table = %config.name, "{error:#}; using version {}, which wrote the table last", kept.digest);
            return kept;
        }
    };
    let blocked_versions = host.blocked_versions.as_ref();
    let replacement = blocked_versions.and_then(|versions| versions.replacement_for(&config.name, &candidate_digest));
    let replacement = replacement.filter(|replacement| *replacement != kept.digest).and_then(|replacement| {
        load_kept(config, base_dir, host.clone(), limits.clone(), replacement.as_str()).ok().flatten()
    });
    replacement.unwrap_or(kept)
}

/// The digest of a plugin's newest wasm; `None` if it is not built.
fn digest_of_newest(plugin: &Path) -> anyhow::Result<Option<Digest>> {
    let Some(wasm) = PluginLocation::of(plugin)?.wasm() else { return Ok(None) };
    let bytes = std::fs::read(&wasm).with_context(|| format!("read plugin {}", wasm.display()))?;
    Ok(Some(Digest::of(&bytes)))
}
