//! `silverd demo`: everything in one process: the embedded broker, the generator, the pipeline and the dashboard.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::config_watch::ConfigWatch;
use crate::app::services::{self, DashboardArgs};
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::generate::{GenerateArgs, Sender};
use crate::gold::day_ledger;
use crate::pipeline::RunOptions;
use crate::pipeline::status::RunState;
use crate::runtime::file_watch::FileWatch;
use crate::runtime::out::out;
use crate::source::{EmbeddedBroker, Sources};

#[derive(clap::Args, Debug)]
pub(super) struct DemoArgs {
    /// Events per second; 0: as fast as they are read
    #[arg(long, default_value_t = 100.0)]
    eps: f64,
    /// Stop sending after so many events; the pipeline keeps running
    #[arg(long, value_name = "EVENTS")]
    count: Option<u64>,
    /// Send this file instead of generated events, one JSON event per line
    #[arg(long, value_name = "EVENTS.JSONL")]
    file: Option<PathBuf>,
    /// Generate the same events at every start
    #[arg(long, conflicts_with = "file")]
    seed: Option<u64>,
    #[command(flatten)]
    dashboard: DashboardArgs,
}

const PARTITIONS: i32 = 4;

pub(super) async fn demo(
    config: &Path,
    args: DemoArgs,
    time: Option<Duration>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let topics = &setup.pipeline.source.topics;
    let Some(topic) = topics.single().map(str::to_owned) else {
        wrong_use!(
            "the demo sends events to one topic, and [source] reads {topics}: write `topic = \"events.raw\"` there"
        );
    };
    let embedded = EmbeddedBroker::start(&topic, PARTITIONS)?;
    let bootstrap = embedded.bootstrap();
    info!("embedded broker at {bootstrap} with topic {topic}: any Kafka client can send to it until the demo ends");
    let load = tokio::task::spawn_blocking(move || {
        setup.host().and_then(|host| Ok((setup.load_plugins(&host)?, host, setup)))
    });
    let (loaded, host, setup) = tokio::select! {
        loaded = load => loaded??,
        () = stop.cancelled() => return Ok(()),
    };
    // The first build of the plugins may take minutes, so `--for` counts from here.
    super::stop_after(time, &stop);

    let generate = GenerateArgs {
        bootstrap,
        topic: topic.clone(),
        eps: args.eps,
        count: args.count,
        file: args.file,
        seed: args.seed,
        partitions: PARTITIONS,
        ..GenerateArgs::default()
    };
    let sender = Sender::connect(&generate.bootstrap, &topic, PARTITIONS, &stop).await?;
    let bytes_read = Arc::<AtomicU64>::default();
    let may_send = {
        // The embedded broker drops records that it has no room for, so the generator must not be further ahead of the
        // pipeline than what the broker holds.
        let (sender, bytes_read, ahead_max) = (sender.clone(), bytes_read.clone(), embedded.ahead_bytes_max());
        move || sender.progress().bytes.saturating_sub(bytes_read.load(Relaxed)) < ahead_max
    };
    let generating = tokio::spawn(sender.produce(generate, may_send, stop.child_token()));

    let (sender, status) = watch::channel(RunState::Starting);
    let watch = FileWatch::start();
    let table = setup.pipeline.silver.first().map_or("bronze", |table| &table.name).to_owned();
    let days = Arc::new(day_ledger(&setup.pipeline, &setup.base_dir));
    let options = RunOptions {
        pipeline: ConfigWatch::start(config, host.clone(), watch.clone(), setup.pipeline, setup.file_stamp),
        sources: Sources::default(),
        broker: Some(embedded.broker()),
        base_dir: setup.base_dir,
        host,
        loaded,
        watch: Some(watch),
        drain: false,
        bytes_read,
        recent_rows: Arc::default(),
        days: Some(days),
        status: sender,
    };
    let mut dashboard = args.dashboard;
    dashboard.try_next_ports = true;
    let result = services::run(options, dashboard, status, stop.clone()).await;
    stop.cancel();
    generating.await??;
    result?;
    // Cargo sets this for what it runs: the reader then has cargo, and perhaps no installed silverd.
    let silverd = if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "silverd" };
    out!("Query the tables: {silverd} query \"select event_date, count(*) from {table} group by event_date\"");
    Ok(())
}
