//! One drain of a topic into new tables, in this process, and its report.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use silverd::app::setup::Setup;
use silverd::pipeline::status::{RunState, Status};
use silverd::pipeline::{self, RunOptions};
use silverd::plugin::{Host, Loaded, Plugin};
use silverd::runtime::clock;
use silverd::source::{Broker, Sources};
use silverd::telemetry::{STAGES, peak_rss_bytes, process_cpu};
use silverd_core::config::{Start, Topics};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::{BenchArgs, Transforms};
use crate::native;
use crate::output_dir::OutputDir;

/// Drains the topic once, and prints the report.
pub(crate) async fn once(config: &Path, args: BenchArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let out = OutputDir::create(args.out.clone())?;
    let (setup, host) = setup(config, &args, &out)?;
    let transforms = args.transforms;
    let load = move || anyhow::Ok((load(&setup, &host, transforms)?, host, setup));
    let (loaded, host, setup) = tokio::task::spawn_blocking(load).await??;
    let bytes_read = Arc::<AtomicU64>::default();
    let (sender, status) = watch::channel(RunState::Starting);
    let options = RunOptions {
        pipeline: watch::channel(Arc::new(setup.pipeline)).1,
        sources: Sources::default(),
        broker: Some(Broker { bootstrap: args.brokers.clone(), cluster_id: None }),
        base_dir: setup.base_dir,
        host,
        loaded,
        watch: None,
        drain: true,
        bytes_read: bytes_read.clone(),
        recent_rows: Arc::default(),
        days: None,
        status: sender,
    };
    let (cpu_before, began) = (process_cpu(), clock::now_micros());
    pipeline::run(options, stop).await?;
    let seconds = (clock::now_micros() - began) as f64 / 1e6;
    let cpu_seconds = (process_cpu() - cpu_before).as_secs_f64();
    let status = status.borrow().running().context("the pipeline did not start")?;
    let report = report(&status, seconds, cpu_seconds, bytes_read.load(Relaxed) as f64 / 1e6);
    match args.json {
        true => println!("{}", Value::Object(report)),
        false => print(&report),
    }
    Ok(())
}

/// The pipeline of the file, with its tables in another folder.
pub(crate) fn setup(config: &Path, args: &BenchArgs, out: &OutputDir) -> anyhow::Result<(Setup, Arc<Host>)> {
    let mut setup = Setup::read(config)?;
    // The host keeps the state folder of the file, so that compiled plugins are reused. The tables are new.
    let host = setup.host()?;
    setup.relocate(&out.path);
    let pipeline = &mut setup.pipeline;
    if args.transforms == Transforms::None {
        pipeline.silver.clear();
    }
    if let Some(codec) = args.codec {
        let compression = codec.compression();
        pipeline.bronze.compression = compression;
        pipeline.silver.iter_mut().for_each(|table| table.compression = compression);
    }
    pipeline.source.topics = Topics::one(args.topic.clone().context("--once needs --topic")?);
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
        let Some(make) = native::transform_of(&name) else {
            bail!(
                "--transforms native: silverd-bench has no native function for table {name}, only for the demo plugins"
            );
        };
        let plugin = Arc::into_inner(plugin).context("the plugin is in use already")?;
        Ok((name, Arc::new(Plugin::with_native(plugin, make))))
    });
    native.collect()
}

fn report(status: &Status, seconds: f64, cpu_seconds: f64, megabytes: f64) -> Map<String, Value> {
    let events = status.bronze.events.load(Relaxed);
    let tables = std::iter::once(("bronze".to_owned(), status.bronze.clone()))
        .chain(status.silver.iter().map(|table| (table.name.clone(), table.stats.clone())))
        .chain([("quarantine".to_owned(), status.quarantine.clone())]);
    let tables = tables.map(|(name, stats)| {
        let durations = stats.commit_durations();
        let table = json!({
            "rows": stats.rows.load(Relaxed),
            "commits": stats.commits.load(Relaxed),
            "files": stats.files.load(Relaxed),
            "bytes": stats.bytes.load(Relaxed),
            "commit_ms_mean": durations.mean_seconds() * 1e3,
            "commit_ms_max": durations.max_seconds * 1e3,
        });
        (name, table)
    });
    let stages = STAGES.iter().map(|(stage, name)| ((*name).to_owned(), json!(status.stages.seconds(*stage))));
    let report = json!({
        "events": events,
        "seconds": seconds,
        "events_per_second": (events as f64 / seconds).round(),
        "megabytes_per_second": megabytes / seconds,
        "cpu_seconds": cpu_seconds,
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
pub(crate) fn print(report: &Map<String, Value>) {
    let number = |name: &str| report.get(name).and_then(Value::as_f64).unwrap_or_default();
    let tables = report.get("tables").and_then(Value::as_object).into_iter().flatten();
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
    for (name, table) in tables {
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
