//! `silverd demo`: everything in one process. The embedded broker, the generator, the pipeline.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::beside::{self, PageArgs};
use super::follow::Follow;
use super::setup::Setup;
use crate::flow::Run;
use crate::generate::{GenerateArgs, Sender};
use crate::ingest::EmbeddedBroker;
use crate::reload::Watch;

#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// Events per second; 0: as fast as they are read
    #[arg(long, default_value_t = 100.0)]
    eps: f64,
    /// Stop sending after so many events; the pipeline goes on
    #[arg(long, value_name = "EVENTS")]
    count: Option<u64>,
    /// Send this file instead of made-up events, one JSON event a line
    #[arg(long, value_name = "EVENTS.JSONL")]
    file: Option<std::path::PathBuf>,
    /// Makes the same events again
    #[arg(long, conflicts_with = "file")]
    seed: Option<u64>,
    #[command(flatten)]
    page: PageArgs,
}

const PARTITIONS: i32 = 4;

pub async fn demo(file: &Path, args: DemoArgs, time: Option<Duration>, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let topic = setup.pipeline.source.topic.clone();
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
    // The plugins may have been built just now: the time counts from here.
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
    let taken = Arc::<AtomicU64>::default();
    let gate = {
        // The broker drops what it has no room for: nobody may run further ahead of the pipeline than it keeps.
        let (sender, taken, ahead_max) = (sender.clone(), taken.clone(), embedded.ahead_bytes_max());
        move || sender.progress().bytes.saturating_sub(taken.load(Relaxed)) < ahead_max
    };
    let generating = tokio::spawn(sender.produce(generate, gate, stop.child_token()));

    let (sender, shown) = watch::channel(None);
    let watch = Watch::start();
    let run = Run {
        pipeline: Follow::start(file, host.clone(), watch.clone(), setup.pipeline, setup.print),
        broker: Some(embedded.broker()),
        base: setup.base,
        host,
        loaded,
        watch: Some(watch),
        drain: false,
        taken,
        fresh: Arc::default(),
        status: sender,
    };
    let mut page = args.page;
    page.elsewhere = true;
    let result = beside::run(run, page, shown, stop.clone()).await;
    stop.cancel();
    generating.await??;
    // Under cargo, it is cargo that the reader has at hand.
    let silverd = if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "silverd" };
    println!("Ask the tables: {silverd} query \"select channel, count(*) from page_view group by channel\"");
    result
}
