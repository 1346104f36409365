//! `silverd check`: checks pipeline.toml, its plugins and its SQL, and with `--fix` replaces renamed keys first. It releases
//! nothing.

use std::path::Path;

use anyhow::Context;
use silverd_core::config;

use crate::app::setup::Setup;
use crate::runtime::atomic_write::atomic_write;

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
        println!("{}: {} {digest}, {} columns", table.name, schema.interface, schema.columns.len());
    }
    setup.check_sql()?;
    println!("{}: no errors", file.display());
    Ok(())
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
        println!("{file}:{}: {}", change.line, change.message);
    }
    for left in &fixed.remaining {
        println!("{file}:{}: not rewritten: {}", left.line, left.message);
    }
    if fixed.changes.is_empty() && fixed.remaining.is_empty() {
        println!("{file}: nothing to rewrite");
    }
    Ok(())
}
