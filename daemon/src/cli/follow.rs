//! pipeline.toml while the daemon runs: each save is checked, compared with what runs, and applied; or told, and left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use silverd_core::config::Pipeline;
use silverd_core::config::diff::{Changes, TableChange};
use tokio::sync::watch;
use tracing::{error, info};

use super::setup::Setup;
use crate::bronze;
use crate::crew::Sides;
use crate::delta::Table;
use crate::reload::{Print, Watch};
use crate::transform::Host;

/// Follows a file until nobody takes its pipelines any more.
pub struct Follow {
    file: PathBuf,
    host: Arc<Host>,
    watch: Watch,
    pipeline: watch::Sender<Arc<Pipeline>>,
    /// How the file looked when it was read.
    seen: Print,
}

impl Follow {
    pub fn start(
        file: &Path,
        host: Arc<Host>,
        watch: Watch,
        pipeline: Pipeline,
        seen: Print,
    ) -> watch::Receiver<Arc<Pipeline>> {
        let (sender, receiver) = watch::channel(Arc::new(pipeline));
        tokio::spawn(Self { file: file.to_path_buf(), host, watch, pipeline: sender, seen }.run());
        receiver
    }

    async fn run(mut self) {
        let file = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let folder = file.parent().map(Path::to_path_buf);
        let look = || (Print::of([&file]), folder.iter().cloned().collect());
        loop {
            let changed = self.watch.changed(&self.seen, look);
            self.seen = tokio::select! { now = changed => now, () = self.pipeline.closed() => return };
            if let Err(failure) = self.take_up().await {
                error!("{failure:#}\nnothing was changed: silverd goes on with what it had");
            }
        }
    }

    async fn take_up(&self) -> anyhow::Result<()> {
        let setup = Setup::read(&self.file)?;
        let running = self.pipeline.borrow().clone();
        let changes = Changes::between(&running, &setup.pipeline);
        if changes.is_empty() {
            info!("{} was saved: {changes}", self.file.display());
            return Ok(());
        }
        let host = self.host.clone();
        let concerned = changes.clone();
        let setup = tokio::task::spawn_blocking(move || {
            // A new version of a plugin is proven by its table's keeper, and stays out if it must.
            setup.load_plugins_of(&host, |table| {
                let anew = [Some(TableChange::Added), Some(TableChange::Restarted)];
                concerned.all || anew.contains(&concerned.of(&table.name))
            })?;
            setup.check_sql()?;
            anyhow::Ok(setup)
        })
        .await??;
        openable(&setup, changes.all).await?;
        info!("{} was saved, and is applied: {changes}", self.file.display());
        self.pipeline.send_replace(Arc::new(setup.pipeline));
        Ok(())
    }
}

/// Opens the tables that the flow will open: a folder that cannot be used is a mistake like any other.
async fn openable(setup: &Setup, all: bool) -> anyhow::Result<()> {
    let (pipeline, base) = (&setup.pipeline, &setup.base);
    if all {
        Table::open(&bronze::spec(base.join(&*pipeline.bronze.path))).await?;
        return Sides::open(base, pipeline).await.map(drop);
    }
    Sides::late(base, pipeline).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_save_before_the_file_is_followed_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.toml");
        let write = |interval: u64| {
            let commit = format!("[commit]\ninterval_ms = {interval}\n");
            std::fs::write(&file, format!("[source]\nbrokers = \"localhost:1\"\ntopic = \"t\"\n\n{commit}")).unwrap();
        };
        write(100);
        let setup = Setup::read(&file).unwrap();
        let host = setup.host().unwrap();
        write(2000);
        let mut pipelines = Follow::start(&file, host, Watch::start(), setup.pipeline, setup.print);
        let taken_up = pipelines.wait_for(|pipeline| pipeline.commit.interval_ms == 2000);
        tokio::time::timeout(Duration::from_secs(30), taken_up).await.unwrap().unwrap();
    }
}
