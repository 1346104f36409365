//! `silverd plugin rollback`: an earlier version of a plugin fills its table again, in a running daemon as at the next start.

use std::path::Path;

use anyhow::{Context, bail};
use deltalake_core::logstore::LogStoreRef;

use crate::cli::setup::Setup;
use crate::delta::{history as spans_of, log_at};
use crate::reload::{Held, Holds};
use crate::silver::{fits, load_kept};
use crate::transform::Digest;
use crate::transform::build::wasm_of;

#[derive(clap::Args, Debug)]
pub struct RollbackArgs {
    /// A Silver table of pipeline.toml
    table: String,
    /// The version that is to fill it: its digest, or the beginning of it [default: the one before the last]
    #[arg(long, value_name = "DIGEST")]
    to: Option<String>,
    /// End it: what lies in the plugin's place fills the table again
    #[arg(long, conflicts_with = "to")]
    release: bool,
}

pub async fn rollback(config: &Path, args: &RollbackArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let index = setup.table(&args.table)?;
    let table = &setup.pipeline.silver[index];
    let host = setup.host()?;
    let holds = host.holds.as_ref().context("the folder of [state] cannot be used, and remembers no versions")?;
    if args.release {
        return release(holds, &table.name);
    }
    let Some(log) = log_at(&setup.base.join(&*table.path))? else {
        bail!("nothing was written to table {} yet: there is no version to go back to", table.name);
    };
    let place = setup.base.join(&*table.plugin);
    let lies = tokio::task::block_in_place(|| anyhow::Ok(Digest::of(&std::fs::read(wasm_of(&place)?)?)));
    let lies = lies.with_context(|| format!("look at what lies in {}", place.display()))?;
    let target = target(&log, args.to.as_deref(), &lies).await?;
    if target == lies {
        bail!("version {target} is what lies in {}: `--release` lets it fill the table", place.display());
    }
    let limits = setup.pipeline.limits.clone();
    let load = || load_kept(table, &setup.base, host.clone(), limits, target.as_str());
    let plugin = tokio::task::block_in_place(load)?.with_context(|| {
        format!("the file of version {target} is not kept under {}: build it again", setup.pipeline.state.path.value)
    })?;
    fits(table, &plugin, &setup.base).await?;
    holds.put(&table.name, &Held::new(&target, &lies, "rolled back by hand".to_owned()))?;
    println!(
        "{}: version {target} instead of {lies}, in a running silverd at once, and at every start, until another wasm \
         lies in {}",
        table.name, table.plugin.value
    );
    println!("Rows of {lies} stay; `silverd undo --plugin {lies} {}` makes them anew by {target}", table.name);
    Ok(())
}

fn release(holds: &Holds, table: &str) -> anyhow::Result<()> {
    match holds.get(table) {
        Some(held) => {
            holds.remove(table);
            println!("{table}: version {} is held off no more", Digest::short(&held.instead_of));
        }
        None => println!("{table}: no version is held off"),
    }
    Ok(())
}

/// The version that is meant, of those that have filled the table.
async fn target(log: &LogStoreRef, given: Option<&str>, lies: &Digest) -> anyhow::Result<Digest> {
    let spans = spans_of(log.object_store(None).as_ref()).await?;
    let mut known: Vec<&str> = Vec::new();
    for span in spans.iter().rev() {
        if !known.contains(&&*span.digest) {
            known.push(&span.digest);
        }
    }
    let found: Vec<&str> = match given {
        Some(given) => known.iter().copied().filter(|digest| digest.starts_with(given)).collect(),
        None => known.iter().copied().find(|digest| *digest != lies.as_str()).into_iter().collect(),
    };
    match found[..] {
        [one] => Digest::parse(one).with_context(|| format!("the log names `{one}` as a plugin's digest")),
        [] => bail!(
            "no such version has filled the table, which has seen {}",
            known.iter().map(|digest| Digest::short(digest)).collect::<Vec<_>>().join(", ")
        ),
        _ => bail!("several versions begin like this: give more of the digest"),
    }
}
