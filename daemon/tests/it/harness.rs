//! A broker, a folder with a pipeline.toml, and the real binary in it.
//!
//! The broker is the real Kafka that `SILVERD_TEST_BROKERS` names, or the embedded one, kept by the test process.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use silverd::ingest::EmbeddedBroker;

pub const PARTITIONS: i32 = 4;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub enum Broker {
    Kafka(String),
    Embedded(EmbeddedBroker),
}

impl Broker {
    pub fn with_topic(topic: &str) -> Self {
        match std::env::var("SILVERD_TEST_BROKERS") {
            Ok(brokers) => Broker::Kafka(brokers),
            Err(_) => {
                eprintln!("SILVERD_TEST_BROKERS is not set: running on the embedded broker");
                Broker::Embedded(EmbeddedBroker::start(topic, PARTITIONS).unwrap())
            }
        }
    }

    pub fn address(&self) -> String {
        match self {
            Broker::Kafka(brokers) => brokers.clone(),
            Broker::Embedded(broker) => broker.bootstrap(),
        }
    }

    pub fn is_kafka(&self) -> bool {
        matches!(self, Broker::Kafka(_))
    }
}

/// A folder of its own, with a pipeline.toml whose plugins are the repository's.
pub struct Project {
    pub folder: tempfile::TempDir,
    pub topic: String,
    pub broker: Broker,
    /// What the tables are asked beside their rows.
    pub asked: Asked,
}

/// Deduplication by event_id within so many seconds, and a list of events that are so many seconds late.
#[derive(Clone, Copy, Default)]
pub struct Asked {
    pub dedup_within_s: Option<i64>,
    pub late_after_s: Option<i64>,
}

impl Project {
    /// The shop's tables. Their plugins are built once for all tests.
    pub fn new(name: &str, commit: &str) -> Self {
        Self::asking(name, commit, Asked::default())
    }

    /// The shop's tables, which are asked for more.
    pub fn asking(name: &str, commit: &str, asked: Asked) -> Self {
        static BUILT: OnceLock<()> = OnceLock::new();
        let project = Self { asked, ..Self::with(name, &format!("[commit]\n{commit}\n\n{}", shop(asked))) };
        BUILT.get_or_init(|| project.build_plugins());
        project
    }

    /// A pipeline of these sections, behind `[source]`.
    pub fn with(name: &str, sections: &str) -> Self {
        let topic = format!("{name}-{}", unique());
        let broker = Broker::with_topic(&topic);
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[source]\nbrokers = \"{}\"\ntopic = \"{topic}\"\ngroup = \"{topic}\"\n\n{sections}\n[http]\nlisten = \"off\"\n",
            broker.address()
        );
        std::fs::write(folder.path().join("pipeline.toml"), text).unwrap();
        Self { folder, topic, broker, asked: Asked::default() }
    }

    /// Builds the plugins through the daemon itself.
    pub fn build_plugins(&self) {
        let mut child = self.command(&["check"]).stdout(Stdio::null()).spawn().unwrap();
        let status = wait(&mut child, Duration::from_secs(900));
        assert!(status.is_some_and(|status| status.success()), "silverd check builds and loads the plugins");
    }

    pub fn path(&self, table: &str) -> PathBuf {
        let path = match table {
            "bronze" => "data/bronze/events".to_owned(),
            "quarantine" => "data/quarantine".to_owned(),
            "late" => "data/silver/late".to_owned(),
            silver => format!("data/silver/{silver}"),
        };
        self.folder.path().join(path)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silverd"));
        command.current_dir(self.folder.path()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, which must be a good one.
    #[track_caller]
    pub fn silverd(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "silverd {args:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// Runs a command to its end, for two minutes at most.
    pub fn output(&self, args: &[&str]) -> Output {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = std::thread::spawn(move || read(&mut out));
        let err = std::thread::spawn(move || read(&mut err));
        let status = wait(&mut child, Duration::from_secs(120));
        let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
        let status =
            status.unwrap_or_else(|| panic!("silverd {args:?} did not end:\n{}", String::from_utf8_lossy(&stderr)));
        Output { status, stdout, stderr }
    }

    /// Sends events, all at once.
    pub fn generate(&self, args: &[&str]) {
        let address = self.broker.address();
        let fixed = ["generate", "--bootstrap", &address, "--topic", &self.topic, "--eps", "0"];
        self.silverd(&[&fixed, args].concat());
    }
}

fn read(pipe: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Waits for a process; one that takes too long is killed.
pub fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Enough to tell the topics of one broker apart.
fn unique() -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{:x}-{}", time.as_nanos(), std::process::id())
}

/// The shop's Silver tables.
fn shop(asked: Asked) -> String {
    let root = root().display();
    let dedup = |within| format!("dedup = {{ by = [\"event_id\"], within = \"{within}s\" }}\n");
    let late = |after| format!("late_after = \"{after}s\"\n");
    let asked = asked.dedup_within_s.map(dedup).unwrap_or_default() + &asked.late_after_s.map(late).unwrap_or_default();
    let table = |name: &str, reference: &str| {
        format!(
            "[silver.{name}]\nplugin = \"{root}/plugins/{name}\"\npath = \"data/silver/{name}\"\n\
             match = {{ field = \"event_type\", equals = \"{name}\" }}\nevent_date = \"ts\"\n{asked}{reference}\n"
        )
    };
    let products = format!("reference = {{ products = \"{root}/data/reference/products.csv\" }}\n");
    [table("page_view", ""), table("add_to_cart", &products), table("order_placed", &products)].concat()
}
