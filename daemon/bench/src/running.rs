//! Measurements of a running silverd, which runs in a process of its own: the latency of rows, the time from the start to the
//! first commits, and memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::get_actions;
use futures::TryStreamExt;
use serde_json::{Value, json};
use silverd::app::setup::Setup;
use silverd::delta::{DataFile, TableReader, log_dir, read_columns};
use silverd::pipeline::status::RunState;
use silverd::pipeline::{self, RunOptions};
use silverd::plugin::Loaded;
use silverd::runtime::clock;
use silverd::source::{Broker, Sources};
use tokio::process::Child;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::{BenchArgs, Transforms};
use crate::drain;
use crate::drain_process::DrainProcess;
use crate::output_dir::OutputDir;
use crate::topic::{self, TopicSpec};

const LATENCY_EPS: f64 = 1_000.0;
const LATENCY_INTERVAL_MS: u64 = 500;
const IDLE_EPS: f64 = 100.0;
/// The first seconds are not counted: tables are created in them.
const WARM_UP: Duration = Duration::from_secs(3);
const STARTS: usize = 5;
const POLL_INTERVAL: Duration = Duration::from_millis(2);
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the pipeline until `stop`: the process that is measured.
pub(crate) async fn serve(config: &Path, args: BenchArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let out = OutputDir::create(args.out.clone())?;
    let (mut setup, host) = drain::setup(config, &args, &out)?;
    if let Some(interval) = args.interval_ms {
        setup.pipeline.commit.interval_ms = interval;
    }
    let (status, _) = watch::channel(RunState::Starting);
    let options = RunOptions {
        pipeline: watch::channel(Arc::new(setup.pipeline)).1,
        sources: Sources::default(),
        broker: Some(Broker { bootstrap: args.brokers, cluster_id: None }),
        base_dir: setup.base_dir,
        host,
        loaded: Loaded::new(),
        watch: None,
        drain: false,
        bytes_read: Arc::default(),
        recent_rows: Arc::default(),
        days: None,
        status,
    };
    pipeline::run(options, stop).await
}

/// From sending an event to a row in a Silver table that another reader has read.
pub(crate) async fn latency(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Value> {
    let topic = TopicSpec { events: 100, ..args.topic_spec() }.create(stop).await?;
    let mut running = RunningSilverd::start(config, args, &topic.name, Some(LATENCY_INTERVAL_MS))?;
    let tables = running.silver.clone();
    running.wait_for_commits(&tables).await?;
    let stop_sending = stop.child_token();
    let sender = topic::send_at_rate(&args.brokers, &topic.name, LATENCY_EPS, stop_sending.clone()).await?;
    let mut tails = tables.iter().map(|table| TableTail::open(table)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut latencies = Vec::new();
    let count_from = clock::now_micros() + WARM_UP.as_micros() as i64;
    let end = Instant::now() + WARM_UP + Duration::from_secs(args.seconds);
    while Instant::now() < end && !stop.is_cancelled() {
        for tail in &mut tails {
            let sent_at = tail.read_new().await?;
            let now = clock::now_micros();
            latencies.extend(sent_at.into_iter().filter(|sent| *sent >= count_from).map(|sent| now - sent));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    stop_sending.cancel();
    sender.await??;
    running.stop().await?;
    topic.delete().await?;
    ensure!(!latencies.is_empty(), "no row was read within {} s", args.seconds);
    latencies.sort_unstable();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize] as f64 / 1e3;
    Ok(json!({ "events_per_second": LATENCY_EPS, "commit_interval_ms": LATENCY_INTERVAL_MS, "rows": latencies.len(),
        "p50_ms": quantile(0.5), "p90_ms": quantile(0.9), "p99_ms": quantile(0.99), "max_ms": quantile(1.0) }))
}

/// From the start of the process to the first commits into new tables, with plugins that were compiled before.
pub(crate) async fn start(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Value> {
    let topic = TopicSpec { events: 1_000, ..args.topic_spec() }.create(stop).await?;
    let (mut bronze_ms, mut silver_ms) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let mut running = RunningSilverd::start(config, args, &topic.name, None)?;
        let (bronze, silver) = ([running.bronze.clone()], running.silver.clone());
        bronze_ms.push(running.wait_for_commits(&bronze).await?.as_secs_f64() * 1e3);
        silver_ms.push(running.wait_for_commits(&silver).await?.as_secs_f64() * 1e3);
        running.stop().await?;
    }
    topic.delete().await?;
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2].round()
    };
    let (first_bronze, first_silver) = (median(&mut bronze_ms), median(&mut silver_ms));
    Ok(json!({ "starts": STARTS, "first_bronze_commit_ms": first_bronze, "all_silver_tables_ms": first_silver,
        "slowest_ms": silver_ms.last() }))
}

/// Memory at a low rate of events.
pub(crate) async fn idle(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Value> {
    let topic = TopicSpec { events: 100, ..args.topic_spec() }.create(stop).await?;
    let mut running = RunningSilverd::start(config, args, &topic.name, None)?;
    let stop_sending = stop.child_token();
    let sender = topic::send_at_rate(&args.brokers, &topic.name, IDLE_EPS, stop_sending.clone()).await?;
    let tables = running.silver.clone();
    running.wait_for_commits(&tables).await?;
    let end = Instant::now() + WARM_UP + Duration::from_secs(args.seconds);
    let mut largest_kib = 0;
    while Instant::now() < end && !stop.is_cancelled() {
        largest_kib = largest_kib.max(running.memory_kib("VmRSS:").unwrap_or_default());
        tokio::time::sleep(MEMORY_INTERVAL).await;
    }
    let peak_kib = running.memory_kib("VmHWM:").unwrap_or_default();
    let program_kib = running.memory_kib("RssFile:").unwrap_or_default();
    stop_sending.cancel();
    sender.await??;
    running.stop().await?;
    topic.delete().await?;
    Ok(json!({ "events_per_second": IDLE_EPS, "seconds": args.seconds, "rss_mib": largest_kib as f64 / 1024.0,
        "of_which_program_mib": program_kib as f64 / 1024.0, "peak_rss_mib": peak_kib as f64 / 1024.0 }))
}

/// A running silverd, and its tables.
struct RunningSilverd {
    child: Child,
    began: Instant,
    bronze: PathBuf,
    silver: Vec<PathBuf>,
    _out: OutputDir,
}

impl RunningSilverd {
    fn start(config: &Path, args: &BenchArgs, topic: &str, interval_ms: Option<u64>) -> anyhow::Result<Self> {
        let out = OutputDir::create(None)?;
        let mut setup = Setup::read(config)?;
        setup.relocate(&out.path);
        let pipeline = &setup.pipeline;
        let silver = pipeline.silver.iter().map(|table| out.path.join(&*table.path)).collect();
        let bronze = out.path.join(&*pipeline.bronze.path);
        let process =
            DrainProcess { config, brokers: &args.brokers, topic, transforms: Transforms::Wasm, codec: args.codec };
        let mut command = process.command();
        command.arg("--serve").arg("--out").arg(&out.path);
        if let Some(interval) = interval_ms {
            command.args(["--interval-ms", &interval.to_string()]);
        }
        let began = Instant::now();
        Ok(Self { child: command.spawn().context("start silverd")?, began, bronze, silver, _out: out })
    }

    /// Waits until each of the tables has a commit with rows. Returns the time since the start.
    async fn wait_for_commits(&mut self, tables: &[PathBuf]) -> anyhow::Result<Duration> {
        let has_commit = |table: &PathBuf| log_dir(table).join(format!("{:020}.json", 1)).exists();
        while !tables.iter().all(has_commit) {
            if let Some(status) = self.child.try_wait()? {
                bail!("silverd ended with {status}; its error is above");
            }
            ensure!(self.began.elapsed() < COMMIT_TIMEOUT, "no commit within {} s", COMMIT_TIMEOUT.as_secs());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(self.began.elapsed())
    }

    /// A memory figure of the process from /proc, in KiB.
    fn memory_kib(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            // SAFETY: signals a child process of this one that was not waited for yet.
            unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        }
        let ended = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.child.wait()).await;
        let status =
            ended.with_context(|| format!("silverd did not stop within {} s", SHUTDOWN_TIMEOUT.as_secs()))??;
        ensure!(status.success(), "silverd ended with {status}; its error is above");
        Ok(())
    }
}

/// Reads the commits of a table one after the other, as any Delta reader could.
struct TableTail {
    reader: TableReader,
    next_version: u64,
}

impl TableTail {
    fn open(table: &Path) -> anyhow::Result<Self> {
        let reader = TableReader::open(table)?.with_context(|| format!("no table in {}", table.display()))?;
        Ok(Self { reader, next_version: 1 })
    }

    /// The `ts` of the rows of all new commits.
    async fn read_new(&mut self) -> anyhow::Result<Vec<i64>> {
        let (log, mut times) = (self.reader.log(), Vec::new());
        while let Some(entry) = log.read_commit_entry(self.next_version).await? {
            for action in get_actions(self.next_version, &entry)? {
                let Action::Add(add) = action else { continue };
                let file = DataFile::try_from(&add)?;
                let mut columns = read_columns(log.object_store(None), &file, Some(&["ts"])).await?;
                while let Some(batch) = columns.batches.try_next().await? {
                    let ts = batch.column_by_name("ts").context("the table has no column `ts`")?;
                    let ts = ts.as_primitive_opt::<TimestampMicrosecondType>().context("`ts` is not a timestamp")?;
                    times.extend_from_slice(ts.values());
                }
            }
            self.next_version += 1;
        }
        Ok(times)
    }
}
