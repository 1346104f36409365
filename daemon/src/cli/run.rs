//! `silverd run`: the pipeline, against the brokers in pipeline.toml.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::config_watch::ConfigWatch;
use crate::app::services::{self, DashboardArgs};
use crate::app::setup::Setup;
use crate::gold::day_ledger;
use crate::pipeline::RunOptions;
use crate::pipeline::status::RunState;
use crate::plugin::Loaded;
use crate::runtime::file_watch::FileWatch;
use crate::source::Sources;

#[derive(clap::Args, Debug)]
pub(super) struct RunArgs {
    /// Stop when everything that is in the topic now is in the tables
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    dashboard: DashboardArgs,
}

pub(super) async fn run(config: &Path, args: RunArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    let host = setup.host()?;
    // A drain uses one version of pipeline.toml and of each plugin from start to end.
    let watch = (!args.drain).then(FileWatch::start);
    let pipeline = match &watch {
        Some(watch) => ConfigWatch::start(config, host.clone(), watch.clone(), setup.pipeline, setup.file_stamp),
        None => watch::channel(Arc::new(setup.pipeline)).1,
    };
    let (sender, status) = watch::channel(RunState::Starting);
    let days = Arc::new(day_ledger(&pipeline.borrow(), &setup.base_dir));
    let options = RunOptions {
        pipeline,
        sources: Sources::default(),
        broker: None,
        base_dir: setup.base_dir,
        host,
        loaded: Loaded::new(),
        watch,
        drain: args.drain,
        bytes_read: Arc::default(),
        recent_rows: Arc::default(),
        days: Some(days),
        status: sender,
    };
    services::run(options, args.dashboard, status, stop).await
}
