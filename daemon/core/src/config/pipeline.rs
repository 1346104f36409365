//! The checked pipeline: what the rest of silverd may rely on without looking again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, Range};

/// Everything that `pipeline.toml` says, with the defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    pub source: Source,
    pub bronze: Bronze,
    /// In the order of the file. May be empty: then only Bronze is written.
    pub silver: Vec<SilverTable>,
    pub quarantine: Quarantine,
    pub late: Late,
    pub state: State,
    pub commit: Commit,
    pub limits: Limits,
    pub reload: Reload,
    pub maintenance: Maintenance,
    /// In the order of the file.
    pub gold: Vec<Gold>,
    /// In the order of the file, which is that of the page.
    pub panels: Vec<Panel>,
    pub http: Http,
}

/// `[source]`: the topic that is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// A comma-separated list of `host:port`, as librdkafka takes it.
    pub brokers: String,
    pub topic: String,
    pub group: String,
    pub start: Start,
    pub expired: Expired,
    /// `[source.kafka]`: librdkafka properties that silverd does not set itself.
    pub kafka: BTreeMap<String, Secret>,
}

/// Where a partition begins that no table has an offset of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Earliest,
    Latest,
}

/// What to do when Kafka no longer holds the offset to resume from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expired {
    /// Events are lost, and a human shall decide.
    #[default]
    Stop,
    /// Go on with the oldest event that is left.
    Skip,
}

/// `[bronze]`: the raw table.
#[derive(Debug, Clone, PartialEq)]
pub struct Bronze {
    pub path: Located<String>,
    pub compression: Compression,
}

/// `[silver.<name>]`: one table, and the plugin that makes its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct SilverTable {
    pub name: TableName,
    pub plugin: Located<String>,
    pub path: Located<String>,
    pub matches: Match,
    /// The timestamp field of the row from which the partition column `event_date` is derived.
    pub event_date: Located<String>,
    /// Handed to the plugin when it is loaded.
    pub settings: BTreeMap<String, String>,
    /// Files handed to the plugin when it is loaded, by the name that the plugin knows them by.
    pub reference: BTreeMap<String, Located<String>>,
    pub compression: Compression,
    pub dedup: Option<Dedup>,
    /// Events older than this when they arrive are listed in the table of late events, too.
    pub late_after_ms: Option<u64>,
    /// Instead of that of `[reload]`.
    pub max_new_rejects: Option<f64>,
}

/// `dedup`: a row whose `by` columns the table has already, within so much event time of it, is a duplicate.
#[derive(Debug, Clone, PartialEq)]
pub struct Dedup {
    /// The columns that together name an event.
    pub by: Located<Vec<String>>,
    pub within_ms: u64,
    /// For the keys that are held in memory.
    pub memory_bytes_max: usize,
    pub when_full: WhenFull,
}

impl Dedup {
    pub const MEMORY_BYTES_MAX: usize = 64 << 20;
}

/// What becomes of the keys that memory has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// They are read from the table again when an event needs them: slower, and exact.
    #[default]
    Reload,
    /// They are forgotten: an event that comes so late may be in the table twice.
    Forget,
}

/// The events that a table takes: those whose top-level `field` is the string `equals`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub field: String,
    pub equals: String,
}

/// `[quarantine]`: the table of rejected events.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantine {
    pub path: Located<String>,
}

/// `[late]`: the table that lists late events.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    pub path: Located<String>,
}

/// `[state]`: the daemon's own folder. What is in it can be made anew, but for the plugins of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub path: Located<String>,
}

/// `[commit]`: a table commits when the first of these is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub interval_ms: u64,
    pub rows_max: usize,
    pub bytes_max: usize,
}

impl Default for Commit {
    fn default() -> Self {
        Commit { interval_ms: 1_000, rows_max: 100_000, bytes_max: 20 << 20 }
    }
}

/// `[limits]`: what one plugin may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes_max: usize,
    pub transform_ms_max: u64,
    pub output_bytes_max: usize,
    /// Events handed to a plugin in one call.
    pub batch_rows_max: usize,
    pub batch_bytes_max: usize,
    /// Lines of its own that a plugin may put into the log.
    pub log_lines_per_second: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes_max: 256 << 20,
            transform_ms_max: 10_000,
            output_bytes_max: 256 << 20,
            batch_rows_max: 4_096,
            batch_bytes_max: 4 << 20,
            log_lines_per_second: 20,
        }
    }
}

/// `[reload]`: what a new version of a plugin must show before it takes the place of the old one.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// So many of the table's newest events are given to both versions. 0: none.
    pub shadow_events: usize,
    /// The share of them that the new version may reject while the old one does not.
    pub max_new_rejects: f64,
}

impl Default for Reload {
    fn default() -> Self {
        Reload { shadow_events: 1_000, max_new_rejects: 0.1 }
    }
}

/// `[maintenance]`: how the files and logs of all tables are kept small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    pub enabled: bool,
    /// Small files are merged into files of up to this size.
    pub file_bytes_max: u64,
    /// Files that no version since so long has are removed: within it, older versions can be read.
    pub retention_ms: u64,
    /// Entries of the log that are older are removed, where a checkpoint holds what they said. No less than the above.
    pub log_retention_ms: u64,
    /// With less room than this on the disk, no files are merged.
    pub free_bytes_min: u64,
}

impl Default for Maintenance {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        Maintenance {
            enabled: true,
            file_bytes_max: 128 << 20,
            retention_ms: DAY_MS,
            log_retention_ms: 7 * DAY_MS,
            free_bytes_min: 1 << 30,
        }
    }
}

/// `[gold.<name>]`: a table that SQL makes of the others, a day at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Gold {
    pub name: TableName,
    /// Gives a column `event_date`; the rows of a day are made of the sources' rows of that day, and of `days_before`.
    pub sql: Located<String>,
    pub path: Located<String>,
    pub refresh_ms: u64,
    /// How many days before its own a day's rows depend on.
    pub days_before: u32,
}

impl Gold {
    pub(super) const REFRESH_MS: u64 = 10_000;
}

/// `[panel.<name>]`: a question that the page shows the answer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    pub name: String,
    pub title: String,
    pub sql: Located<String>,
    pub chart: Chart,
    pub refresh_ms: u64,
    /// Stands behind the numbers.
    pub unit: Option<String>,
    /// Columns of the page, of four; the chart's own if there is none.
    pub width: Option<usize>,
}

impl Panel {
    pub(super) const REFRESH_MS: u64 = 5_000;
}

/// How a panel shows its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chart {
    /// As the columns suggest.
    #[default]
    Auto,
    Number,
    Line,
    Bar,
    Funnel,
    Table,
    Ticker,
}

/// `[http]`: where the page and the API are served.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// There if the address is not a loopback one.
    pub token: Option<Secret>,
}

impl Http {
    pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
}

/// How Parquet pages are compressed: `"zstd"`, `"zstd(3)"`, `"snappy"`, `"lz4"` or `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// With the level, 1 to 22.
    Zstd(i32),
    Snappy,
    Lz4,
    Uncompressed,
}

impl Default for Compression {
    fn default() -> Self {
        Compression::Zstd(1)
    }
}

/// The name of a Silver table: `[a-z][a-z0-9_]{0,62}`, and none of silverd's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(String);

impl TableName {
    pub(super) const RESERVED: [&str; 4] = ["bronze", "quarantine", "late", "gold"];

    /// `None` if the text breaks the rule above.
    pub fn new(name: &str) -> Option<Self> {
        (Self::is_name(name) && !Self::RESERVED.contains(&name)).then(|| TableName(name.to_owned()))
    }

    /// Whether the letters are those of a name, reserved or not.
    pub(super) fn is_name(name: &str) -> bool {
        let first = name.starts_with(|c: char| c.is_ascii_lowercase());
        let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        first && rest && name.len() <= 63
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Deref for TableName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TableName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A value that may be a password: it shows itself only to who asks for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Secret(value)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

/// A value and the bytes of the text that it was read from, for mistakes that are found later.
///
/// Two are equal if their values are: a comment added above a section does not change the pipeline.
/// The span of a default is that of its section's header, or empty where there is no section.
#[derive(Clone)]
pub struct Located<T> {
    pub value: T,
    pub span: Range<usize>,
}

impl<T> Located<T> {
    pub fn new(value: T, span: Range<usize>) -> Self {
        Located { value, span }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

impl<T: fmt::Debug> fmt::Debug for Located<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} @ {:?}", self.value, self.span)
    }
}
