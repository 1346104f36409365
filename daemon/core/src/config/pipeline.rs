//! The checked pipeline: the rest of silverd relies on it without checking again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, Range};

use super::alert::{Alert, BuiltInAlerts};
use super::matching::Match;
use super::notify::NotifyReceiver;
use super::secret::SecretText;
use super::topics::Topics;
use crate::input::InputWit;
use crate::zone::Zone;

/// The contents of `pipeline.toml`, with the defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The zone whose days are those of Silver and Gold, unless a table has one of its own.
    pub time_zone: Zone,
    pub source: Source,
    pub bronze: Bronze,
    /// In the order of the file. If it is empty, only Bronze is written.
    pub silver: Vec<SilverTable>,
    pub quarantine: Quarantine,
    pub late: Late,
    pub days: Days,
    pub state: State,
    pub commit: Commit,
    pub limits: Limits,
    pub sql_limits: SqlLimits,
    pub reload: Reload,
    pub maintenance: Maintenance,
    /// In the order of the file.
    pub gold: Vec<Gold>,
    /// In the order of the file, which is that of the dashboard.
    pub panels: Vec<Panel>,
    /// In the order of the file.
    pub notify: Vec<NotifyReceiver>,
    pub built_in_alerts: BuiltInAlerts,
    /// In the order of the file.
    pub alerts: Vec<Alert>,
    pub http: Http,
}

/// `[source]`: the topics that are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// A comma-separated list of `host:port`, as librdkafka takes it.
    pub brokers: String,
    pub topics: Topics,
    pub group: String,
    pub start: Start,
    pub on_data_loss: OnDataLoss,
    /// `[source.kafka]`: librdkafka properties that silverd does not set itself.
    pub kafka: BTreeMap<String, Secret>,
}

/// Where silverd starts a partition that Bronze has no offset of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Earliest,
    Latest,
}

/// What to do if Kafka has deleted the offset to resume from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDataLoss {
    /// Stop reading the partition until a person decides.
    #[default]
    Fail,
    /// Resume at the oldest record that is left.
    Skip,
}

/// `[bronze]`: the raw table.
#[derive(Debug, Clone, PartialEq)]
pub struct Bronze {
    pub path: Located<String>,
    pub compression: Compression,
}

/// `[silver.<name>]`: one table, and what transforms its events into rows.
#[derive(Debug, Clone, PartialEq)]
pub struct SilverTable {
    pub name: TableName,
    pub transform: Transform,
    pub path: Located<String>,
    pub matches: Match,
    /// Whether it takes records without a value, too.
    pub tombstones: bool,
    /// The timestamp column with the event time of a row. Its day in `time_zone` is the partition column `event_date`.
    pub event_time: Located<String>,
    pub time_zone: Zone,
    /// Passed to the plugin when it is loaded.
    pub settings: BTreeMap<String, String>,
    /// Files that are passed to the plugin when it is loaded, by the name that the plugin has for them.
    pub reference: BTreeMap<String, Located<String>>,
    pub compression: Compression,
    pub dedup: Option<Dedup>,
    /// Events that are older than this on arrival are also listed in the table of late events.
    pub late_after_ms: Option<u64>,
    /// Overrides that of `[reload]`.
    pub max_new_rejects: Option<f64>,
}

/// What transforms the events of a Silver table into rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Transform {
    /// A plugin: the folder of its sources, or its file.
    Plugin(Located<String>),
    Sql(SqlTransform),
}

impl Transform {
    /// The bytes of the text that name it.
    pub fn span(&self) -> &Range<usize> {
        match self {
            Transform::Plugin(plugin) => &plugin.span,
            Transform::Sql(SqlTransform { sql, .. }) => &sql.span,
        }
    }
}

/// `sql` and `input`: a query over the one row that an event is.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlTransform {
    pub sql: Located<String>,
    pub input: Located<SqlInput>,
}

/// The columns of the table `event` in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlInput {
    /// The record `input`.
    Fields(InputWit),
    /// The path of a WIT file with that record.
    File(String),
}

/// `dedup`: an event is a duplicate if the table already has a row with the same `by` columns and an event time at most
/// `within_ms` apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Dedup {
    /// The columns that together identify an event.
    pub by: Located<Vec<String>>,
    pub within_ms: u64,
    /// Memory for the keys.
    pub memory_bytes_max: usize,
    pub when_full: WhenFull,
}

impl Dedup {
    pub const MEMORY_BYTES_MAX: usize = 64 << 20;
}

/// What to do with the keys that do not fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Read them from the table again when an event needs them: slower, and exact.
    #[default]
    Reload,
    /// Forget them: an event that arrives so late can be in the table twice.
    Forget,
}

/// `[quarantine]`: the table of rejected events.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantine {
    pub path: Located<String>,
    pub unrouted: Unrouted,
}

/// What becomes of events that no Silver table takes. Bronze has them in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unrouted {
    /// They are counted, by reason.
    #[default]
    Count,
    /// They are also in the quarantine.
    Quarantine,
}

/// `[late]`: the table that lists late events.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    pub path: Located<String>,
}

/// `[days]`: when the figures of a day are final.
#[derive(Debug, Clone, PartialEq)]
pub struct Days {
    /// The table `gold.day_status`.
    pub path: Located<String>,
    /// How long after a day's end its late events are waited for, in tables without `late_after`.
    pub final_after_ms: u64,
    /// Whether a day with unresolved rejects stays provisional.
    pub wait_for_quarantine: bool,
}

impl Days {
    pub(super) const FINAL_AFTER_MS: u64 = 60 * 60 * 1_000;
}

/// `[state]`: the folder that silverd keeps its state in. Its contents can be rebuilt, except for old plugin versions.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub path: Located<String>,
}

/// `[commit]`: silverd commits a chunk when it reaches the first of these limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub interval_ms: u64,
    pub rows_max: usize,
    pub bytes_max: usize,
    /// Whether a commit waits until it is on the disk.
    pub fsync: bool,
}

impl Default for Commit {
    fn default() -> Self {
        Commit { interval_ms: 1_000, rows_max: 100_000, bytes_max: 20 << 20, fsync: true }
    }
}

/// `[limits]`: what one plugin may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes_max: usize,
    pub transform_ms_max: u64,
    pub output_bytes_max: usize,
    /// Events that are passed to a plugin in one call.
    pub batch_rows_max: usize,
    pub batch_bytes_max: usize,
    /// Log lines of a plugin that silverd logs; it counts the rest.
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

/// `sql_…` of `[limits]`: what a query of the dashboard, a refresh of a Gold table or `silverd query` may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlLimits {
    pub memory_bytes_max: usize,
    pub seconds_max: u64,
}

impl Default for SqlLimits {
    fn default() -> Self {
        SqlLimits { memory_bytes_max: 512 << 20, seconds_max: 60 }
    }
}

/// `[reload]`: what a new version of a plugin must pass before it replaces the current one.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    pub mode: ReloadMode,
    /// The number of the table's newest events on which both versions are compared. 0: none.
    pub shadow_events: usize,
    /// The share of them that the new version may reject while the current one does not.
    pub max_new_rejects: f64,
}

impl Default for Reload {
    fn default() -> Self {
        Reload { mode: ReloadMode::Watch, shadow_events: 1_000, max_new_rejects: 0.1 }
    }
}

/// How a new version of a plugin reaches its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReloadMode {
    /// Each new build is taken up once it is validated.
    #[default]
    Watch,
    /// Only what `silverd plugin deploy` names.
    Manual,
}

/// `[maintenance]`: compaction, vacuum and log cleanup of all tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    pub enabled: bool,
    /// Small files are compacted into files of up to this size.
    pub file_bytes_max: u64,
    /// Files are removed this long after the last version that has them: within it, older versions can be read.
    pub retention_ms: u64,
    /// Older log entries are removed once a checkpoint includes them. At least `retention_ms`.
    pub log_retention_ms: u64,
    /// With less free space than this on the disk, nothing is compacted.
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

/// `[gold.<name>]`: a table that SQL computes from other tables, one day at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Gold {
    pub name: TableName,
    /// Its result has a column `event_date`. The rows of a day depend on the sources' rows of that day and of the
    /// `lookback_days` before it.
    pub sql: Located<String>,
    pub path: Located<String>,
    pub refresh_ms: u64,
    pub lookback_days: u32,
    /// That of its `event_date`, and of its SQL.
    pub time_zone: Zone,
}

impl Gold {
    pub(super) const REFRESH_MS: u64 = 10_000;
}

/// `[panel.<name>]`: a query whose result the dashboard shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    pub name: String,
    pub title: String,
    pub sql: Located<String>,
    pub chart: Chart,
    pub refresh_ms: u64,
    /// Text after the numbers.
    pub unit: Option<String>,
    /// In columns of the dashboard, of four. If there is none, that of the chart.
    pub width: Option<usize>,
}

impl Panel {
    pub(super) const REFRESH_MS: u64 = 5_000;
}

/// How a panel shows its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chart {
    /// Decided by the columns.
    #[default]
    Auto,
    Number,
    Line,
    Bar,
    Funnel,
    Table,
    Ticker,
}

/// `[http]`: where the dashboard and the API are served, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// At least one if the address is not a loopback address, or behind a trusted proxy.
    pub tokens: Vec<Token>,
    /// The path that a proxy serves silverd under, such as `/silverd`; empty for `/`.
    pub base_path: String,
    /// The proxies whose `X-Forwarded-…` headers silverd believes.
    pub trusted_proxies: Vec<Network>,
    pub tls: Option<Tls>,
}

/// Who may use the dashboard and the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The name in `[http.tokens.<name>]`, for the log.
    pub name: String,
    pub role: Role,
    pub text: SecretText,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything, changes nothing.
    View,
    Operate,
}

/// `[http.tls]`: PEM files.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// The path of the certificate, with the intermediate ones behind it.
    pub certificate: String,
    /// The path of its private key.
    pub key: String,
}

/// An address, or a range such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Http {
    pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
}

impl Token {
    /// The name of the token that `token` or `token_file` in `[http]` gives.
    pub const MAIN: &str = "token";
    /// Shorter tokens can be guessed.
    const CHARACTERS_MIN: usize = 16;

    /// What is wrong with the text of a token.
    pub fn fault(text: &str) -> Option<String> {
        match text.len() {
            Token::CHARACTERS_MIN.. if text.bytes().all(|byte| byte.is_ascii_graphic()) => None,
            Token::CHARACTERS_MIN.. => Some("expected letters, digits and punctuation, without spaces".to_owned()),
            _ => Some(format!("expected at least {} characters", Token::CHARACTERS_MIN)),
        }
    }
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::View => "view",
            Role::Operate => "operate",
        }
    }
}

impl Network {
    /// `None` for a prefix that is longer than the address.
    pub(super) fn new(address: IpAddr, prefix_bits: Option<u8>) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix_bits.unwrap_or(bits);
        (prefix_bits <= bits).then_some(Network { address, prefix_bits })
    }

    /// An IPv4 address that is written as an IPv6 one is that IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let ((this, width), (other, other_width)) = (bits(self.address), bits(address));
        let prefix = u32::from(self.prefix_bits).min(width);
        width == other_width && (prefix == 0 || (this ^ other) >> (128 - prefix) == 0)
    }
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

/// The name of a Silver table: `[a-z][a-z0-9_]{0,62}`, and not a reserved one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(String);

impl TableName {
    pub(super) const RESERVED: [&str; 5] = ["bronze", "quarantine", "unrouted", "late", "gold"];

    /// `None` if the text breaks the rule above.
    pub fn new(name: &str) -> Option<Self> {
        (Self::is_name(name) && !Self::RESERVED.contains(&name)).then(|| TableName(name.to_owned()))
    }

    /// Whether the text has the form of a name, reserved or not.
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

/// A value that may be a password: `Debug` does not show it.
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

/// A value and the bytes of the text that it was read from, for errors that are found later.
///
/// Two are equal if their values are: a comment added above a section does not change the pipeline.
/// The span of a default is that of its section's header, or empty if there is no section.
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
