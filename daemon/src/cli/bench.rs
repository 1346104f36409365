//! `silverd bench`: drains what a topic holds into fresh tables, exactly once, and says what it took.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context;
use serde_json::json;
use silverd_core::config::Start;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::setup::Setup;
use crate::clock;
use crate::flow::{self, Run};
use crate::generate::{self, GenerateArgs};
use crate::ingest::Broker;
use crate::telemetry::{STAGES, peak_rss_bytes, process_cpu};

#[derive(clap::Args, Debug)]
pub struct BenchArgs {
    /// Kafka's brokers
    #[arg(long, default_value = "localhost:9092", value_name = "HOST:PORT")]
    brokers: String,
    /// Fill a new topic with so many events first
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Fill nothing: drain this topic as it is
    #[arg(long, conflicts_with_all = ["events", "file", "partitions"])]
    topic: Option<String>,
    /// Partitions of the new topic
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Fill the topic with the lines of this file over and over, under fresh ids, instead of made-up events
    #[arg(long, value_name = "EVENTS.JSONL")]
    file: Option<std::path::PathBuf>,
    /// Where the tables are made; the folder must be new or empty [default: a temporary one, which is deleted]
    #[arg(long, value_name = "FOLDER")]
    out: Option<std::path::PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn bench(file: &Path, args: BenchArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let mut setup = Setup::read(file)?;
    // What was compiled before is of use, the tables that stand here are not.
    let host = setup.host()?;
    let out = Out::of(args.out.clone())?;
    setup.relocate(&out.path);
    let load = move || anyhow::Ok((setup.load_plugins(&host)?, host, setup));
    let (loaded, host, mut setup) = tokio::task::spawn_blocking(load).await??;
    let topic = match &args.topic {
        Some(topic) => topic.clone(),
        None => fill(&args, &stop).await?,
    };
    setup.pipeline.source.topic = topic;
    setup.pipeline.source.start = Start::Earliest;
    setup.pipeline.source.group = format!("silverd-bench-{}", uuid::Uuid::new_v4());
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

    let events = status.bronze.events.load(Relaxed);
    let stages: Vec<(&str, f64)> = STAGES.iter().map(|(stage, name)| (*name, status.stages.seconds(*stage))).collect();
    let tables: Vec<_> = std::iter::once(("bronze".to_owned(), status.bronze.clone()))
        .chain(status.silver.iter().map(|(name, stats, _)| (name.clone(), stats.clone())))
        .chain([("quarantine".to_owned(), status.quarantine.clone())])
        .collect();
    let megabytes = taken.load(Relaxed) as f64 / 1e6;
    if args.json {
        let tables = tables.iter().map(|(name, stats)| {
            let table = json!({ "rows": stats.rows.load(Relaxed), "commits": stats.commits.load(Relaxed),
                "files": stats.files.load(Relaxed), "bytes": stats.bytes.load(Relaxed),
                "commit_ms_max": stats.commit_micros_max.load(Relaxed) as f64 / 1e3 });
            (name.clone(), table)
        });
        let report = json!({
            "events": events, "seconds": seconds, "events_per_second": (events as f64 / seconds).round(),
            "megabytes_per_second": megabytes / seconds, "cpu_seconds": cpu,
            "cpu_seconds_by_stage": stages.iter().map(|(n, s)| ((*n).to_owned(), json!(s))).collect::<serde_json::Map<_, _>>(),
            "peak_rss_mib": peak_rss_bytes() >> 20,
            "tables": tables.collect::<serde_json::Map<_, _>>(),
        });
        println!("{report}");
        return Ok(());
    }
    println!("{events} events, {megabytes:.0} MB in {seconds:.2} s, from the start to the last commit");
    println!(
        "{:>12.0} events/s   {:.0} MB/s   peak RSS {} MiB",
        events as f64 / seconds,
        megabytes / seconds,
        peak_rss_bytes() >> 20
    );
    println!("{cpu:>12.2} CPU seconds, of which");
    for (name, spent) in &stages {
        println!("{spent:>12.2} {name:<16} {:>6.0} ns/event", spent * 1e9 / events.max(1) as f64);
    }
    println!("{:<16} {:>10} {:>8} {:>6} {:>8} {:>14}", "table", "rows", "commits", "files", "MB", "max commit ms");
    for (name, stats) in &tables {
        println!(
            "{name:<16} {:>10} {:>8} {:>6} {:>8.1} {:>14.1}",
            stats.rows.load(Relaxed),
            stats.commits.load(Relaxed),
            stats.files.load(Relaxed),
            stats.bytes.load(Relaxed) as f64 / 1e6,
            stats.commit_micros_max.load(Relaxed) as f64 / 1e3
        );
    }
    Ok(())
}

/// Makes a topic, and fills it.
async fn fill(args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<String> {
    let topic = format!("silverd-bench-{}", uuid::Uuid::new_v4());
    let generate = GenerateArgs {
        bootstrap: args.brokers.clone(),
        topic: topic.clone(),
        eps: 0.0,
        count: Some(args.events),
        repeat: args.file.is_some(),
        file: args.file.clone(),
        seed: args.file.is_none().then_some(1),
        partitions: args.partitions,
        ..GenerateArgs::default()
    };
    generate::run(generate, stop.clone()).await?;
    Ok(topic)
}

/// The folder of the tables; a temporary one goes with it.
pub(super) struct Out {
    pub(super) path: std::path::PathBuf,
    temporary: bool,
}

impl Out {
    pub(super) fn of(path: Option<std::path::PathBuf>) -> anyhow::Result<Self> {
        let temporary = path.is_none();
        let path = path.unwrap_or_else(|| std::env::temp_dir().join(format!("silverd-bench-{}", uuid::Uuid::new_v4())));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let mut entries = std::fs::read_dir(&path).with_context(|| format!("read {}", path.display()))?;
        anyhow::ensure!(entries.next().is_none(), "--out {} is not empty: name a new folder", path.display());
        Ok(Self { path, temporary })
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
