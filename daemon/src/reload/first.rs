//! The version with which a table begins when the daemon starts.
//!
//! | in the plugin's place lies                      | and the table's last version | begins with                            |
//! |--------------------------------------------------|------------------------------|----------------------------------------|
//! | the table's last version                         |                              | it                                     |
//! | one that is held off                             | is kept                      | what is used instead                   |
//! | another one                                      | is kept                      | the last one; the keeper proves the other |
//! | nothing that loads, or what must be built first  | is kept                      | the last one                           |
//! | anything                                         | is not kept, or there is none | what lies there, built if it must be  |

use std::path::Path;
use std::sync::Arc;

use silverd_core::config::{Limits, SilverTable};
use tracing::{info, warn};

use crate::delta::{last_plugin, log_at};
use crate::silver::{load_kept, load_plugin};
use crate::transform::build::Place;
use crate::transform::{Digest, Host, Plugin};

/// Loads the version with which a table begins.
pub async fn first(config: &SilverTable, base: &Path, host: &Arc<Host>, limits: &Limits) -> anyhow::Result<Plugin> {
    let last = match log_at(&base.join(&*config.path))? {
        Some(log) => last_plugin(&log).await?,
        None => None,
    };
    let (config, base, host, limits) = (config.clone(), base.to_path_buf(), host.clone(), limits.clone());
    tokio::task::spawn_blocking(move || {
        let kept = last.and_then(|digest| {
            load_kept(&config, &base, host.clone(), limits.clone(), &digest).unwrap_or_else(|error| {
                info!(table = %config.name, "the version that filled the table last: {error:#}");
                None
            })
        });
        match kept {
            Some(kept) => Ok(beside(&config, &base, &host, &limits, kept)),
            None => load_plugin(&config, &base, host, limits),
        }
    })
    .await?
}

/// The kept version, unless the one in the plugin's place is held off in favour of yet another.
fn beside(config: &SilverTable, base: &Path, host: &Arc<Host>, limits: &Limits, kept: Plugin) -> Plugin {
    let place = base.join(&*config.plugin);
    let lies = Place::of(&place).and_then(|place| Ok(place.wasm().map(std::fs::read).transpose()?));
    let lies = match lies {
        Ok(Some(bytes)) => Digest::of(&bytes),
        Ok(None) => return kept,
        Err(error) => {
            warn!(table = %config.name, "{error:#}; going on with version {}, which filled the table last", kept.digest);
            return kept;
        }
    };
    let used = host.holds.as_ref().and_then(|holds| holds.instead_of(&config.name, &lies));
    let used = used.filter(|used| *used != kept.digest);
    let used =
        used.and_then(|used| load_kept(config, base, host.clone(), limits.clone(), used.as_str()).ok().flatten());
    used.unwrap_or(kept)
}
