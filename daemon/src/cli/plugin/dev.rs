//! `silverd plugin dev`: on each save of a plugin's sources, builds it where no daemon looks, runs its cases, and compares it
//! with the table's current version. With `--deploy` it releases what passes, and reports when a running silverd has swapped
//! to it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use silverd_core::config::SilverTable;
use tokio_util::sync::CancellationToken;

use super::deploy::{DeployArgs, deploy};
use super::selected::SelectedPlugin;
use super::test::test_one;
use super::try_plugin::{newest_events_of, transform};
use super::{counted, size};
use crate::cases::{CaseFile, cases_folder};
use crate::delta::{PluginVersion, last_plugin};
use crate::plugin::build::{PluginLocation, files_under};
use crate::plugin::{Plugin, SourceLocation, is_same_version, load_version};
use crate::reload::shadow_run;
use crate::runtime::file_watch::{FileStamp, FileWatch};
use crate::runtime::inert::{inert, inert_lines};
use crate::runtime::out::out;
use crate::tables::silver::check_fit;

#[derive(clap::Args, Debug)]
pub(super) struct DevArgs {
    /// A plugin's folder, or a table of pipeline.toml
    plugin: String,
    /// Compare with this table, instead of the one that uses the plugin
    #[arg(long)]
    table: Option<String>,
    /// How many of the newest events to compare on
    #[arg(long, default_value_t = 1_000, value_name = "EVENTS")]
    last: usize,
    /// Do this once, and do not wait for the next save
    #[arg(long)]
    once: bool,
    /// Deploy each build whose cases pass
    #[arg(long)]
    deploy: bool,
}

/// How long a running silverd may take to swap to the new version.
const SWAP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn dev(config: &Path, args: &DevArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let (place, cases) = tokio::task::block_in_place(|| {
        let selected = SelectedPlugin::find(config, &args.plugin, args.table.as_deref())?;
        anyhow::Ok((selected.source.location()?, cases_folder(&selected.source)))
    })?;
    let stamp = || {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        files_under(&cases, &mut files, &mut folders);
        match &place {
            SourceLocation::Plugin(PluginLocation::File(wasm)) => {
                files.push(wasm.clone());
                folders.extend(wasm.parent().map(Path::to_path_buf));
            }
            SourceLocation::Plugin(place) => {
                place.sources().iter().for_each(|source| files_under(source, &mut files, &mut folders));
            }
            SourceLocation::Sql(_) => {
                files.extend(place.file().into_iter().chain([config.to_path_buf()]));
                folders.extend(files.iter().filter_map(|file| file.parent().map(Path::to_path_buf)));
            }
        }
        (FileStamp::of(files), folders)
    };
    let mut watch = FileWatch::start();
    loop {
        let (before, _) = stamp();
        let result = tokio::select! {
            result = check_once(config, args) => result,
            () = stop.cancelled() => return Ok(()),
        };
        match result {
            Ok(()) => {}
            Err(failure) if args.once => return Err(failure),
            Err(failure) => out!("{}", inert_lines(&format!("{failure:#}"))),
        }
        if args.once {
            return Ok(());
        }
        out!("\nwaiting for the next save; stop with Ctrl-C");
        tokio::select! { _ = watch.changed(&before, stamp) => {} () = stop.cancelled() => return Ok(()) }
    }
}

/// Builds the plugin, runs its cases, compares it, and deploys it if asked to.
async fn check_once(config: &Path, args: &DevArgs) -> anyhow::Result<()> {
    // Read again, since pipeline.toml may have changed.
    let selected = SelectedPlugin::find(config, &args.plugin, args.table.as_deref())?;
    // Read before the build, since a running silverd may swap right after it.
    let current = current_version(&selected).await?;
    let began = Instant::now();
    let plugin = tokio::task::block_in_place(|| selected.load().map(Arc::new))?;
    let bytes = tokio::task::block_in_place(|| selected.version()?.read())?;
    out!(
        "{}: version {}, {}, after {:.1} s",
        selected.name,
        plugin.digest,
        size(bytes.len() as u64),
        began.elapsed().as_secs_f64()
    );
    let mut failed = 0;
    if CaseFile::read_all(&selected.source)?.iter().any(|file| !file.cases.is_empty()) {
        failed = tokio::task::block_in_place(|| test_one(&selected, false))?.failed;
    }
    compare(&selected, &plugin, current, args.last).await?;
    let table = match &selected.table {
        Some((_, table)) if args.deploy => table,
        _ => return Ok(()),
    };
    if failed > 0 {
        bail!("  not deployed: {} failed", counted(failed as u64, "case"));
    }
    deploy(config, &DeployArgs::newest(&table.name)).await?;
    wait_for_swap(&selected, table, &plugin).await
}

/// The version that serves in a running silverd; without one, the version that wrote the table's last commit.
async fn current_version(selected: &SelectedPlugin) -> anyhow::Result<Option<PluginVersion>> {
    let (Some((_, table)), Some(setup)) = (&selected.table, &selected.setup) else { return Ok(None) };
    if let Some(serving) = selected.host.serving(&table.name) {
        return Ok(Some(serving));
    }
    last_plugin(&setup.base_dir.join(&*table.path)).await
}

/// Prints how the plugin differs from the table's current version.
async fn compare(
    selected: &SelectedPlugin,
    plugin: &Arc<Plugin>,
    current: Option<PluginVersion>,
    last: usize,
) -> anyhow::Result<()> {
    let (Some((_, table)), Some(setup)) = (&selected.table, &selected.setup) else {
        out!("  no table of pipeline.toml uses this plugin; `silverd plugin new` prints a section for one");
        return Ok(());
    };
    if let Some(fit) = check_fit(table, plugin, &setup.base_dir).await.context("compare its row with the table")? {
        fit.changes.iter().for_each(|change| out!("  the next rows change the table: {change}"));
        fit.notices.iter().for_each(|notice| out!("  {notice}"));
    }
    let Some(current) = current else {
        out!("  nothing was written to table {} yet", table.name);
        return Ok(());
    };
    let events = newest_events_of(selected, last).await?;
    let (host, limits) = (selected.host.clone(), selected.limits.clone());
    let PluginVersion { digest, given } = &current;
    let load = || load_version(table, &setup.base_dir, host, limits, digest, given.as_deref());
    let kept = tokio::task::block_in_place(load)?;
    match kept.filter(|kept| !kept.is_same_version(plugin)) {
        Some(kept) => match tokio::task::block_in_place(|| shadow_run(&Arc::new(kept), plugin, &events))? {
            Some(shadow) => out!("  compared with the current version: {}", inert(&shadow.to_string())),
            None => out!("  the current version fails on every event, so there is nothing to compare with"),
        },
        None => {
            let counts = tokio::task::block_in_place(|| transform(plugin, &events))?.counts;
            out!(
                "  on the newest {}: {} rows, {} dropped, {} rejected",
                counted(counts.events, "event"),
                counts.rows,
                counts.dropped,
                counts.rejected
            );
        }
    }
    Ok(())
}

/// Waits until a running silverd serves the new version. Its first commit may come much later.
async fn wait_for_swap(selected: &SelectedPlugin, table: &SilverTable, plugin: &Plugin) -> anyhow::Result<()> {
    let deadline = Instant::now() + SWAP_TIMEOUT;
    while Instant::now() < deadline {
        if selected.host.serving(&table.name).is_some_and(|serving| is_same_version(&serving, &plugin.version())) {
            out!("  table {} is now served by version {}", table.name, plugin.digest);
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    out!(
        "  this version does not serve after {} s: either no silverd is running here, or it rejected the version, and its log \
         gives the reason",
        SWAP_TIMEOUT.as_secs()
    );
    Ok(())
}
