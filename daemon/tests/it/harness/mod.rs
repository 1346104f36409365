//! What the tests share: a project folder with its broker, the real binary in it, and what its tables must contain.

pub mod allocation;
mod broker;
mod daemon;
pub mod expected;
mod generator;
pub mod guest;
pub mod hostile_guest;
mod http;
mod log_entries;
mod own_kafka;
mod process;
mod project;
pub mod python;
pub mod smtp;
mod source_files;
mod table_copy;
pub mod tables;
mod tcp_server;
pub mod tls;
mod verify;
mod wait;
pub mod webhook;

use std::path::Path;

pub use self::broker::{Broker, PARTITIONS};
pub use self::daemon::Daemon;
pub use self::generator::Generator;
pub use self::http::Response;
pub use self::log_entries::{actions, commit_as_other_engine, entries, upgrade};
pub use self::own_kafka::OwnKafka;
pub use self::process::wait_for_exit;
pub use self::project::{BUILD_TIMEOUT, Project, TableOptions};
pub use self::source_files::source_files;
pub use self::table_copy::TableCopy;
pub use self::tables::{SILVER, rows};
pub use self::verify::{finding_kinds, table_report, verify};
pub use self::wait::{block_on, until, wait_for};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The path of a file in `tests/it/fixtures`.
pub fn fixture(name: &str) -> String {
    format!("{}/tests/it/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The seed of a randomized test: `SILVERD_TEST_SEED`, or a random one, which is printed.
pub fn seed() -> u64 {
    let given =
        std::env::var("SILVERD_TEST_SEED").ok().map(|seed| seed.parse().expect("SILVERD_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(rand::random);
    println!("SILVERD_TEST_SEED={seed}");
    seed
}

/// How often a randomized test does something: so many times with a real Kafka, times `SILVERD_TEST_ROUNDS`.
pub fn rounds(project: &Project, with_kafka: usize) -> usize {
    let factor = std::env::var("SILVERD_TEST_ROUNDS").map_or(1, |factor| factor.parse().expect("a number"));
    if project.broker.is_kafka() { with_kafka * factor } else { 10.min(with_kafka) }
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
