//! `silverd-bench soak`: does silverd stay as fast as on its first day? Makes the commits of weeks in minutes: the daemon's own
//! commits to Bronze and to a Silver table, with its own table maintenance, and measures both tables several times.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::json;
use silverd::bronze::{Bronze, ranges_json};
use silverd::delta::{DataFile, Encoder, LOG_FOLDER, Table, TableSpec, checkpoints_done, log_dir};
use silverd::maintenance::{CompleteDays, MaintainedTable, TableKind, Throttle};
use silverd::runtime::{allocator, background, clock};
use silverd::tables::silver::properties_with;
use silverd::telemetry::rss_bytes;
use silverd_core::chunk::{Chunk, ChunkBuilder, Record, TimestampType, column, day_of};
use silverd_core::config::{self, Compression, Maintenance};
use silverd_core::counts::Counts;
use silverd_core::generate::{Generator, Options};
use silverd_core::offsets::LogPartition;
use silverd_core::schema::added;
use silverd_core::zone::Zone;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::output_dir::OutputDir;

#[derive(clap::Args, Debug)]
pub(crate) struct SoakArgs {
    /// Commits to each of the two tables
    #[arg(long, default_value_t = 50_000)]
    commits: u64,
    /// Events of a commit
    #[arg(long, default_value_t = 20)]
    events: usize,
    /// Commits that stand for a day: removed files are kept for one day, the log for seven. One commit per second is 86,400
    #[arg(long, default_value_t = 86_400, value_name = "COMMITS")]
    day: u64,
    /// Run no table maintenance, to see the tables without it
    #[arg(long)]
    without_maintenance: bool,
    /// The folder of the tables, which must be new or empty [default: a temporary one, which is deleted]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

const PARTITIONS: i32 = 4;
/// Commits from one run of maintenance to the next: at one commit per second, half a minute.
const MAINTENANCE_EVERY: u64 = 30;
/// Vacuums and log clean-ups per day, with an early one on the first day.
const VACUUMS_PER_DAY: u64 = 8;
const FIRST_VACUUM: u64 = 300;
/// How many of the last commits a measurement covers.
const WINDOW: usize = 1_000;
/// Before a measurement, the tables are opened every so many commits, from one checkpoint to the next: in between, opening
/// reads more and more of the log.
const OPEN_EVERY: u64 = 10;
const OPEN_WITHIN: u64 = 200;
/// After how many commits the tables are measured; after the last one, too.
const MEASURE_AT: [u64; 4] = [100, 1_000, 10_000, 50_000];

const HEADER: &str = "table     commits   p50 ms   p99 ms  open ms  RSS MiB    files  of them small  on disk    log";

/// Commits to both tables, and reports on them.
pub(crate) async fn soak(args: SoakArgs, stop: CancellationToken) -> anyhow::Result<()> {
    allocator::use_idle_profile();
    let out = OutputDir::create(args.out.clone())?;
    let mut tables = [("bronze", TableKind::Bronze), ("silver", TableKind::Silver)]
        .map(|(name, kind)| MeasuredTable::new(name, out.path.join(name), kind));
    let mut writers = Writers::open(&out.path).await?;
    let (mut maintenance, began) = (None::<JoinHandle<anyhow::Result<()>>>, Instant::now());
    let measure_at: BTreeSet<u64> =
        MEASURE_AT.into_iter().filter(|at| *at < args.commits).chain([args.commits]).collect();
    println!("{HEADER}");
    for commit in 1..=args.commits {
        ensure!(!stop.is_cancelled(), "stopped after {} of {} commits", commit - 1, args.commits);
        let chunk = writers.next_chunk(args.events);
        tables[0].time_commit(writers.bronze.append(&chunk, &stop, std::future::pending())).await?;
        tables[1].time_commit(writers.append_silver(&chunk)).await?;
        if commit % MAINTENANCE_EVERY == 0 && !args.without_maintenance {
            if let Some(running) = maintenance.take() {
                running.await??;
            }
            let config = scaled_retention(&args, began.elapsed() / u32::try_from(commit)?);
            let maintained = tables.each_ref().map(|table| table.table.clone());
            let work = maintain(maintained, config, vacuum_is_due(commit, args.day), stop.clone());
            maintenance = Some(background::handle()?.spawn(work));
        }
        let remaining = measure_at.range(commit..).next().map_or(u64::MAX, |at| at - commit);
        let (open, measure) = (remaining < OPEN_WITHIN && commit % OPEN_EVERY == 0, remaining == 0);
        if open || measure {
            // At one commit per second, a checkpoint has all the time that it needs.
            checkpoints_done().await;
        }
        if open {
            for table in &mut tables {
                table.time_open().await?;
            }
        }
        if measure {
            for table in &mut tables {
                table.measure(commit).await?;
            }
        }
    }
    if let Some(running) = maintenance {
        running.await??;
    }
    tables.iter().for_each(MeasuredTable::print_summary);
    let seconds = began.elapsed().as_secs_f64();
    println!("{} commits of {} events each, to both tables, in {seconds:.0} s", args.commits, args.events);
    Ok(())
}

fn vacuum_is_due(commit: u64, commits_per_day: u64) -> bool {
    let every = (commits_per_day / VACUUMS_PER_DAY / MAINTENANCE_EVERY).max(1);
    commit == FIRST_VACUUM || (commit / MAINTENANCE_EVERY).is_multiple_of(every)
}

/// A retention of one day, and of seven for the log, in the time of the run.
fn scaled_retention(args: &SoakArgs, per_commit: Duration) -> Maintenance {
    let day_ms = (per_commit.as_secs_f64() * args.day as f64 * 1000.0) as u64;
    Maintenance { retention_ms: day_ms, log_retention_ms: 7 * day_ms, ..Maintenance::default() }
}

async fn maintain(
    tables: [MaintainedTable; 2],
    config: Maintenance,
    vacuum: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let throttle = Throttle::unlimited(stop);
    for maintained in &tables {
        let (mut table, files) = maintained.open().await?.context("the table was removed")?;
        maintained.compact(&mut table, files, &config, CompleteDays::Past, &throttle).await?;
        if vacuum {
            maintained.set_retention(&mut table, &config).await?;
            maintained.vacuum(&table, &config, false, &throttle).await?;
            maintained.clean_up_log(&table, &config, false, &throttle).await?;
        }
    }
    Ok(())
}

/// Writes the two tables.
struct Writers {
    bronze: Bronze,
    silver: Table,
    encoder: Encoder,
    builder: ChunkBuilder,
    generator: Generator,
    /// The next offset of each partition.
    offsets: Vec<i64>,
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
            builder: ChunkBuilder::default(),
            generator: Generator::new(Options { seed: 1, ..Options::default() }),
            offsets: vec![0; PARTITIONS as usize],
        })
    }

    /// The next events, spread over all partitions.
    fn next_chunk(&mut self, events: usize) -> Chunk {
        let now = clock::now_micros();
        for at in 0..events {
            let partition = at % self.offsets.len();
            let (event, offset) = (self.generator.next(now), self.offsets[partition]);
            let record = Record {
                offset,
                timestamp: Some((now / 1000, TimestampType::CreateTime)),
                key: Some(event.key.as_bytes()),
                value: Some(&event.value),
                headers: std::iter::empty(),
            };
            let log = self.builder.log(&LogPartition::new("soak", "events", partition as i32));
            self.builder.push(log, offset, record);
            self.offsets[partition] += 1;
        }
        self.builder.finish(now)
    }

    /// Commits a chunk as a Silver worker does: rows, counts and offsets in one commit.
    async fn append_silver(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        let schema = silver_schema();
        let columns = SILVER_COLUMNS.iter().zip(schema.fields()).map(|(name, field)| {
            let column =
                chunk.records.column_by_name(name).with_context(|| format!("a chunk has no column `{name}`"))?;
            anyhow::Ok(arrow::compute::cast(column, field.data_type())?)
        });
        let rows = RecordBatch::try_new(schema.clone(), columns.collect::<anyhow::Result<_>>()?)?;
        let events = rows.num_rows() as u64;
        let (file, bytes) = self.encoder.encode(day_of(clock::now_micros()), &[rows])?;
        file.put(&self.silver.store(), bytes).await?;
        let ends = chunk.ranges.ends();
        let progress: Vec<_> = ends.iter().map(|(log, next)| (log.app_id(), *next)).collect();
        let counts = Counts { events, with_rows: events, rows: events, ..Counts::default() };
        let info = json!({ "ranges": ranges_json(&chunk.ranges), "counts": counts,
            "plugin": { "interface": "soak", "digest": "soak" } });
        self.silver.append(vec![file], &progress, info).await?;
        Ok(())
    }
}

/// The columns of a chunk that the Silver table gets, in the order of its own.
const SILVER_COLUMNS: [&str; 7] = [
    column::VALUE,
    column::TIMESTAMP,
    column::CLUSTER_ID,
    column::TOPIC,
    column::PARTITION,
    column::OFFSET,
    column::INGESTED_AT,
];

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

fn silver_spec(path: PathBuf) -> TableSpec {
    TableSpec { name: "silver".to_owned(), path, schema: silver_schema(), doc: None, time_zone: Zone::UTC }
}

/// A table, and what was measured of it.
struct MeasuredTable {
    name: &'static str,
    path: PathBuf,
    table: MaintainedTable,
    commit_times: Vec<Duration>,
    open_times: Vec<Duration>,
    first: Option<Figures>,
    last: Option<Figures>,
}

/// Milliseconds of a commit, and of opening the table.
#[derive(Clone, Copy)]
struct Figures {
    commit_p50: f64,
    commit_p99: f64,
    open: f64,
}

impl MeasuredTable {
    fn new(name: &'static str, path: PathBuf, kind: TableKind) -> Self {
        let table = MaintainedTable::new(name, path.clone(), kind, Compression::default());
        Self { name, path, table, commit_times: Vec::new(), open_times: Vec::new(), first: None, last: None }
    }

    async fn time_commit<T, E: Into<anyhow::Error>>(
        &mut self,
        commit: impl Future<Output = Result<T, E>>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        commit.await.map_err(Into::into)?;
        self.commit_times.push(began.elapsed());
        Ok(())
    }

    /// Opens the table, and returns its files.
    async fn time_open(&mut self) -> anyhow::Result<Vec<DataFile>> {
        let began = Instant::now();
        let (_, files) = self.table.open().await?.context("the table was removed")?;
        self.open_times.push(began.elapsed());
        Ok(files)
    }

    /// Reports the last commits, the last times that the table was opened, and its files.
    async fn measure(&mut self, commits: u64) -> anyhow::Result<()> {
        let mut times = self.commit_times.split_off(self.commit_times.len().saturating_sub(WINDOW));
        self.commit_times.clear();
        times.sort_unstable();
        let percentile = |percent: usize| millis(times[(times.len() * percent / 100).min(times.len() - 1)]);
        let files = self.time_open().await?;
        let mut open_times = std::mem::take(&mut self.open_times);
        open_times.sort_unstable();
        let open = millis(open_times[open_times.len() / 2]);
        let figures = Figures { commit_p50: percentile(50), commit_p99: percentile(99), open };
        let Figures { commit_p50, commit_p99, .. } = figures;
        let small = files.iter().filter(|file| file.size < Maintenance::default().file_bytes_max / 2).count();
        let (on_disk, log) = (count_files(&self.path, "parquet"), count_files(&log_dir(&self.path), "json"));
        println!(
            "{:<8} {commits:>8} {commit_p50:>8.2} {commit_p99:>8.2} {open:>8.2} {:>8} {:>8} {small:>14} {on_disk:>8} {log:>6}",
            self.name,
            rss_bytes() >> 20,
            files.len(),
        );
        self.first.get_or_insert(figures);
        self.last = Some(figures);
        Ok(())
    }

    fn print_summary(&self) {
        let (Some(first), Some(last)) = (self.first, self.last) else { return };
        println!(
            "{}: from the first measurement to the last, p50 {:.2}x, p99 {:.2}x, open {:.2}x",
            self.name,
            last.commit_p50 / first.commit_p50,
            last.commit_p99 / first.commit_p99,
            last.open / first.open
        );
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// Files with this extension in a folder, and in the folders of its days.
fn count_files(folder: &Path, extension: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: PathBuf| match path.is_dir() {
        true if path.ends_with(LOG_FOLDER) => 0,
        true => count_files(&path, extension),
        false => usize::from(path.extension().is_some_and(|found| found == extension)),
    };
    entries.flatten().map(|entry| count(entry.path())).sum()
}
