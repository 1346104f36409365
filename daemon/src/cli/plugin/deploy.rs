//! `silverd plugin deploy`: serves the newest build of a table's plugin, or an earlier version. A running silverd applies it
//! at once, and every start does. `silverd plugin list` shows which version serves which table.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Serialize;
use silverd_core::config::{ReloadMode, SilverTable};

use super::text_table;
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::cases::failed_cases;
use crate::delta::{last_plugin, open_log, plugin_history};
use crate::plugin::build::{newest_build, newest_digest, trial_wasm_of, wasm_of};
use crate::plugin::{Deployment, Digest, load_file, load_kept};
use crate::tables::silver::check_fit;

#[derive(clap::Args, Debug)]
pub(super) struct ListArgs {
    /// Print a JSON array with one object for each table
    #[arg(long)]
    json: bool,
}

/// The versions of one table's plugin.
#[derive(Serialize)]
struct Listed {
    table: String,
    /// The version that wrote the table last.
    serving: Option<String>,
    newest: Option<String>,
    /// The version that somebody deployed.
    deployed: Option<String>,
    /// The version that failed, and that silverd does not use again.
    blocked: Option<String>,
    reason: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(super) struct DeployArgs {
    /// A Silver table of pipeline.toml
    table: String,
    /// Serve this version: its digest, or the first characters of it [default: the newest build]
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
}

impl DeployArgs {
    pub(super) fn newest(table: &str) -> Self {
        Self { table: table.to_owned(), digest: None }
    }
}

pub(super) async fn deploy(config: &Path, args: &DeployArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let table = &setup.pipeline.silver[setup.table(&args.table)?];
    let host = setup.host()?;
    let deployments = host.deployments.as_ref().context(
        "the folder of [state] cannot be used, so silverd cannot remember which version to serve; see the warning above",
    )?;
    let folder = setup.base_dir.join(&*table.plugin);
    let limits = setup.pipeline.limits.clone();
    let load_newest = || {
        let file = wasm_of(&folder).with_context(|| format!("read the newest build of {}", folder.display()))?;
        Ok::<_, anyhow::Error>(Arc::new(load_file(table, &setup.base_dir, host.clone(), limits.clone(), &file)?))
    };
    let newest = match &args.digest {
        None => tokio::task::block_in_place(load_newest)?.digest.clone(),
        Some(_) => tokio::task::block_in_place(|| unreleased_digest(&folder))
            .with_context(|| format!("read the newest build of {}", folder.display()))?,
    };
    let target = match &args.digest {
        None => newest.clone(),
        Some(given) => find_version(&setup.base_dir.join(&*table.path), &table.name, given, &newest).await?,
    };
    let load = || load_kept(table, &setup.base_dir, host.clone(), limits.clone(), target.as_str());
    let plugin = tokio::task::block_in_place(load)?.with_context(|| {
        format!(
            "the file of version {target} is no longer under {}: check out its sources and build it again",
            setup.pipeline.state.path.value
        )
    })?;
    let plugin = Arc::new(plugin);
    check_fit(table, &plugin, &setup.base_dir).await?;
    if target == newest
        && let Some(failed) = tokio::task::block_in_place(|| failed_cases(&folder, &plugin))?
    {
        bail!("version {target} is not deployed: {failed}. `silverd plugin test {}` shows all", table.name);
    }
    let name = &table.name;
    let is_manual = setup.pipeline.reload.mode == ReloadMode::Manual;
    if target == newest && !is_manual {
        deployments.remove(name, &newest)?;
        println!("{name}: the newest build, {newest}, is deployed, in a running silverd at once and at every start");
        return Ok(());
    }
    let instead_of = if target == newest { serving(&setup, table).await?.unwrap_or(newest) } else { newest };
    deployments.put(name, &Deployment::new(&target, &instead_of, "deployed by `silverd plugin deploy`".to_owned()))?;
    let until = if is_manual {
        "until another is deployed".to_owned()
    } else {
        format!(
            "until another file is built in {}. `silverd plugin deploy {name}` serves the newest build again",
            table.plugin.value
        )
    };
    println!("{name}: version {target} is deployed, in a running silverd at once and at every start, {until}");
    if instead_of != target {
        println!(
            "The rows of {instead_of} stay. `silverd rebuild {name} --written-by {instead_of}` rebuilds them with version \
             {target}"
        );
    }
    Ok(())
}

/// The digest of the newest build. Newer sources are not built, which would release them.
fn unreleased_digest(folder: &Path) -> anyhow::Result<Digest> {
    match newest_build(folder)? {
        Some(newest) => Ok(newest.digest),
        None => Ok(Digest::of(&std::fs::read(trial_wasm_of(folder)?)?)),
    }
}

/// The version that wrote the table last.
async fn serving(setup: &Setup, table: &SilverTable) -> anyhow::Result<Option<Digest>> {
    let last = last_plugin(&setup.base_dir.join(&*table.path)).await?;
    Ok(last.and_then(|last| Digest::parse(&last.digest)))
}

/// `silverd plugin list`: which version serves which table.
pub(super) async fn list(config: &Path, args: &ListArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let host = setup.host()?;
    let mut tables = Vec::new();
    for table in &setup.pipeline.silver {
        let folder = setup.base_dir.join(&*table.plugin);
        let newest = tokio::task::block_in_place(|| newest_digest(&folder));
        let deployment = host.deployments.as_ref().and_then(|deployments| deployments.get(&table.name));
        tables.push(Listed {
            table: table.name.to_string(),
            serving: serving(&setup, table).await?.map(|digest| digest.as_str().to_owned()),
            newest: newest.as_ref().ok().and_then(Option::as_ref).map(|digest| digest.as_str().to_owned()),
            deployed: deployment.as_ref().filter(|one| !one.rolled_back).map(|one| one.version.clone()),
            blocked: deployment.as_ref().filter(|one| one.rolled_back).map(|one| one.instead_of.clone()),
            reason: deployment.map(|deployment| deployment.reason),
        });
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tables)?);
        return Ok(());
    }
    let short = |digest: &Option<String>| digest.as_deref().map_or("none", Digest::short).to_owned();
    let row = |listed: &Listed| {
        let note = match (&listed.deployed, &listed.blocked, &listed.reason) {
            (Some(version), ..) => format!("{} is deployed", Digest::short(version)),
            (_, Some(version), Some(reason)) => format!("{} is blocked: {reason}", Digest::short(version)),
            _ => String::new(),
        };
        vec![listed.table.clone(), short(&listed.serving), short(&listed.newest), note]
    };
    let rows: Vec<_> = tables.iter().map(row).collect();
    println!("{}", text_table(&["table", "wrote last", "newest build", "note"], &rows)?);
    Ok(())
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
        [] => wrong_use!(
            "--digest {given}: no version of table {table} has a digest that starts with this. Its versions are {}; \
             `silverd plugin history {table}` shows more",
            known.iter().map(|digest| Digest::short(digest)).collect::<Vec<_>>().join(", ")
        ),
        _ => wrong_use!("--digest {given}: several versions of table {table} start with this; give more of the digest"),
    }
}
