//! `silverd plugin deploy`: serves the newest build of a table's plugin, or an earlier version, after it was validated as a
//! daemon does it. A running silverd applies it at once, and every start does.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use silverd_core::config::{ReloadMode, SilverTable};

use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::cases::failed_cases;
use crate::delta::{PluginSpan, PluginVersion, open_log, plugin_history};
use crate::plugin::{
    Deployment, Digest, Host, Plugin, Source, VersionFile, is_same_version, kept_file, load_file, load_kept,
    load_version,
};
use crate::reload::{Build, PluginLoader, last_good, validate};
use crate::runtime::out::out;
use crate::tables::silver::check_fit;

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
    let source = Source::of(table, &setup.base_dir);
    let limits = setup.pipeline.limits.clone();
    let load_newest = || {
        let file = source.build().with_context(|| format!("read the newest build of {source}"))?;
        Ok::<_, anyhow::Error>(Arc::new(load_file(table, &setup.base_dir, host.clone(), limits.clone(), &file)?))
    };
    let newest = match &args.digest {
        None => tokio::task::block_in_place(load_newest)?.digest.clone(),
        Some(_) => tokio::task::block_in_place(|| unreleased_digest(&source))
            .with_context(|| format!("read the newest build of {source}"))?,
    };
    let history = match open_log(&setup.base_dir.join(&*table.path))? {
        Some(log) => plugin_history(log.object_store(None).as_ref()).await?,
        None => Vec::new(),
    };
    let target = match &args.digest {
        None => newest.clone(),
        Some(given) => find_version(&history, &table.name, given, &newest)?,
    };
    let load = || load_kept(table, &setup.base_dir, host.clone(), limits.clone(), target.as_str());
    let plugin = tokio::task::block_in_place(load)?.with_context(|| {
        format!(
            "the file of version {target} is no longer under {}: check out its sources and build it again",
            setup.pipeline.state.path.value
        )
    })?;
    let name = &table.name;
    let serving = serving(&setup, table, &host, &newest, &history).await?;
    let is_newest = target == newest;
    if let Err(failure) = check(&setup, table, &host, Arc::new(plugin), is_newest, &history, serving.as_ref()).await {
        bail!(failure.context(format!("version {target} is not deployed")));
    }
    let is_manual = setup.pipeline.reload.mode == ReloadMode::Manual;
    if target == newest && !is_manual {
        deployments.remove(name, &newest)?;
        out!("{name}: the newest build, {newest}, is deployed, in a running silverd at once and at every start");
        return Ok(());
    }
    let serving = serving.and_then(|serving| Digest::parse(&serving.digest));
    let instead_of = if target == newest { serving.unwrap_or(newest) } else { newest };
    deployments.put(name, &Deployment::new(&target, &instead_of, "deployed by `silverd plugin deploy`".to_owned()))?;
    let until = if is_manual {
        "until another is deployed".to_owned()
    } else {
        format!(
            "until there is another build of {source}. `silverd plugin deploy {name}` serves the newest build again"
        )
    };
    out!("{name}: version {target} is deployed, in a running silverd at once and at every start, {until}");
    let has_rows = history.iter().any(|span| span.digest == instead_of.as_str() && span.counts.rows > 0);
    if instead_of != target && has_rows {
        out!(
            "The rows of {instead_of} stay. `silverd rebuild {name} --written-by {instead_of}` rebuilds them with version \
             {target}"
        );
    }
    Ok(())
}

/// Validates a version before it is deployed: by its schema, its cases, and a shadow run against the version that serves. One
/// that has written the table need not be validated again.
async fn check(
    setup: &Setup,
    table: &SilverTable,
    host: &Arc<Host>,
    plugin: Arc<Plugin>,
    is_newest: bool,
    history: &[PluginSpan],
    serving: Option<&PluginVersion>,
) -> anyhow::Result<()> {
    let version = plugin.version();
    if !is_newest && history.iter().any(|span| is_same_version(&span.version(), &version)) {
        check_fit(table, &plugin, &setup.base_dir).await?;
        return Ok(());
    }
    let active = match serving {
        Some(PluginVersion { digest, given }) => {
            let limits = setup.pipeline.limits.clone();
            let load = || load_version(table, &setup.base_dir, host.clone(), limits, digest, given.as_deref());
            tokio::task::block_in_place(load)?.map(Arc::new)
        }
        None => None,
    };
    let bronze = open_log(&setup.base_dir.join(&*setup.pipeline.bronze.path))?;
    if let (Some(active), Some(bronze)) = (active, bronze) {
        let (base_dir, limits) = (setup.base_dir.clone(), setup.pipeline.limits.clone());
        let loader = PluginLoader { host: host.clone(), limits, bronze, base_dir };
        let file = kept_file(host, &plugin.digest)?.context("its file was not kept")?;
        let build = Build { file: VersionFile::File(file), digest: plugin.digest.clone(), has_cases: is_newest };
        let validated = validate(&loader, table, &setup.pipeline.reload, build, &active).await?;
        if let Some(shadow) = validated.and_then(|candidate| candidate.shadow) {
            out!("{}: shadow run: {shadow}", table.name);
        }
        return Ok(());
    }
    check_fit(table, &plugin, &setup.base_dir).await?;
    let source = Source::of(table, &setup.base_dir);
    if is_newest && let Some(failed) = tokio::task::block_in_place(|| failed_cases(&source, &plugin))? {
        bail!("{failed}. `silverd plugin test {}` shows all", table.name);
    }
    Ok(())
}

/// The digest of the newest build. Newer sources are not built, which would release them.
fn unreleased_digest(source: &Source) -> anyhow::Result<Digest> {
    match source.newest()? {
        Some(newest) => Ok(newest.digest),
        None => source.build_trial()?.digest(),
    }
}

/// The version that serves the table in a running silverd. If none runs: the one that the next start takes, which somebody
/// deployed, or which wrote the table last and did not fail.
async fn serving(
    setup: &Setup,
    table: &SilverTable,
    host: &Host,
    newest: &Digest,
    history: &[PluginSpan],
) -> anyhow::Result<Option<PluginVersion>> {
    if let Some(serving) = host.serving(&table.name) {
        return Ok(Some(serving));
    }
    let held = host.held(&table.name);
    let by_hand = held.by_hand(host.reload_mode, Some(newest)).map(Deployment::plugin);
    let mut versions = history.iter().rev().map(PluginSpan::version);
    match by_hand.and_then(|by_hand| versions.find(|version| is_same_version(version, &by_hand))) {
        Some(deployed) => Ok(Some(deployed)),
        None => last_good(&setup.base_dir.join(&*table.path), &held).await,
    }
}

/// The version whose digest begins with `given`: the newest build, or one that has written the table.
fn find_version(history: &[PluginSpan], table: &str, given: &str, newest: &Digest) -> anyhow::Result<Digest> {
    let mut known: Vec<&str> = vec![newest.as_str()];
    for span in history.iter().rev() {
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
