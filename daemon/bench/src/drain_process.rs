//! A drain in a process of its own.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::{Map, Value};
use silverd::runtime::this_program;
use tokio::process::Command;

use crate::args::{Codec, Transforms, name_of};

/// This program, with `--once`.
pub(crate) struct DrainProcess<'a> {
    pub(crate) config: &'a Path,
    pub(crate) brokers: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) transforms: Transforms,
    pub(crate) codec: Option<Codec>,
}

impl DrainProcess<'_> {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(this_program());
        command.args(["--once", "--brokers", self.brokers, "--topic", self.topic, "--log", "warn"]);
        command.args(["--transforms", &name_of(self.transforms)]).arg("--config").arg(self.config);
        if let Some(codec) = self.codec {
            command.args(["--codec", &name_of(codec)]);
        }
        command.kill_on_drop(true);
        command
    }

    /// Runs the drain, and returns its report.
    pub(crate) async fn run(&self) -> anyhow::Result<Map<String, Value>> {
        let output = self.command().arg("--json").stderr(Stdio::inherit()).output().await.context("start a drain")?;
        ensure!(output.status.success(), "a drain failed; its error is above");
        serde_json::from_slice(&output.stdout).context("read the report of a drain")
    }
}
