//! `silverd check`: checks pipeline.toml, its plugins and its SQL, and with `--fix` replaces renamed keys first. It releases
//! nothing.

use std::path::Path;

use anyhow::Context;
use silverd_core::config::{self, Pipeline, Topics};
use silverd_core::route::Router;

use crate::app::setup::Setup;
use crate::http::Endpoint;
use crate::notify::check_files;
use crate::runtime::atomic_write::atomic_write;
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct CheckArgs {
    /// First rewrite keys and values of pipeline.toml that were renamed
    #[arg(long)]
    fix: bool,
}

pub(super) async fn check(file: &Path, args: CheckArgs) -> anyhow::Result<()> {
    if args.fix {
        fix(file)?;
    }
    let setup = Setup::read(file)?;
    let load = move || setup.host().and_then(|host| Ok((setup.try_plugins(&host)?, setup)));
    let (loaded, setup) = tokio::task::spawn_blocking(load).await??;
    for table in &setup.pipeline.silver {
        let Some(plugin) = loaded.get(&table.name) else { continue };
        let (schema, digest) = (&plugin.schema, &plugin.digest);
        out!("{}: {} {digest}, {} columns", table.name, schema.interface, schema.columns.len());
    }
    warn_of_idle_tables(&setup.pipeline);
    Endpoint::load(&setup.pipeline.http, true, &setup.base_dir)?;
    setup.check_zones().await?;
    check_files(&setup.pipeline.notify, &setup.base_dir).await?;
    setup.check_sql()?;
    out!("{}: no errors", file.display());
    Ok(())
}

/// Says which tables take events of no topic that is read: a name may be misspelled. They may have taken others before.
fn warn_of_idle_tables(pipeline: &Pipeline) {
    let Topics::Names(topics) = &pipeline.source.topics else { return };
    let router = Router::new(&pipeline.silver);
    for (index, table) in pipeline.silver.iter().enumerate() {
        if !topics.iter().any(|topic| router.takes(index, topic)) {
            let topics = topics.join(", ");
            out!("{}: warning: its `match` takes events of no topic that [source] reads ({topics})", table.name);
        }
    }
}

/// Rewrites the file, and prints each change with its line.
fn fix(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let fixed = config::fix(&text);
    if fixed.text != text {
        atomic_write(file, &fixed.text)?;
    }
    let file = file.display();
    for change in &fixed.changes {
        out!("{file}:{}: {}", change.line, change.message);
    }
    for left in &fixed.remaining {
        out!("{file}:{}: not rewritten: {}", left.line, left.message);
    }
    if fixed.changes.is_empty() && fixed.remaining.is_empty() {
        out!("{file}: nothing to rewrite");
    }
    Ok(())
}
