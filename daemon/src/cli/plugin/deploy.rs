//! `silverd plugin deploy`: serves an earlier version of a table's plugin, or the newest build again. A running silverd applies
//! it at once, and every start does.

use std::path::Path;

use anyhow::{Context, bail};

use crate::app::setup::Setup;
use crate::delta::{open_log, plugin_history};
use crate::plugin::build::wasm_of;
use crate::plugin::{BlockedVersion, BlockedVersions, Digest, load_kept};
use crate::tables::silver::check_fit;

#[derive(clap::Args, Debug)]
pub(super) struct DeployArgs {
    /// A Silver table of pipeline.toml
    table: String,
    /// Serve this version: its digest, or the first characters of it [default: the newest build]
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
}

pub(super) async fn deploy(config: &Path, args: &DeployArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let table = &setup.pipeline.silver[setup.table(&args.table)?];
    let host = setup.host()?;
    let blocked_versions = host.blocked_versions.as_ref().context(
        "the folder of [state] cannot be used, so silverd cannot remember which version to serve; see the warning above",
    )?;
    let Some(given) = &args.digest else {
        serve_newest(blocked_versions, &table.name);
        return Ok(());
    };
    let folder = setup.base_dir.join(&*table.plugin);
    let newest = tokio::task::block_in_place(|| anyhow::Ok(Digest::of(&std::fs::read(wasm_of(&folder)?)?)));
    let newest = newest.with_context(|| format!("read the newest build of {}", folder.display()))?;
    let target = find_version(&setup.base_dir.join(&*table.path), &table.name, given, &newest).await?;
    if target == newest {
        serve_newest(blocked_versions, &table.name);
        return Ok(());
    }
    let limits = setup.pipeline.limits.clone();
    let load = || load_kept(table, &setup.base_dir, host.clone(), limits, target.as_str());
    let plugin = tokio::task::block_in_place(load)?.with_context(|| {
        format!(
            "the file of version {target} is no longer under {}: check out its sources and build it again",
            setup.pipeline.state.path.value
        )
    })?;
    check_fit(table, &plugin, &setup.base_dir).await?;
    let blocked = BlockedVersion::new(&target, &newest, format!("version {target} was deployed instead"));
    blocked_versions.put(&table.name, &blocked)?;
    println!(
        "{name}: version {target} serves instead of {newest}, in a running silverd at once and at every start, until another \
         file is built in {}. `silverd plugin deploy {name}` serves the newest build again",
        table.plugin.value,
        name = table.name
    );
    println!(
        "The rows of {newest} stay. `silverd rebuild {} --written-by {newest}` rebuilds them with version {target}",
        table.name
    );
    Ok(())
}

fn serve_newest(blocked_versions: &BlockedVersions, table: &str) {
    match blocked_versions.get(table) {
        Some(blocked) => {
            blocked_versions.remove(table);
            println!(
                "{table}: the newest build serves again; version {} is no longer blocked",
                Digest::short(&blocked.blocked)
            );
        }
        None => println!("{table}: no version is blocked; the newest build already serves"),
    }
}

/// The version whose digest begins with `given`: the newest build, or one that has written the table.
async fn find_version(path: &Path, table: &str, given: &str, newest: &Digest) -> anyhow::Result<Digest> {
    let spans = match open_log(path)? {
        Some(log) => plugin_history(log.object_store(None).as_ref()).await?,
        None => Vec::new(),
    };
    let mut known: Vec<&str> = vec![newest.as_str()];
    for span in spans.iter().rev() {
        if !known.contains(&&*span.digest) {
            known.push(&span.digest);
        }
    }
    let found: Vec<&str> = known.iter().copied().filter(|digest| digest.starts_with(given)).collect();
    match found[..] {
        [one] => {
            Digest::parse(one).with_context(|| format!("the log of table {table} names `{one}` as a plugin's digest"))
        }
        [] => bail!(
            "--digest {given}: no version of table {table} has a digest that starts with this. Its versions are {}; \
             `silverd plugin history {table}` shows more",
            known.iter().map(|digest| Digest::short(digest)).collect::<Vec<_>>().join(", ")
        ),
        _ => bail!("--digest {given}: several versions of table {table} start with this; give more of the digest"),
    }
}
