//! `silverd run`: the pipeline, against the brokers of pipeline.toml.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::beside::{self, PageArgs};
use super::follow::Follow;
use super::setup::Setup;
use crate::flow::Run;
use crate::reload::Watch;
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
    // A drain is one piece of work, with what lies there when it begins.
    let watch = (!args.drain).then(Watch::start);
    let pipeline = match &watch {
        Some(watch) => Follow::start(file, host.clone(), watch.clone(), setup.pipeline, setup.print),
        None => watch::channel(Arc::new(setup.pipeline)).1,
    };
    let (sender, shown) = watch::channel(None);
    let run = Run {
        pipeline,
        broker: None,
        base: setup.base,
        host,
        loaded: Loaded::new(),
        watch,
        drain: args.drain,
        taken: Arc::default(),
        fresh: Arc::default(),
        status: sender,
    };
    beside::run(run, args.page, shown, stop).await
}
