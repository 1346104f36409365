//! `silverd plugin dev`: on each save of a plugin's sources, builds it, runs its cases, compares it with the version that
//! fills the table, and tells when a running silverd has taken it up.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use silverd_core::config::SilverTable;
use tokio_util::sync::CancellationToken;

use super::case::CaseFile;
use super::subject::Subject;
use super::test::test_one;
use super::try_out::{judge, newest};
use super::{counted, size};
use crate::delta::{last_plugin, log_at};
use crate::reload::{Print, Watch, shadow_run};
use crate::silver::{fit, load_kept};
use crate::transform::Plugin;
use crate::transform::build::{Place, files_under};

#[derive(clap::Args, Debug)]
pub struct DevArgs {
    /// A plugin's folder, or a table of pipeline.toml
    plugin: String,
    /// The table that it fills, if it is not the one that has this plugin
    #[arg(long)]
    table: Option<String>,
    /// How many of the newest events to compare on
    #[arg(long, default_value_t = 1_000, value_name = "EVENTS")]
    last: usize,
    /// One round, and no watching
    #[arg(long)]
    once: bool,
}

/// How long a running silverd may take to turn to the new version.
const SWAP_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub async fn dev(config: &Path, args: &DevArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let (place, cases) = tokio::task::block_in_place(|| {
        let subject = Subject::find(config, &args.plugin, args.table.as_deref())?;
        anyhow::Ok((Place::of(&subject.path)?, subject.path.join("cases")))
    })?;
    let look = || {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        place.sources().iter().for_each(|source| files_under(source, &mut files, &mut folders));
        files_under(&cases, &mut files, &mut folders);
        if let Place::File(wasm) = &place {
            files.push(wasm.clone());
            folders.extend(wasm.parent().map(Path::to_path_buf));
        }
        (Print::of(files), folders)
    };
    let mut watch = Watch::start();
    loop {
        let (seen, _) = look();
        let told = tokio::select! { told = round(config, args) => told, () = stop.cancelled() => return Ok(()) };
        match told {
            Ok(()) => {}
            Err(failure) if args.once => return Err(failure),
            Err(failure) => println!("{failure:#}"),
        }
        if args.once {
            return Ok(());
        }
        println!("\nwaiting for the next save; Ctrl-C ends it");
        tokio::select! { _ = watch.changed(&seen, look) => {} () = stop.cancelled() => return Ok(()) }
    }
}

/// Builds, tests, compares, and waits for the swap.
async fn round(config: &Path, args: &DevArgs) -> anyhow::Result<()> {
    // pipeline.toml may have changed, too.
    let subject = Subject::find(config, &args.plugin, args.table.as_deref())?;
    // Before the build: a running silverd is quick to take it up.
    let before = filled_by(&subject).await?;
    let begun = Instant::now();
    let plugin = tokio::task::block_in_place(|| subject.load().map(Arc::new))?;
    let wasm = tokio::task::block_in_place(|| subject.wasm())?;
    println!(
        "{}: version {} of {} after {:.1} s",
        subject.name,
        plugin.digest,
        size(wasm.metadata()?.len()),
        begun.elapsed().as_secs_f64()
    );
    if CaseFile::all(&subject.path)?.iter().any(|file| !file.cases.is_empty()) {
        let outcome = tokio::task::block_in_place(|| test_one(&subject, false))?;
        if outcome.failed > 0 {
            println!("  {} failed", counted(outcome.failed as u64, "case"));
        }
    }
    compare(&subject, &plugin, before, args.last).await
}

/// The version that fills the table.
async fn filled_by(subject: &Subject) -> anyhow::Result<Option<String>> {
    let (Some((_, table)), Some(setup)) = (&subject.table, &subject.setup) else { return Ok(None) };
    match log_at(&setup.base.join(&*table.path))? {
        Some(log) => last_plugin(&log).await,
        None => Ok(None),
    }
}

/// What differs from the version that fills the table.
async fn compare(subject: &Subject, plugin: &Arc<Plugin>, before: Option<String>, last: usize) -> anyhow::Result<()> {
    let (Some((_, table)), Some(setup)) = (&subject.table, &subject.setup) else {
        println!("  no table of pipeline.toml has this plugin: `silverd plugin new` prints a section for one");
        return Ok(());
    };
    if let Some(fit) = fit(table, plugin, &setup.base).await.context("its rows do not fit the table")? {
        fit.changes.iter().for_each(|change| println!("  with the next rows, {change}"));
        fit.notices.iter().for_each(|notice| println!("  {notice}"));
    }
    let Some(before) = before else {
        println!("  nothing was written to table {} yet", table.name);
        return Ok(());
    };
    let events = newest(subject, last).await?;
    let old = tokio::task::block_in_place(|| {
        load_kept(table, &setup.base, subject.host.clone(), subject.limits.clone(), &before)
    })?;
    match old.filter(|old| old.digest != plugin.digest) {
        Some(old) => {
            let shadow = tokio::task::block_in_place(|| shadow_run(&Arc::new(old), plugin, &events))?;
            match shadow {
                Some(shadow) => println!("  against the version that fills the table: {shadow}"),
                None => println!("  the version that fills the table fails on everything"),
            }
        }
        None => {
            let counts = tokio::task::block_in_place(|| judge(plugin, &events))?.counts;
            let of = counted(counts.events, "event");
            println!(
                "  on the newest {of}: {} rows, {} dropped, {} rejected",
                counts.rows, counts.dropped, counts.rejected
            );
        }
    }
    taken_up(subject, table, plugin).await
}

/// Waits for a commit of the new version.
async fn taken_up(subject: &Subject, table: &SilverTable, plugin: &Plugin) -> anyhow::Result<()> {
    let deadline = Instant::now() + SWAP_PATIENCE;
    while Instant::now() < deadline {
        if filled_by(subject).await?.as_deref() == Some(plugin.digest.as_str()) {
            println!("  table {} is filled by version {}", table.name, plugin.digest);
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    println!(
        "  no commit by this version within {} s: no silverd is running here, no event has come, or its log says why it \
         stays out",
        SWAP_PATIENCE.as_secs()
    );
    Ok(())
}
