//! A silverd that runs, in a process of its own, seen from outside: how late its rows are, how soon it commits, and how
//! much memory it holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::get_actions;
use futures::TryStreamExt;
use object_store::path::Path as StorePath;
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fill::{self, Fill};
use super::{BenchArgs, Drain, Out, Transforms, drain};
use crate::cli::setup::Setup;
use crate::clock;
use crate::delta::{Reader, columns};
use crate::flow::{self, Run};
use crate::ingest::Broker;
use crate::silver::Loaded;

const LATENCY_EPS: f64 = 1_000.0;
const LATENCY_INTERVAL_MS: u64 = 500;
const IDLE_EPS: f64 = 100.0;
/// What comes at first is not counted: tables are made then.
const WARM_UP: Duration = Duration::from_secs(3);
const STARTS: usize = 5;
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// What runs in the process of its own.
pub(super) async fn serve(file: &Path, args: BenchArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let out = Out::of(args.out.clone())?;
    let (mut setup, host) = drain::setup(file, &args, &out)?;
    if let Some(interval) = args.interval_ms {
        setup.pipeline.commit.interval_ms = interval;
    }
    let (status, _) = watch::channel(None);
    let run = Run {
        pipeline: watch::channel(Arc::new(setup.pipeline)).1,
        broker: Some(Broker { bootstrap: args.brokers, cluster_id: None }),
        base: setup.base,
        host,
        loaded: Loaded::new(),
        watch: None,
        drain: false,
        taken: Arc::default(),
        fresh: Arc::default(),
        status,
    };
    flow::run(run, stop).await
}

/// A running silverd, and its tables.
struct Served {
    child: Child,
    begun: Instant,
    bronze: PathBuf,
    silver: Vec<PathBuf>,
    _out: Out,
}

impl Served {
    fn start(config: &Path, args: &BenchArgs, topic: &str, interval_ms: Option<u64>) -> anyhow::Result<Self> {
        let out = Out::of(None)?;
        let mut setup = Setup::read(config)?;
        setup.relocate(&out.path);
        let pipeline = &setup.pipeline;
        let silver = pipeline.silver.iter().map(|table| out.path.join(&*table.path)).collect();
        let bronze = out.path.join(&*pipeline.bronze.path);
        let codec = args.codec.as_deref();
        let drain = Drain { config, brokers: &args.brokers, topic, transforms: Transforms::Wasm, codec };
        let mut command = drain.command();
        command.arg("--serve").arg("--out").arg(&out.path);
        if let Some(interval) = interval_ms {
            command.args(["--interval-ms", &interval.to_string()]);
        }
        let begun = Instant::now();
        Ok(Self { child: command.spawn().context("start silverd")?, begun, bronze, silver, _out: out })
    }

    /// Waits until every one of the tables has a commit with rows; gives the time since the start.
    async fn committed(&mut self, tables: &[PathBuf]) -> anyhow::Result<Duration> {
        let first = |table: &PathBuf| table.join("_delta_log").join(format!("{:020}.json", 1)).exists();
        while !tables.iter().all(first) {
            if let Some(status) = self.child.try_wait()? {
                bail!("silverd ended by {status}; see above");
            }
            anyhow::ensure!(self.begun.elapsed() < PATIENCE, "no commit within {} s", PATIENCE.as_secs());
            tokio::time::sleep(LOOK).await;
        }
        Ok(self.begun.elapsed())
    }

    /// A figure of the process, in KiB, as /proc has it.
    fn memory(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    async fn end(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            // SAFETY: signals a process that was started here and that was not waited for.
            unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        }
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("silverd does not end")??;
        anyhow::ensure!(status.success(), "silverd ended by {status}; see above");
        Ok(())
    }
}

/// From sending an event to a row that another reader has read, in a Silver table.
pub(super) async fn latency(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Value> {
    let topic = Fill { events: 100, ..args.fill() }.topic(stop).await?;
    let mut served = Served::start(config, args, &topic.name, Some(LATENCY_INTERVAL_MS))?;
    let tables = served.silver.clone();
    served.committed(&tables).await?;
    let sending = stop.child_token();
    let sender = fill::pace(&args.brokers, &topic.name, LATENCY_EPS, sending.clone()).await?;
    let mut readers = tables.iter().map(|table| Follower::open(table)).collect::<anyhow::Result<Vec<_>>>()?;
    let (begun, mut micros) = (clock::now_micros(), Vec::new());
    let counts_from = begun + WARM_UP.as_micros() as i64;
    let end = Instant::now() + WARM_UP + Duration::from_secs(args.seconds);
    while Instant::now() < end && !stop.is_cancelled() {
        for reader in &mut readers {
            let sent_at = reader.read_on().await?;
            let now = clock::now_micros();
            micros.extend(sent_at.into_iter().filter(|sent| *sent >= counts_from).map(|sent| now - sent));
        }
        tokio::time::sleep(LOOK).await;
    }
    sending.cancel();
    sender.await??;
    served.end().await?;
    topic.delete().await?;
    anyhow::ensure!(!micros.is_empty(), "no row came to be read");
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    Ok(json!({ "events_per_second": LATENCY_EPS, "commit_interval_ms": LATENCY_INTERVAL_MS, "rows": micros.len(),
        "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0) }))
}

/// A reader of a table that looks for each next commit, and knows nothing of who writes it.
struct Follower {
    reader: Reader,
    next: u64,
}

impl Follower {
    fn open(table: &Path) -> anyhow::Result<Self> {
        let reader = Reader::open(table)?.with_context(|| format!("no table in {}", table.display()))?;
        Ok(Self { reader, next: 1 })
    }

    /// The `ts` of the rows that came to the table since.
    async fn read_on(&mut self) -> anyhow::Result<Vec<i64>> {
        let (log, mut found) = (self.reader.log(), Vec::new());
        while let Some(entry) = log.read_commit_entry(self.next).await? {
            for action in get_actions(self.next, &entry)? {
                let Action::Add(add) = action else { continue };
                let path = StorePath::parse(&add.path)?;
                let mut read = columns(log.object_store(None), path, add.size as u64, Some(&["ts"])).await?;
                while let Some(batch) = read.batches.try_next().await? {
                    let ts = batch.column_by_name("ts").context("the table has no column ts")?;
                    let ts = ts.as_primitive_opt::<TimestampMicrosecondType>().context("ts is no time")?;
                    found.extend_from_slice(ts.values());
                }
            }
            self.next += 1;
        }
        Ok(found)
    }
}

/// From the start of the process to the first commits, with machine code that was compiled before, into new tables.
pub(super) async fn start(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Value> {
    let topic = Fill { events: 1_000, ..args.fill() }.topic(stop).await?;
    let (mut bronze, mut silver) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let mut served = Served::start(config, args, &topic.name, None)?;
        let (of_bronze, of_silver) = ([served.bronze.clone()], served.silver.clone());
        bronze.push(served.committed(&of_bronze).await?.as_secs_f64() * 1e3);
        silver.push(served.committed(&of_silver).await?.as_secs_f64() * 1e3);
        served.end().await?;
    }
    topic.delete().await?;
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2].round()
    };
    let (first_bronze, first_silver) = (median(&mut bronze), median(&mut silver));
    Ok(json!({ "starts": STARTS, "first_bronze_commit_ms": first_bronze, "all_silver_tables_ms": first_silver,
        "slowest_ms": silver.last() }))
}

/// Memory while little comes.
pub(super) async fn idle(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Value> {
    let topic = Fill { events: 100, ..args.fill() }.topic(stop).await?;
    let mut served = Served::start(config, args, &topic.name, None)?;
    let sending = stop.child_token();
    let sender = fill::pace(&args.brokers, &topic.name, IDLE_EPS, sending.clone()).await?;
    let tables = served.silver.clone();
    served.committed(&tables).await?;
    let end = Instant::now() + WARM_UP + Duration::from_secs(args.seconds);
    let mut largest = 0;
    while Instant::now() < end && !stop.is_cancelled() {
        largest = largest.max(served.memory("VmRSS:").unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let peak = served.memory("VmHWM:").unwrap_or_default();
    let of_files = served.memory("RssFile:").unwrap_or_default();
    sending.cancel();
    sender.await??;
    served.end().await?;
    topic.delete().await?;
    Ok(json!({ "events_per_second": IDLE_EPS, "seconds": args.seconds, "rss_mib": largest as f64 / 1024.0,
        "of_which_program_mib": of_files as f64 / 1024.0, "peak_rss_mib": peak as f64 / 1024.0 }))
}
