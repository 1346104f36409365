//! Loads the plugin version that a table uses when silverd starts.

use std::path::Path;
use std::sync::Arc;

use silverd_core::config::{Limits, SilverTable};
use tracing::{info, warn};

use crate::delta::last_plugin;
use crate::plugin::build::newest_digest;
use crate::plugin::{Choice, Host, Plugin, choose, load_kept, load_plugin};

/// Loads the version that a table uses at startup. "Its last version" is the one that wrote the table's last commit.
///
/// | pipeline.toml names            | last version kept       | the table uses                               |
/// |--------------------------------|-------------------------|----------------------------------------------|
/// | its last version               | yes                     | its last version                             |
/// | one that another is deployed instead of | yes            | the deployed one, as [`choose`] says         |
/// | another version                | yes                     | its last version, until the other is active  |
/// | a broken plugin, or none built | yes                     | its last version                             |
/// | anything                       | no, or the table is new | the deployed one, or what pipeline.toml names, built if necessary |
pub(crate) async fn startup_version(
    config: &SilverTable,
    base_dir: &Path,
    host: &Arc<Host>,
    limits: &Limits,
) -> anyhow::Result<Plugin> {
    let last = last_plugin(&base_dir.join(&*config.path)).await?;
    let (config, base_dir, host, limits) = (config.clone(), base_dir.to_path_buf(), host.clone(), limits.clone());
    let load = move || -> anyhow::Result<Plugin> {
        let kept = last.and_then(|digest| {
            load_kept(&config, &base_dir, host.clone(), limits.clone(), &digest).unwrap_or_else(|error| {
                info!(table = %config.name, "load the version that wrote the table last: {error:#}");
                None
            })
        });
        match kept {
            Some(kept) => Ok(deployed_instead(&config, &base_dir, &host, &limits, &kept).unwrap_or(kept)),
            None => Ok(load_plugin(&config, &base_dir, host, limits)?),
        }
    };
    tokio::task::spawn_blocking(load).await?
}

/// The version that was deployed instead of this one.
fn deployed_instead(
    config: &SilverTable,
    base_dir: &Path,
    host: &Arc<Host>,
    limits: &Limits,
    kept: &Plugin,
) -> Option<Plugin> {
    let deployment = host.deployments.as_ref()?.get(&config.name)?;
    let newest = newest_digest(&base_dir.join(&*config.plugin)).unwrap_or_else(|error| {
        warn!(table = %config.name, "{error:#}; using version {}, which wrote the table last", kept.digest);
        None
    });
    match choose(host.reload_mode, Some(&deployment), newest.as_ref(), &kept.digest) {
        Choice::Deployed(version) => {
            load_kept(config, base_dir, host.clone(), limits.clone(), version.as_str()).ok().flatten()
        }
        Choice::Newest | Choice::Stays => None,
    }
}
