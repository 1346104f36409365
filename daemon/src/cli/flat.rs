//! `silverd flat`: does silverd stay as fast as it was on its first day? Weeks of commits, pressed together: the daemon's own
//! commits of Bronze and of a Silver table, its own care for their files beside them, and a look at both now and then.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::json;
use silverd_core::account::Counts;
use silverd_core::chunk::{Chunk, ChunkBuilder, Record, TimestampType, day_of};
use silverd_core::config::{self, Compression, Maintenance};
use silverd_core::generate::{Generator, Options};
use silverd_core::schema::added;
use tokio_util::sync::CancellationToken;

use crate::bronze::{Bronze, ranges_json};
use crate::clock;
use crate::delta::{DataFile, Encoder, Spec, Table, checkpoints_done};
use crate::low;
use crate::maintenance::{Kept, Kind, Pace, Tails};
use crate::memory;
use crate::silver::properties_with;
use crate::telemetry::rss_bytes;

#[derive(clap::Args, Debug)]
pub struct FlatArgs {
    /// Commits of each of the two tables
    #[arg(long, default_value_t = 50_000)]
    commits: u64,
    /// Events of a commit
    #[arg(long, default_value_t = 20)]
    events: usize,
    /// Commits that stand for a day: files are kept for one, the log for seven. A commit a second makes 86,400
    #[arg(long, default_value_t = 86_400, value_name = "COMMITS")]
    day: u64,
    /// Without the care for files: what a table becomes that nobody cares for
    #[arg(long)]
    without_maintenance: bool,
    /// Where the tables are made; the folder must be new or empty [default: a temporary one, which is deleted]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

const PARTITIONS: i32 = 4;
/// The tables are cared for after so many commits, as they would be every half minute.
const CARE_EACH: u64 = 30;
/// Old files and entries are removed so many times a day, and early on the first day.
const SWEEPS_A_DAY: u64 = 8;
const FIRST_SWEEP: u64 = 300;
/// How many of the last commits are looked at.
const WINDOW: usize = 1_000;
/// Before a look, the tables are opened each so many commits, from one checkpoint to the next: what an opening reads grows
/// in between.
const OPEN_EACH: u64 = 10;
const OPEN_OVER: u64 = 200;
const LOOKS: [u64; 4] = [100, 1_000, 10_000, 50_000];

/// A table of the run.
struct Side {
    name: &'static str,
    path: PathBuf,
    kept: Kept,
    latencies: Vec<Duration>,
    openings: Vec<Duration>,
    rows: Vec<String>,
    first: Option<[f64; 3]>,
}

/// What writes the two tables.
struct Writers {
    bronze: Bronze,
    silver: Table,
    encoder: Encoder,
    builder: ChunkBuilder,
    generator: Generator,
    next: Vec<i64>,
}

pub async fn flat(args: FlatArgs, stop: CancellationToken) -> anyhow::Result<()> {
    memory::calm();
    let low = low::handle()?;
    let out = super::bench::Out::of(args.out.clone())?;
    let mut sides = [("bronze", Kind::Bronze), ("silver", Kind::Silver)].map(|(name, kind)| {
        let path = out.path.join(name);
        let kept = Kept::new(name, path.clone(), kind, Compression::default());
        Side { name, path, kept, latencies: Vec::new(), openings: Vec::new(), rows: Vec::new(), first: None }
    });
    let mut writers = Writers::open(&out.path).await?;
    let (mut care, begun) = (None::<tokio::task::JoinHandle<anyhow::Result<()>>>, Instant::now());
    let looks: BTreeSet<u64> = LOOKS.into_iter().filter(|at| *at < args.commits).chain([args.commits]).collect();
    println!("{HEADER}");
    for commit in 1..=args.commits {
        ensure!(!stop.is_cancelled(), "stopped before the end");
        let chunk = writers.chunk(args.events);
        sides[0].time(writers.bronze.append(&chunk, &stop)).await?;
        sides[1].time(writers.silver(&chunk)).await?;
        if commit % CARE_EACH == 0 && !args.without_maintenance {
            if let Some(care) = care.take() {
                care.await??;
            }
            let config = pressed(&args, begun.elapsed() / u32::try_from(commit)?);
            let each = (args.day / SWEEPS_A_DAY / CARE_EACH).max(1);
            let sweeps = commit == FIRST_SWEEP || (commit / CARE_EACH).is_multiple_of(each);
            let tables = [sides[0].kept.clone(), sides[1].kept.clone()];
            let stop = stop.clone();
            care = Some(low.spawn(async move {
                for kept in &tables {
                    look_after(kept, &config, sweeps, &stop).await?;
                }
                Ok(())
            }));
        }
        let next = looks.range(commit..).next().map_or(u64::MAX, |look| look - commit);
        let (opens, is_look) = (next < OPEN_OVER && commit % OPEN_EACH == 0, next == 0);
        if opens || is_look {
            // A commit a second leaves a checkpoint all the time that it takes.
            checkpoints_done().await;
        }
        if opens {
            for side in &mut sides {
                side.open().await?;
            }
        }
        if is_look {
            for side in &mut sides {
                side.look(commit).await?;
            }
        }
    }
    if let Some(care) = care {
        care.await??;
    }
    for side in &sides {
        side.sum_up();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{} commits of {} events each, of both tables, in {seconds:.0} s", args.commits, args.events);
    Ok(())
}

/// The retention of a day and of seven, in the time of the run.
fn pressed(args: &FlatArgs, commit: Duration) -> Maintenance {
    let day_ms = (commit.as_secs_f64() * args.day as f64 * 1000.0) as u64;
    Maintenance { retention_ms: day_ms, log_retention_ms: 7 * day_ms, ..Maintenance::default() }
}

async fn look_after(kept: &Kept, config: &Maintenance, sweeps: bool, stop: &CancellationToken) -> anyhow::Result<()> {
    let pace = Pace::at_once(stop.clone());
    let (mut table, files) = kept.open().await?.context("the table is gone")?;
    kept.merge(&mut table, files, config, Tails::OfPastDays, &pace).await?;
    if sweeps {
        kept.tell_retention(&mut table, config).await?;
        kept.sweep(&table, config, false, &pace).await?;
        kept.trim(&table, config, false, &pace).await?;
    }
    Ok(())
}

impl Writers {
    async fn open(out: &Path) -> anyhow::Result<Self> {
        let path = config::Located::new("bronze".to_owned(), 0..0);
        let bronze = config::Bronze { path, compression: Compression::default() };
        let bronze = Bronze::open(out, &bronze, Arc::default()).await?;
        let silver = Table::open(&silver_spec(out.join("silver"))).await?;
        let compression = Compression::default();
        let properties = properties_with(&compression, std::iter::empty())?;
        Ok(Self {
            bronze,
            encoder: Encoder::new(silver.layout()?, properties, &compression),
            silver,
            builder: ChunkBuilder::new("flat".into(), "events".into()),
            generator: Generator::new(Options { seed: 1, ..Options::default() }),
            next: vec![0; PARTITIONS as usize],
        })
    }

    /// The next events, over all partitions.
    fn chunk(&mut self, events: usize) -> Chunk {
        let now = clock::now_micros();
        for at in 0..events {
            let partition = at % self.next.len();
            let (event, offset) = (self.generator.next(now), self.next[partition]);
            let record = Record {
                partition: partition as i32,
                offset,
                timestamp: Some((now / 1000, TimestampType::CreateTime)),
                key: Some(event.key.as_bytes()),
                value: Some(&event.value),
                headers: std::iter::empty(),
            };
            self.builder.push(offset, record);
            self.next[partition] += 1;
        }
        self.builder.finish(now)
    }

    /// Commits a chunk as a worker does: rows, counts and progress in one.
    async fn silver(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        let columns = [7, 4, 0, 1, 2, 3, 9].map(|at| chunk.records.column(at).clone());
        let types = silver_schema();
        let columns = columns.iter().zip(types.fields()).map(|(column, field)| {
            Ok(if column.data_type() == field.data_type() {
                column.clone()
            } else {
                arrow::compute::cast(column, field.data_type())?
            })
        });
        let rows = RecordBatch::try_new(types.clone(), columns.collect::<anyhow::Result<_>>()?)?;
        let events = rows.num_rows() as u64;
        let (file, bytes) = self.encoder.encode(day_of(clock::now_micros()), &[rows])?;
        file.put(&self.silver.store(), bytes).await?;
        let ends = chunk.ranges.ends();
        let progress: Vec<_> = ends.iter().map(|(log, next)| (log.app_id(), *next)).collect();
        let counts = Counts { events, with_rows: events, rows: events, ..Counts::default() };
        let info = json!({ "ranges": ranges_json(&chunk.ranges), "counts": counts,
            "plugin": { "interface": "flat", "digest": "flat" } });
        self.silver.append(vec![file], &progress, info).await?;
        Ok(())
    }
}

fn silver_schema() -> SchemaRef {
    let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("event", DataType::Binary, true),
        Field::new("ts", timestamp(), true),
        Field::new(added::CLUSTER_ID, DataType::Utf8, false),
        Field::new(added::TOPIC, DataType::Utf8, false),
        Field::new(added::PARTITION, DataType::Int32, false),
        Field::new(added::OFFSET, DataType::Int64, false),
        Field::new(added::INGESTED_AT, timestamp(), false),
    ]))
}

fn silver_spec(path: PathBuf) -> Spec {
    Spec { name: "silver".to_owned(), path, schema: silver_schema(), doc: None }
}

const HEADER: &str = "table     commits   p50 ms   p99 ms  open ms  RSS MiB    files  of them small  on disk    log";

impl Side {
    async fn time<T, E: Into<anyhow::Error>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        work.await.map_err(Into::into)?;
        self.latencies.push(begun.elapsed());
        Ok(())
    }

    async fn open(&mut self) -> anyhow::Result<Vec<DataFile>> {
        let begun = Instant::now();
        let (_, files) = self.kept.open().await?.context("the table is gone")?;
        self.openings.push(begun.elapsed());
        Ok(files)
    }

    /// Looks at the last commits, and at how long it takes to open the table.
    async fn look(&mut self, commits: u64) -> anyhow::Result<()> {
        let mut last = self.latencies.split_off(self.latencies.len().saturating_sub(WINDOW));
        self.latencies.clear();
        last.sort_unstable();
        let of = |share: usize| millis(last[(last.len() * share / 100).min(last.len() - 1)]);
        let files = self.open().await?;
        let mut opened = std::mem::take(&mut self.openings);
        opened.sort_unstable();
        let small = files.iter().filter(|file| file.size < Maintenance::default().file_bytes_max / 2).count();
        let (p50, p99, open, rss) = (of(50), of(99), millis(opened[opened.len() / 2]), rss_bytes() >> 20);
        let (on_disk, log) = (count(&self.path, "parquet"), count(&self.path.join("_delta_log"), "json"));
        println!(
            "{:<8} {commits:>8} {p50:>8.2} {p99:>8.2} {open:>8.2} {rss:>8} {:>8} {small:>14} {on_disk:>8} {log:>6}",
            self.name,
            files.len(),
        );
        let figures = [p50, p99, open];
        self.first.get_or_insert(figures);
        let first = self.first.unwrap_or(figures);
        let ratio = |at: usize| figures[at] / first[at];
        self.rows = vec![format!("p50 {:.2}x, p99 {:.2}x, open {:.2}x", ratio(0), ratio(1), ratio(2))];
        Ok(())
    }

    fn sum_up(&self) {
        for row in &self.rows {
            println!("{}: from the first look to the last, {row}", self.name);
        }
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// Files of this kind in a folder, and in the folders of its days.
fn count(folder: &Path, extension: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |path: PathBuf| match path.is_dir() {
        true if path.ends_with("_delta_log") => 0,
        true => count(&path, extension),
        false => usize::from(path.extension().is_some_and(|found| found == extension)),
    };
    entries.flatten().map(|entry| of(entry.path())).sum()
}
