//! A folder with a pipeline.toml, and the commands that run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use silverd::plugin::build;
use silverd_core::config::{self, Transform};

use super::broker::{Broker, PARTITIONS};
use super::process::output_of;
use super::root;
use super::tables::rows;

/// The time that a command may take: it may build plugins, and the machine may be slow.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// The first build also compiles what the plugins depend on.
pub const BUILD_TIMEOUT: Duration = Duration::from_secs(900);

/// A temporary folder with a pipeline.toml that uses the repository's plugins.
pub struct Project {
    pub folder: tempfile::TempDir,
    pub topic: String,
    pub broker: Broker,
    pub options: TableOptions,
}

/// Options of all Silver tables.
#[derive(Clone, Copy, Default)]
pub struct TableOptions {
    /// Deduplication by event_id within this many seconds.
    pub dedup_within_s: Option<i64>,
    /// Events this many seconds late are also written to the late table.
    pub late_after_s: Option<i64>,
}

impl Project {
    /// The shop's tables, with these keys in `[commit]`. The plugins are built once for all tests.
    pub fn new(name: &str, commit: &str) -> Self {
        Self::with_options(name, commit, TableOptions::default())
    }

    pub fn with_options(name: &str, commit: &str, options: TableOptions) -> Self {
        static BUILT: OnceLock<()> = OnceLock::new();
        let sections = format!("[commit]\n{commit}\n\n{}", shop(options));
        let project = Self { options, ..Self::with_sections(name, &sections) };
        BUILT.get_or_init(|| project.build_plugins());
        project
    }

    /// A pipeline with these sections in addition to `[source]` and `[http]`.
    pub fn with_sections(name: &str, sections: &str) -> Self {
        let topic = format!("{name}-{}", uuid::Uuid::new_v4());
        Self::with_broker(Broker::with_topic(&topic), topic, sections)
    }

    /// The same, and the topic exists.
    pub fn with_topic(name: &str, sections: &str) -> Self {
        let project = Self::with_sections(name, sections);
        project.broker.create_topic(&project.topic, PARTITIONS);
        project
    }

    /// A pipeline that reads a topic of this broker.
    pub fn with_broker(broker: Broker, topic: String, sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[source]\nbrokers = \"{}\"\ntopic = \"{topic}\"\ngroup = \"{topic}\"\n\n{sections}\n[http]\nlisten = \"off\"\n",
            broker.address()
        );
        let project = Self { folder, topic, broker, options: TableOptions::default() };
        project.write_pipeline(&text);
        project
    }

    /// The shop's tables with several commits each, and rejects.
    pub fn with_commits(name: &str) -> Self {
        let project = Self::new(name, "interval = \"200ms\"\nrows_max = 1000");
        for seed in ["1", "2", "3"] {
            project.generate(&["--count", "1500", "--seed", seed]);
            project.send_odd_events();
            project.silverd(&["run", "--drain"]);
        }
        project
    }

    /// Builds the plugins as a daemon does at its start.
    pub fn build_plugins(&self) {
        let text = self.pipeline();
        let pipeline = config::check(&text, &|_| None).unwrap_or_else(|_| panic!("{text}"));
        for table in &pipeline.silver {
            if let Transform::Plugin(plugin) = &table.transform {
                build::wasm_of(&self.folder.path().join(&**plugin)).unwrap();
            }
        }
    }

    /// The path of pipeline.toml.
    pub fn pipeline_file(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    /// The text of pipeline.toml.
    pub fn pipeline(&self) -> String {
        std::fs::read_to_string(self.pipeline_file()).unwrap()
    }

    pub fn write_pipeline(&self, text: &str) {
        std::fs::write(self.pipeline_file(), text).unwrap();
    }

    #[track_caller]
    pub fn replace_in_pipeline(&self, from: &str, to: &str) {
        let text = self.pipeline();
        assert!(text.contains(from), "pipeline.toml does not contain {from}:\n{text}");
        self.write_pipeline(&text.replace(from, to));
    }

    pub fn append_to_pipeline(&self, sections: &str) {
        self.write_pipeline(&format!("{}\n{sections}\n", self.pipeline()));
    }

    /// Lets the table of one of the repository's plugins use another file.
    #[track_caller]
    pub fn use_plugin_file(&self, plugin: &str, file: &str) {
        self.replace_in_pipeline(&format!("\"{}/plugins/{plugin}\"", root().display()), &format!("\"{file}\""));
    }

    /// What `plugin history` prints as JSON: which version wrote what, oldest first.
    pub fn plugin_history(&self, table: &str) -> Vec<Value> {
        serde_json::from_str(&self.silverd(&["plugin", "history", table, "--json"])).unwrap()
    }

    /// The folder of a table.
    pub fn path(&self, table: &str) -> PathBuf {
        self.folder.path().join(table_path(table))
    }

    /// Whether a table was created.
    pub fn has_table(&self, table: &str) -> bool {
        self.path(table).join("_delta_log").is_dir()
    }

    /// How many records Bronze has.
    pub fn bronze_rows(&self) -> usize {
        if self.has_table("bronze") { rows(&self.path("bronze")).len() } else { 0 }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silverd"));
        command.current_dir(self.folder.path()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed, and returns its standard output.
    #[track_caller]
    pub fn silverd(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "silverd {args:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// Runs a command that must end with this exit code, and returns its standard error.
    #[track_caller]
    pub fn silverd_fails(&self, args: &[&str], code: i32) -> String {
        let output = self.output(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "silverd {args:?}\n{errors}");
        errors
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn output(&self, args: &[&str]) -> Output {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = output_of(child, COMMAND_TIMEOUT);
        output.unwrap_or_else(|stderr| panic!("silverd {args:?} did not end:\n{stderr}"))
    }

    /// The rows of a query, as JSON objects.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Value> {
        serde_json::from_str(&self.silverd(&["query", "--json", sql])).unwrap()
    }

    /// Sends generated events, all at once.
    #[track_caller]
    pub fn generate(&self, args: &[&str]) {
        let address = self.broker.address();
        let fixed = ["generate", "--bootstrap", &address, "--topic", &self.topic, "--eps", "0"];
        self.silverd(&[&fixed, args].concat());
    }

    /// Sends the lines of a file.
    #[track_caller]
    pub fn send_file(&self, file: &str) {
        self.generate(&["--file", file]);
    }

    /// Sends these lines.
    #[track_caller]
    pub fn send_lines(&self, lines: impl IntoIterator<Item = String>) {
        let file = self.folder.path().join("events.jsonl");
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        std::fs::write(&file, text).unwrap();
        self.send_file(file.to_str().unwrap());
    }

    /// A producer for the project's broker.
    pub fn producer(&self) -> BaseProducer {
        ClientConfig::new().set("bootstrap.servers", self.broker.address()).create().unwrap()
    }

    /// Sends records with these values.
    pub fn send_values(&self, values: &[Vec<u8>]) {
        let producer = self.producer();
        for value in values {
            producer.send(BaseRecord::<(), _>::to(&self.topic).payload(value)).map_err(|(failure, _)| failure).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Sends records that the generator never sends: invalid, cut off, routed to no table, empty, with headers and odd
    /// bytes. Three of the nine are quarantined.
    pub fn send_odd_events(&self) {
        let producer = self.producer();
        let values: [Option<&[u8]>; 9] = [
            Some(b"not json at all"),
            Some(br#"{"event_type": "page_view", "event_id": "cut o"#),
            Some(br#"{"event_type": "add_to_cart", "event_id": "a", "user_id": "u", "ts": "never", "sku": "x"}"#),
            Some(br#"{"event_type": "order_placed", "event_id": "a"}"#),
            Some(br#"{"event_type": "unknown", "x": 1}"#),
            Some(b""),
            None,
            Some(&[0xff, 0xfe, 0x00, 0x80]),
            Some("{\"event_type\": \"page_view\", \"event_id\": \"é😀\", \"user_id\": \"ü\", \"ts\": \"2025-01-01T00:00:00Z\", \"url\": \"/\"}".as_bytes()),
        ];
        for (at, value) in values.into_iter().enumerate() {
            let headers = OwnedHeaders::new()
                .insert(Header { key: "trace", value: Some(b"\x00\xff") })
                .insert(Header { key: "none", value: None::<&[u8]> });
            let key = format!("odd-{at}");
            let mut record = BaseRecord::to(&self.topic).key(&key).headers(headers);
            if let Some(value) = value {
                record = record.payload(value);
            }
            producer.send(record).map_err(|(failure, _)| failure).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }
}

/// The folder of a table within a project.
pub(super) fn table_path(table: &str) -> PathBuf {
    match table {
        "bronze" => Path::new("data/bronze/events").to_owned(),
        "quarantine" => Path::new("data/quarantine").to_owned(),
        silver_or_late => Path::new("data/silver").join(silver_or_late),
    }
}

/// The shop's Silver tables.
fn shop(options: TableOptions) -> String {
    let root = root().display();
    let dedup = |within| format!("dedup = {{ by = [\"event_id\"], within = \"{within}s\" }}\n");
    let late = |after| format!("late_after = \"{after}s\"\n");
    let options =
        options.dedup_within_s.map(dedup).unwrap_or_default() + &options.late_after_s.map(late).unwrap_or_default();
    let table = |name: &str, reference: &str| {
        format!(
            "[silver.{name}]\nplugin = \"{root}/plugins/{name}\"\npath = \"data/silver/{name}\"\n\
             match = {{ field = \"event_type\", equals = \"{name}\" }}\nevent_time = \"ts\"\n{options}{reference}\n"
        )
    };
    let products = format!("reference = {{ products = \"{root}/data/reference/products.csv\" }}\n");
    [table("page_view", ""), table("add_to_cart", &products), table("order_placed", &products)].concat()
}
