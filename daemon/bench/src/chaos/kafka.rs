//! The Kafka of a run: one that runs already, or one that the run starts and may stop.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// A little memory is enough for one topic.
const HEAP: &str = "-Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1";

pub(super) enum Kafka {
    Given(String),
    Own(OwnKafka),
}

/// Ends with the run.
pub(super) struct OwnKafka {
    script: PathBuf,
    folder: PathBuf,
    address: String,
}

impl Kafka {
    pub(super) fn address(&self) -> &str {
        match self {
            Kafka::Given(address) => address,
            Kafka::Own(own) => &own.address,
        }
    }

    pub(super) fn own(&self) -> Option<&OwnKafka> {
        match self {
            Kafka::Given(_) => None,
            Kafka::Own(own) => Some(own),
        }
    }
}

impl OwnKafka {
    pub(super) fn start(script: &Path, folder: PathBuf) -> anyhow::Result<Self> {
        let script = script.canonicalize().with_context(|| format!("find {}", script.display()))?;
        let mut own = Self { script, folder, address: String::new() };
        own.address = own.run(&["start"])?;
        Ok(own)
    }

    pub(super) fn stop(&self) -> anyhow::Result<()> {
        self.run(&["stop"]).map(drop)
    }

    /// At the same port, with its data.
    pub(super) fn start_again(&self) -> anyhow::Result<()> {
        let (_, port) = self.address.rsplit_once(':').context("the address of Kafka has no port")?;
        let address = self.run(&["start", port])?;
        ensure!(address == self.address, "Kafka started at {address}, and not at {}", self.address);
        Ok(())
    }

    /// `start` or `stop`, and what comes after the folder.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (action, rest) = arguments.split_first().context("what shall Kafka do?")?;
        let mut command = Command::new(&self.script);
        command.arg(action).arg(&self.folder).args(rest).env("KAFKA_HEAP_OPTS", HEAP);
        let output = command.output().with_context(|| format!("run {}", self.script.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {action}: {}", self.script.display(), errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        if let Err(failure) = self.stop() {
            eprintln!("Kafka may still run: {failure:#}");
        }
    }
}
