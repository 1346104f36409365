//! `silverd run`: the pipeline, against the brokers of pipeline.toml.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::beside::{self, PageArgs};
use super::setup::Setup;
use crate::flow::Run;
use crate::ingest::Broker;
use crate::silver::Loaded;

#[derive(clap::Args, Debug)]
pub struct RunArgs {
    /// End when everything that is in the topic now is in the tables
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    page: PageArgs,
}

pub async fn run(file: &Path, args: RunArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let host = setup.host()?;
    let broker = Broker { bootstrap: setup.pipeline.source.brokers.clone(), cluster_id: None };
    let (sender, shown) = watch::channel(None);
    let run = Run {
        pipeline: setup.pipeline,
        broker,
        base: setup.base,
        host,
        loaded: Loaded::new(),
        drain: args.drain,
        taken: Arc::default(),
        fresh: Arc::default(),
        status: sender,
    };
    beside::run(run, args.page, shown, stop).await
}
