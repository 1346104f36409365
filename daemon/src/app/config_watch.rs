//! pipeline.toml while the daemon runs: each save is checked, compared with what runs, and applied, or rejected as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use silverd_core::config::diff::{Changes, TableChange};
use silverd_core::config::{Pipeline, SilverTable};
use tokio::sync::watch;
use tracing::{error, info};

use super::setup::Setup;
use crate::bronze;
use crate::delta::Table;
use crate::pipeline::silver_workers::SideOutputs;
use crate::plugin::Host;
use crate::runtime::file_watch::{FileStamp, FileWatch};

/// Watches pipeline.toml until nobody receives its pipelines any more.
pub(crate) struct ConfigWatch {
    file: PathBuf,
    host: Arc<Host>,
    watch: FileWatch,
    pipeline: watch::Sender<Arc<Pipeline>>,
    /// The file's stamp when it was read.
    seen: FileStamp,
}

impl ConfigWatch {
    pub(crate) fn start(
        file: &Path,
        host: Arc<Host>,
        watch: FileWatch,
        pipeline: Pipeline,
        seen: FileStamp,
    ) -> watch::Receiver<Arc<Pipeline>> {
        let (sender, receiver) = watch::channel(Arc::new(pipeline));
        tokio::spawn(Self { file: file.to_path_buf(), host, watch, pipeline: sender, seen }.run());
        receiver
    }

    async fn run(mut self) {
        let file = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let folder = file.parent().map(Path::to_path_buf);
        let look = || (FileStamp::of([&file]), folder.iter().cloned().collect());
        loop {
            let changed = self.watch.changed(&self.seen, look);
            self.seen = tokio::select! { now = changed => now, () = self.pipeline.closed() => return };
            if let Err(failure) = self.apply().await {
                error!("{failure:#}\nnothing was changed: the previous pipeline keeps running");
            }
        }
    }

    async fn apply(&self) -> anyhow::Result<()> {
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
            // A new plugin version of a running table is validated by the table's reloader.
            let loaded = setup.load_plugins_of(&host, |table| {
                let starts = [Some(TableChange::Added), Some(TableChange::Restarted)];
                concerned.all || starts.contains(&concerned.of(&table.name))
            })?;
            setup.check_cases(&loaded, |table| {
                let same = |was: &SilverTable| was.name == table.name && was.transform == table.transform;
                !running.silver.iter().any(same)
            })?;
            setup.check_sql()?;
            anyhow::Ok(setup)
        })
        .await??;
        check_tables_open(&setup, changes.all).await?;
        info!("{} was saved, and is applied: {changes}", self.file.display());
        self.pipeline.send_replace(Arc::new(setup.pipeline));
        Ok(())
    }
}

/// Opens the tables that the pipeline will open: a folder that cannot be used is a configuration error like any other.
async fn check_tables_open(setup: &Setup, all: bool) -> anyhow::Result<()> {
    let (pipeline, base_dir) = (&setup.pipeline, &setup.base_dir);
    if all {
        Table::open(&bronze::table_spec(base_dir.join(&*pipeline.bronze.path))).await?;
        return SideOutputs::open(base_dir, pipeline).await.map(drop);
    }
    SideOutputs::open_late(base_dir, pipeline).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn applies_a_save_that_came_before_the_watch_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.toml");
        let write = |interval: &str| {
            let commit = format!("[commit]\ninterval = \"{interval}\"\n");
            std::fs::write(&file, format!("[source]\nbrokers = \"localhost:1\"\ntopic = \"t\"\n\n{commit}")).unwrap();
        };
        write("100ms");
        let setup = Setup::read(&file).unwrap();
        let host = setup.host().unwrap();
        write("2s");
        let mut pipelines = ConfigWatch::start(&file, host, FileWatch::start(), setup.pipeline, setup.file_stamp);
        let applied = pipelines.wait_for(|pipeline| pipeline.commit.interval_ms == 2000);
        tokio::time::timeout(Duration::from_secs(30), applied).await.unwrap().unwrap();
    }
}
