//! The folder of the tables: pipeline.toml with its edits, and the plugins with their versions.

use std::path::{Path, PathBuf};

use anyhow::Context;
use silverd::plugin::build;

use super::kafka::Kafka;

/// Versions of each plugin. All of them are kept in the folder of `[state]`, which keeps 200.
pub(super) const VERSIONS: usize = 8;
pub(super) const BROKEN_EDITS: usize = 4;

/// The table of the hostile plugin.
const HOSTILE: &str = "hits";
const SHOP: [&str; 3] = ["page_view", "add_to_cart", "order_placed"];

/// The folder.
pub(super) struct Project {
    pub(super) folder: PathBuf,
    plugins: Vec<Plugin>,
    pipeline: String,
}

struct Plugin {
    table: &'static str,
    wasm: Vec<u8>,
}

/// Which protocol the daemons use to share the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupProtocol {
    Classic,
    Consumer,
}

impl GroupProtocol {
    pub(super) fn of_seed(seed: u64) -> Self {
        if seed.is_multiple_of(2) { Self::Classic } else { Self::Consumer }
    }

    /// After this time, Kafka gives the partitions of a daemon that was killed to another one.
    pub(super) fn session_seconds(self) -> u64 {
        match self {
            Self::Classic => 6,
            // Kafka's default; the client cannot change it.
            Self::Consumer => 45,
        }
    }

    fn section(self) -> String {
        match self {
            Self::Classic => format!(
                "[source.kafka]\n\"group.protocol\" = \"classic\"\n\"session.timeout.ms\" = {}\n",
                self.session_seconds() * 1000
            ),
            Self::Consumer => "[source.kafka]\n\"group.protocol\" = \"consumer\"\n".to_owned(),
        }
    }
}

impl Project {
    /// Builds the plugins of the checkout, and writes the folder. Without the hostile plugin, if that cannot be built.
    pub(super) fn create(
        folder: &Path,
        repository: &Path,
        kafka: &Kafka,
        topic: &str,
        protocol: GroupProtocol,
    ) -> anyhow::Result<Self> {
        let products = repository.join("data/reference/products.csv");
        std::fs::copy(&products, folder.join("products.csv"))
            .with_context(|| format!("copy {} (--repository names the checkout)", products.display()))?;
        let mut plugins = Vec::new();
        for table in SHOP {
            plugins.push(Plugin { table, wasm: built(&repository.join("plugins").join(table))? });
        }
        match built(&repository.join("plugins/fixtures/hostile")) {
            Ok(wasm) => plugins.push(Plugin { table: HOSTILE, wasm }),
            Err(failure) => eprintln!("without a hostile plugin: {failure:#}"),
        }
        let tables: String = plugins.iter().map(|plugin| section_of(plugin.table)).collect();
        let source = format!("[source]\nbrokers = \"{}\"\ntopic = \"{topic}\"\ngroup = \"{topic}\"\n", kafka.address());
        let pipeline = [source, protocol.section(), FIXED.to_owned(), tables].join("\n");
        let project = Self { folder: folder.to_path_buf(), plugins, pipeline };
        for plugin in 0..project.plugins() {
            project.install(plugin, 0)?;
        }
        project.save(&project.pipeline)?;
        Ok(project)
    }

    pub(super) fn plugins(&self) -> usize {
        self.plugins.len()
    }

    pub(super) fn bronze(&self) -> PathBuf {
        self.folder.join("data/bronze/events")
    }

    /// Gives a plugin another version, which makes the same rows: in one step, as cargo does.
    pub(super) fn install(&self, plugin: usize, version: usize) -> anyhow::Result<()> {
        let Plugin { table, wasm } = &self.plugins[plugin];
        let mut wasm = wasm.clone();
        wasm.extend(custom_section(&format!("version {version}")));
        self.replace(&format!("{table}.wasm"), &wasm)
    }

    /// A valid edit.
    pub(super) fn edit(&self, number: u32) -> anyhow::Result<()> {
        let edited = match number % 3 {
            0 => self.pipeline.replace(INTERVAL, &format!("interval = \"{}ms\"", 100 + number % 900)),
            1 => self.pipeline.replace(ROWS_MAX, &format!("rows_max = {}", 500 + number)),
            _ => format!("# Edit {number}.\n{}", self.pipeline),
        };
        self.save(&edited)
    }

    /// An edit that must be refused.
    pub(super) fn break_pipeline(&self, kind: usize) -> anyhow::Result<()> {
        let pipeline = &self.pipeline;
        let broken = match kind {
            0 => format!("{pipeline}\n[silver.page_view"),
            1 => pipeline.replace(INTERVAL, "intervall = \"300ms\""),
            2 => format!("{pipeline}\n[gold.views]\nsql = \"SELEKT\"\n"),
            // In the middle of a text.
            _ => pipeline[..pipeline.find(CARTS).map_or(0, |at| at + CARTS.len() + 12)].to_owned(),
        };
        self.save(&broken)
    }

    pub(super) fn mend_pipeline(&self) -> anyhow::Result<()> {
        self.save(&self.pipeline)
    }

    fn save(&self, pipeline: &str) -> anyhow::Result<()> {
        self.replace("pipeline.toml", pipeline.as_bytes())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (file, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let replaced = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &file));
        replaced.with_context(|| format!("replace {}", file.display()))
    }
}

const INTERVAL: &str = "interval = \"300ms\"";
const ROWS_MAX: &str = "rows_max = 5000";
const CARTS: &str = "[silver.carts]";

/// The state is outside of the data, so that no plugin version is lost while the disk is full: `verify --deep` needs them.
const FIXED: &str = r#"[commit]
interval = "300ms"
rows_max = 5000

[state]
path = "state"

[http]
listen = "off"

[bronze]
path = "data/bronze/events"

[quarantine]
path = "data/quarantine"
unrouted = "quarantine"

[late]
path = "data/silver/late"

[silver.carts]
path = "data/silver/carts"
match = { field = "event_type", equals = "add_to_cart" }
event_time = "ts"
input = { event_id = "string", ts = "timestamp", sku = "string", qty = "s64", price = "money" }
sql = "SELECT event_id, ts, sku, qty, price * qty AS line_total FROM event"
"#;

fn section_of(table: &str) -> String {
    let (event_type, keys) = match table {
        HOSTILE => ("hit", "settings = { fault = \"abort\", every = 50 }\n"),
        "page_view" => (table, SHOP_KEYS),
        _ => (table, SHOP_KEYS_WITH_PRODUCTS),
    };
    format!(
        "[silver.{table}]\nplugin = \"{table}.wasm\"\npath = \"data/silver/{table}\"\n\
         match = {{ field = \"event_type\", equals = \"{event_type}\" }}\nevent_time = \"ts\"\n{keys}\n"
    )
}

const SHOP_KEYS: &str = "dedup = { by = [\"event_id\"], within = \"10m\" }\nlate_after = \"2m\"\n";
const SHOP_KEYS_WITH_PRODUCTS: &str = "dedup = { by = [\"event_id\"], within = \"10m\" }\nlate_after = \"2m\"\n\
                                       reference = { products = \"products.csv\" }\n";

fn built(plugin: &Path) -> anyhow::Result<Vec<u8>> {
    let wasm = build::wasm_of(plugin).with_context(|| format!("build {}", plugin.display()))?;
    std::fs::read(&wasm).with_context(|| format!("read {}", wasm.display()))
}

/// A custom section of WebAssembly: its content has no meaning, and changes the digest of the file.
/// <https://webassembly.github.io/spec/core/binary/modules.html#custom-section>
fn custom_section(content: &str) -> Vec<u8> {
    const NAME: &str = "silverd-chaos";
    let size = 1 + NAME.len() + content.len();
    // A size below 128 is one byte in LEB128.
    let mut section = vec![0, (size & 0x7f) as u8, NAME.len() as u8];
    section.extend(NAME.bytes().chain(content.bytes()));
    section
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use silverd_core::config;

    use super::*;

    /// A folder without real plugins.
    fn project(folder: &Path) -> Project {
        let plugins = SHOP.into_iter().chain([HOSTILE]).map(|table| Plugin { table, wasm: b"\0asm".to_vec() });
        let plugins: Vec<Plugin> = plugins.collect();
        let tables: String = plugins.iter().map(|plugin| section_of(plugin.table)).collect();
        let source = "[source]\nbrokers = \"b:1\"\ntopic = \"t\"\ngroup = \"t\"\n";
        let pipeline = format!("{source}\n{}\n{FIXED}\n{tables}", GroupProtocol::Classic.section());
        Project { folder: folder.to_path_buf(), plugins, pipeline }
    }

    #[test]
    fn valid_edits_are_valid_and_change_something() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        let read = || std::fs::read_to_string(folder.path().join("pipeline.toml")).unwrap();
        for number in 0..30 {
            project.edit(number).unwrap();
            assert_ne!(read(), project.pipeline, "edit {number}");
            assert!(config::check(&read(), &|_| None).is_ok(), "edit {number}:\n{}", read());
        }
        project.mend_pipeline().unwrap();
        assert!(config::check(&read(), &|_| None).is_ok(), "{}", read());
    }

    #[test]
    fn broken_edits_change_something() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        for kind in 0..BROKEN_EDITS {
            project.break_pipeline(kind).unwrap();
            let text = std::fs::read_to_string(folder.path().join("pipeline.toml")).unwrap();
            // Whether SQL is valid is found out by planning it.
            assert!(kind == 2 || config::check(&text, &|_| None).is_err(), "kind {kind}:\n{text}");
            assert_ne!(text, project.pipeline);
        }
    }

    #[test]
    fn versions_differ_and_end_with_a_whole_section() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        let read = |version| {
            project.install(0, version).unwrap();
            std::fs::read(folder.path().join("page_view.wasm")).unwrap()
        };
        let (one, two) = (read(0), read(1));
        assert_ne!(one, two);
        assert_eq!(one[4], 0, "a custom section");
        assert_eq!(usize::from(one[5]), one.len() - 6, "its size");
    }
}
