//! One drain of a topic into fresh tables, exactly once, and what it took.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use silverd_core::config::{Compression, Start};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{BenchArgs, Out, Transforms, native};
use crate::cli::setup::Setup;
use crate::clock;
use crate::flow::{self, Run};
use crate::ingest::Broker;
use crate::silver::Loaded;
use crate::status::Status;
use crate::telemetry::{STAGES, peak_rss_bytes, process_cpu};
use crate::transform::{Host, Plugin};

/// The pipeline of the file, with tables under another folder.
pub(super) fn setup(file: &Path, args: &BenchArgs, out: &Out) -> anyhow::Result<(Setup, Arc<Host>)> {
    let mut setup = Setup::read(file)?;
    // What was compiled before is of use, the tables that stand here are not.
    let host = setup.host()?;
    setup.relocate(&out.path);
    let pipeline = &mut setup.pipeline;
    if args.transforms == Transforms::None {
        pipeline.silver.clear();
    }
    if let Some(codec) = args.codec.as_deref() {
        let codec = match codec {
            "zstd" => Compression::Zstd(1),
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "none" => Compression::Uncompressed,
            other => bail!("--codec {other}: expected zstd, snappy, lz4 or none"),
        };
        pipeline.bronze.compression = codec;
        pipeline.silver.iter_mut().for_each(|table| table.compression = codec);
    }
    pipeline.source.topic = args.topic.clone().context("--once needs --topic")?;
    pipeline.source.start = Start::Earliest;
    pipeline.source.group = format!("silverd-bench-{}", uuid::Uuid::new_v4());
    Ok((setup, host))
}

/// The plugins, as WebAssembly or as functions of this program.
fn load(setup: &Setup, host: &Arc<Host>, transforms: Transforms) -> anyhow::Result<Loaded> {
    let loaded = setup.load_plugins(host)?;
    if transforms != Transforms::Native {
        return Ok(loaded);
    }
    let native = loaded.into_iter().map(|(name, plugin)| {
        let Some(function) = native::of(&name) else {
            bail!("--transforms native: this program has no function for table {name}, only for the shop's own");
        };
        let plugin = Arc::into_inner(plugin).context("a plugin is in use already")?;
        Ok((name, Arc::new(Plugin::with_native(plugin, function))))
    });
    native.collect()
}

pub(super) async fn once(file: &Path, args: BenchArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let out = Out::of(args.out.clone())?;
    let (setup, host) = setup(file, &args, &out)?;
    let transforms = args.transforms;
    let load = move || anyhow::Ok((load(&setup, &host, transforms)?, host, setup));
    let (loaded, host, setup) = tokio::task::spawn_blocking(load).await??;
    let taken = Arc::<AtomicU64>::default();
    let (sender, shown) = watch::channel(None);
    let run = Run {
        pipeline: watch::channel(Arc::new(setup.pipeline)).1,
        broker: Some(Broker { bootstrap: args.brokers.clone(), cluster_id: None }),
        base: setup.base,
        host,
        loaded,
        watch: None,
        drain: true,
        taken: taken.clone(),
        fresh: Arc::default(),
        status: sender,
    };
    let (cpu, begun) = (process_cpu(), clock::now_micros());
    flow::run(run, stop).await?;
    let seconds = (clock::now_micros() - begun) as f64 / 1e6;
    let cpu = (process_cpu() - cpu).as_secs_f64();
    let status = shown.borrow().clone().context("the pipeline did not start")?;
    let report = report(&status, seconds, cpu, taken.load(Relaxed) as f64 / 1e6);
    match args.json {
        true => println!("{}", Value::Object(report)),
        false => print(&report),
    }
    Ok(())
}

fn report(status: &Status, seconds: f64, cpu: f64, megabytes: f64) -> Map<String, Value> {
    let events = status.bronze.events.load(Relaxed);
    let tables = std::iter::once(("bronze".to_owned(), status.bronze.clone()))
        .chain(status.silver.iter().map(|(name, stats, _)| (name.clone(), stats.clone())))
        .chain([("quarantine".to_owned(), status.quarantine.clone())]);
    let tables = tables.map(|(name, stats)| {
        let commits = stats.commits.load(Relaxed);
        let table = json!({
            "rows": stats.rows.load(Relaxed),
            "commits": commits,
            "files": stats.files.load(Relaxed),
            "bytes": stats.bytes.load(Relaxed),
            "commit_ms_mean": stats.commit_micros_sum.load(Relaxed) as f64 / 1e3 / commits.max(1) as f64,
            "commit_ms_max": stats.commit_micros_max.load(Relaxed) as f64 / 1e3,
        });
        (name, table)
    });
    let stages = STAGES.iter().map(|(stage, name)| ((*name).to_owned(), json!(status.stages.seconds(*stage))));
    let report = json!({
        "events": events,
        "seconds": seconds,
        "events_per_second": (events as f64 / seconds).round(),
        "megabytes_per_second": megabytes / seconds,
        "cpu_seconds": cpu,
        "cpu_seconds_by_stage": stages.collect::<Map<_, _>>(),
        "peak_rss_mib": peak_rss_bytes() >> 20,
        "tables": tables.collect::<Map<_, _>>(),
    });
    match report {
        Value::Object(report) => report,
        _ => Map::new(),
    }
}

/// The report as a table.
pub(super) fn print(report: &Map<String, Value>) {
    let number = |name: &str| report.get(name).and_then(Value::as_f64).unwrap_or_default();
    let parts = |name: &str| report.get(name).and_then(Value::as_object).into_iter().flatten();
    let (events, seconds) = (number("events"), number("seconds"));
    let megabytes = number("megabytes_per_second");
    println!("{events} events, {:.0} MB in {seconds:.2} s, from the start to the last commit", megabytes * seconds);
    println!(
        "{:>12.0} events/s   {megabytes:.0} MB/s   peak RSS {} MiB",
        number("events_per_second"),
        number("peak_rss_mib")
    );
    println!("{:>12.2} CPU seconds, of which", number("cpu_seconds"));
    for (_, name) in STAGES {
        let spent = report["cpu_seconds_by_stage"][name].as_f64().unwrap_or_default();
        println!("{spent:>12.2} {name:<16} {:>6.0} ns/event", spent * 1e9 / events.max(1.0));
    }
    println!(
        "{:<16} {:>10} {:>8} {:>6} {:>8} {:>15} {:>14}",
        "table", "rows", "commits", "files", "MB", "mean commit ms", "max commit ms"
    );
    for (name, table) in parts("tables") {
        let number = |name: &str| table[name].as_f64().unwrap_or_default();
        println!(
            "{name:<16} {:>10} {:>8} {:>6} {:>8.1} {:>15.1} {:>14.1}",
            number("rows"),
            number("commits"),
            number("files"),
            number("bytes") / 1e6,
            number("commit_ms_mean"),
            number("commit_ms_max")
        );
    }
}
