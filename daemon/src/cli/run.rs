//! `silverd run`: the pipeline, against the brokers of pipeline.toml.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::setup::Setup;
use crate::flow::{self, Run};
use crate::ingest::Broker;
use crate::silver::Loaded;
use crate::status::{self, Status};

#[derive(clap::Args, Debug)]
pub struct RunArgs {
    /// End when everything that is in the topic now is in the tables
    #[arg(long)]
    drain: bool,
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
        status: sender,
    };
    shown_until_end(run, shown, stop).await
}

/// Runs a pipeline, and shows its status until it ends.
pub async fn shown_until_end(
    run: Run,
    shown: watch::Receiver<Option<Arc<Status>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let ended = CancellationToken::new();
    let display = tokio::spawn(status::show(shown, ended.clone()));
    let result = flow::run(run, stop).await;
    ended.cancel();
    let _ = display.await;
    result
}
