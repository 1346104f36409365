//! Runs the blocks of one page, in their order, in a copy of the repository.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::super::harness::{BUILD_TIMEOUT, Broker, OwnKafka, PARTITIONS, root, wait_for_exit};
use super::blocks::{Block, Form};
use super::output;

/// The time that a block may take.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a block is run again until it prints what the page shows.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(120);
const OUTPUT_PAUSE: Duration = Duration::from_millis(500);
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// What the pages write for the broker and the dashboard.
const BROKER: &str = "localhost:9092";
const DASHBOARD_PORT: &str = "8080";
/// The topic of the shipped pipeline.toml.
const TOPIC: &str = "events.raw";

/// Where the pages get their brokers.
pub enum Brokers {
    /// A Kafka that all pages use, one after the other, if the tests have a Kafka.
    Kafka(OwnKafka),
    /// An embedded broker for each page. It cannot create topics.
    Embedded,
}

impl Brokers {
    pub fn start() -> Self {
        match std::env::var_os("SILVERD_TEST_BROKERS") {
            Some(_) => Self::Kafka(OwnKafka::start()),
            None => Self::Embedded,
        }
    }

    /// Whether a page can run: one that names another topic needs a Kafka.
    pub fn suffice_for(&self, blocks: &[Block]) -> bool {
        let names_topic = |block: &Block| block.form.needs_page() && block.text.contains("--topic ");
        matches!(self, Self::Kafka(_)) || !blocks.iter().any(names_topic)
    }

    /// A broker with an empty topic.
    fn for_page(&self) -> Broker {
        match self {
            Self::Kafka(kafka) => {
                let broker = Broker::Kafka(kafka.address.clone());
                broker.delete_all_topics();
                broker.create_topic(TOPIC, PARTITIONS);
                broker
            }
            Self::Embedded => Broker::with_topic(TOPIC),
        }
    }
}

/// A script, and whatever it has started in its process group.
struct Started {
    child: Child,
    /// The place of its block, if that is to run until the page ends.
    background: Option<String>,
}

/// Where a page runs, and what it has started.
pub struct PageRun {
    folder: tempfile::TempDir,
    broker: Broker,
    dashboard_port: String,
    started: Vec<Started>,
    scripts: usize,
}

impl PageRun {
    pub fn start(brokers: &Brokers) -> Self {
        static WARM: Once = Once::new();
        WARM.call_once(build_what_plugins_depend_on);
        let folder = tempfile::tempdir().unwrap();
        copy_repository(folder.path());
        let (broker, dashboard_port) = (brokers.for_page(), free_port().to_string());
        Self { folder, broker, dashboard_port, started: Vec::new(), scripts: 0 }
    }

    /// Runs the blocks. Each failure names the block, and says what happened.
    pub fn run(mut self, blocks: &[Block]) -> Vec<String> {
        let mut failures = Vec::new();
        let mut last_script: Option<(&Block, Printed)> = None;
        for block in blocks {
            let done = match &block.form {
                Form::Shell { exit_code } => self.shell(block, *exit_code).map(|printed| {
                    last_script = Some((block, printed));
                }),
                Form::Background => {
                    self.start_background(block);
                    Ok(())
                }
                Form::Python => self.python(block),
                Form::Output => match &mut last_script {
                    Some((script, printed)) => self.compare(block, script, printed),
                    None => Err("there is no script before it".to_owned()),
                },
                Form::File(path) => {
                    let path = self.folder.path().join(path);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, self.in_this_run(&block.text)).unwrap();
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(failure) = done {
                failures.push(format!("{}: {failure}", block.place));
                // What follows builds on it.
                break;
            }
        }
        failures.extend(self.end_all());
        failures
    }

    /// The text of a block with this run's broker and dashboard.
    fn in_this_run(&self, text: &str) -> String {
        text.replace(BROKER, &self.broker.address()).replace(DASHBOARD_PORT, &self.dashboard_port)
    }

    fn shell(&mut self, block: &Block, exit_code: i32) -> Result<Printed, String> {
        let log = self.log_file();
        let mut child = self.bash(&self.script(&block.text), &log);
        let status = wait_for_exit(&mut child, BLOCK_TIMEOUT);
        // What the script left running goes on until the page ends.
        self.started.push(Started { child, background: None });
        let printed = std::fs::read_to_string(&log).unwrap();
        match status {
            None => Err(format!("not done after {} s:\n{printed}", BLOCK_TIMEOUT.as_secs())),
            Some(status) if status.code() == Some(exit_code) => Ok(Printed { text: printed, exit_code }),
            Some(status) => Err(format!("ended with {status}, not {exit_code}:\n{printed}")),
        }
    }

    fn start_background(&mut self, block: &Block) {
        let log = self.log_file();
        let child = self.bash(&self.script(&block.text), &log);
        self.started.push(Started { child, background: Some(block.place.clone()) });
    }

    fn python(&mut self, block: &Block) -> Result<(), String> {
        let Ok(python) = std::env::var("SILVERD_TEST_PYTHON") else { return Ok(()) };
        let file = self.folder.path().join(".block.py");
        std::fs::write(&file, self.in_this_run(&block.text)).unwrap();
        let quoted = format!("'{python}' '{}'", file.display());
        self.shell(&Block { text: quoted, ..block.clone() }, 0).map(|_| ())
    }

    /// Compares the output of the script before; one that has to wait for something is run again.
    fn compare(&mut self, block: &Block, script: &Block, printed: &mut Printed) -> Result<(), String> {
        let started = Instant::now();
        let shown = self.in_this_run(&block.text);
        loop {
            let Err(missing) = output::find(&shown, &printed.text) else { return Ok(()) };
            if started.elapsed() > OUTPUT_TIMEOUT {
                return Err(format!("{missing}\n{} printed:\n{}", script.place, printed.text));
            }
            std::thread::sleep(OUTPUT_PAUSE);
            *printed = self.shell(script, printed.exit_code)?;
        }
    }

    /// A script that continues where the last one was: in its folder, with its variables.
    fn script(&self, text: &str) -> String {
        format!(
            "[ -e .page-env ] && . ./.page-env\ncd \"${{PAGE_FOLDER:-.}}\"\nset -eu\n{}\nset +u\nPAGE_FOLDER=$PWD\nexport \
             PAGE_FOLDER\nexport -p > '{}/.page-env'\n",
            self.in_this_run(text),
            self.folder.path().display()
        )
    }

    fn bash(&self, script: &str, log: &Path) -> Child {
        let output = File::create(log).unwrap();
        let silverd = Path::new(env!("CARGO_BIN_EXE_silverd")).parent().unwrap();
        let path = format!("{}:{}", silverd.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("KAFKA_BROKERS", self.broker.address())
            .env("SILVERD_LISTEN", format!("127.0.0.1:{}", self.dashboard_port))
            // The daemon's own target folder is none of the page's.
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_MANIFEST_DIR")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0);
        command.spawn().unwrap()
    }

    fn log_file(&mut self) -> PathBuf {
        self.scripts += 1;
        self.folder.path().join(format!(".page-{}.log", self.scripts))
    }

    /// Ends what was started; a block in the background must still run, or have succeeded.
    fn end_all(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        for Started { mut child, background } in std::mem::take(&mut self.started).into_iter().rev() {
            let ended = child.try_wait().unwrap();
            signal_group(&child, libc::SIGTERM);
            if let Some(place) = background {
                if let Some(status) = ended.filter(|status| !status.success()) {
                    failures.push(format!("{place}: ended with {status}"));
                }
                if wait_for_exit(&mut child, END_TIMEOUT).is_none() {
                    failures.push(format!("{place}: does not end on SIGTERM"));
                }
            }
            signal_group(&child, libc::SIGKILL);
        }
        failures
    }
}

impl Drop for PageRun {
    fn drop(&mut self) {
        self.end_all();
    }
}

struct Printed {
    text: String,
    exit_code: i32,
}

/// Builds the plugins as trials and as releases, so that no page has to compile what they depend on.
fn build_what_plugins_depend_on() {
    let folder = tempfile::tempdir().unwrap();
    copy_repository(folder.path());
    let script = format!(
        "'{}' check && cd plugins && cargo build --release --target wasm32-unknown-unknown",
        env!("CARGO_BIN_EXE_silverd")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(folder.path()).env_remove("CARGO_TARGET_DIR");
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = wait_for_exit(&mut child, BUILD_TIMEOUT);
    assert!(status.is_some_and(|status| status.success()), "the plugins cannot be built: {status:?}");
}

/// The parts of the repository that pages name. The plugins are built in one folder for all pages and runs.
fn copy_repository(to: &Path) {
    let parts = ["pipeline.toml", "wit", "examples", "rust-toolchain.toml", "Cargo.toml", "README.md"];
    let paths = parts.iter().map(|part| root().join(part));
    run(Command::new("cp").arg("-a").args(paths).arg(to));
    std::fs::create_dir_all(to.join("data")).unwrap();
    run(Command::new("cp").arg("-a").arg(root().join("data/reference")).arg(to.join("data")));
    let plugins = to.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    for entry in std::fs::read_dir(root().join("plugins")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "target" {
            run(Command::new("cp").arg("-a").arg(entry.path()).arg(&plugins));
        }
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&target).unwrap();
    std::os::unix::fs::symlink(target, plugins.join("target")).unwrap();
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends a signal to all processes that a script has started.
fn signal_group(child: &Child, signal: i32) {
    // SAFETY: sends a signal to the group that the child was started as. If no process is left in it, nothing happens.
    unsafe { libc::killpg(child.id() as libc::pid_t, signal) };
}
