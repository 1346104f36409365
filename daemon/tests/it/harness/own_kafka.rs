//! A Kafka that only one test uses, which may stop it and damage its data.

use std::path::PathBuf;
use std::process::Command;

use super::root;

/// Ends with the test.
pub struct OwnKafka {
    folder: tempfile::TempDir,
    pub address: String,
}

impl OwnKafka {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = script(&["start", folder.path().to_str().unwrap()]);
        Self { folder, address }
    }

    pub fn stop(&self) {
        script(&["stop", self.folder.path().to_str().unwrap()]);
    }

    /// Starts it again at the same port, with its data.
    pub fn start_again(&self) {
        let (_, port) = self.address.rsplit_once(':').unwrap();
        assert_eq!(script(&["start", self.folder.path().to_str().unwrap(), port]), self.address);
    }

    /// The folder of its logs.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        self.stop();
    }
}

fn script(args: &[&str]) -> String {
    // A little memory is enough for some records.
    let kafka =
        Command::new(root().join("scripts/kafka")).args(args).env("KAFKA_HEAP_OPTS", "-Xms64m -Xmx256m").output();
    let kafka = kafka.unwrap();
    assert!(kafka.status.success(), "scripts/kafka {args:?}: {}", String::from_utf8_lossy(&kafka.stderr));
    String::from_utf8(kafka.stdout).unwrap().trim().to_owned()
}
