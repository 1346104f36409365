//! A Delta table that silverd writes: where it stands, what of which log it holds, and which files.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use arrow::datatypes::{Schema, SchemaRef};
use chrono::NaiveDate;
use deltalake_core::kernel::{Action, DataType, Metadata, MetadataExt, PrimitiveType, Remove, StructField, StructType};
use deltalake_core::logstore::{LogStoreRef, ObjectStoreRef, get_actions};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use deltalake_core::{DeltaTable, DeltaTableBuilder};
use futures::TryStreamExt;
use object_store::path::Path;
use silverd_core::offsets::{LogPartition, Offsets};
use silverd_core::schema::COMMENT;
use silverd_core::schema::evolve::{Fit, evolve};
use tracing::info;
use url::Url;

use super::file::NewFile;
use super::lister::Lister;
use super::log::{newest_version, transactions};
use super::reader::parse_day;
use super::schema;

/// Where a table's log lies in its folder.
pub const LOG_FOLDER: &str = super::log::LOG;

/// Blocking threads that a runtime must have in which tables are opened. Each opening has one, and waits in it for others
/// that read files for it: were all of them openings, nothing would ever go on. Those of checkpoints count, too.
pub const OPENINGS_MAX: usize = 128;

/// The partition column of every table of silverd.
const EVENT_DATE: &str = "event_date";

/// What a table is to be, when it is made.
pub struct Spec {
    /// As messages name it.
    pub name: String,
    pub path: PathBuf,
    /// The columns of its files; `event_date` comes on top.
    pub schema: SchemaRef,
    pub doc: Option<String>,
}

/// A table at the version up to which its log has been read.
pub struct Table {
    pub name: String,
    pub(super) log: LogStoreRef,
    /// The last version whose actions are known. Commits go behind it.
    pub(super) version: u64,
    /// The version of each application id.
    pub(super) transactions: HashMap<String, i64>,
    /// Delta's own id of the table, from its metadata.
    pub id: String,
    pub(super) path: PathBuf,
    /// What the table is at that version; `None` before it was read.
    pub(super) form: Option<Form>,
    /// The columns of the rows that are to be written, as Delta has them and as they come.
    columns: Vec<StructField>,
    rows: SchemaRef,
    /// How these go into the table.
    fit: Fit,
    /// What the table becomes with the next rows, if it changes.
    pub(super) grown: Option<Form>,
}

/// A table's metadata, and the columns in it.
#[derive(Clone)]
pub(super) struct Form {
    pub(super) metadata: Metadata,
    schema: StructType,
}

/// A data file of a table.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub path: Path,
    /// The day of its events, as its folder's name has it.
    pub event_date: Option<String>,
    pub size: u64,
    pub modified_ms: i64,
    /// Delta's statistics, as JSON.
    pub stats: Option<String>,
}

impl DataFile {
    /// The day of the file's rows.
    pub fn date(&self) -> Option<NaiveDate> {
        parse_day(self.event_date.as_deref()?)
    }

    /// The same, in days since the epoch.
    pub fn day(&self) -> Option<i32> {
        i32::try_from(self.date()?.signed_duration_since(NaiveDate::default()).num_days()).ok()
    }
}

impl From<&NewFile> for DataFile {
    fn from(file: &NewFile) -> Self {
        Self {
            path: Path::from(file.path.as_str()),
            event_date: file.event_date.clone(),
            size: file.size,
            modified_ms: file.modified_ms,
            stats: Some(file.stats.clone()),
        }
    }
}

impl From<DataFile> for Remove {
    fn from(file: DataFile) -> Self {
        Remove {
            path: file.path.to_string(),
            data_change: true,
            deletion_timestamp: Some(crate::clock::now_ms()),
            extended_file_metadata: Some(true),
            partition_values: Some(HashMap::from([(EVENT_DATE.to_owned(), file.event_date)])),
            size: Some(file.size as i64),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
        }
    }
}

/// The URL of a table's folder, which is made if it does not exist.
pub fn url_of(path: &FilePath) -> anyhow::Result<Url> {
    std::fs::create_dir_all(path).with_context(|| {
        format!("create folder {} (is it writable for the user that runs silverd?)", path.display())
    })?;
    let path = path.canonicalize().with_context(|| format!("resolve {}", path.display()))?;
    Url::from_directory_path(&path).map_err(|()| anyhow!("{} is no path of a folder", path.display()))
}

/// The table in a folder, unread.
fn at(url: Url) -> anyhow::Result<DeltaTable> {
    let store = Arc::new(Lister::default());
    Ok(DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(store, url).build()?)
}

/// The log of the table in a folder; `None` where there is none. No folder is made.
pub fn log_at(path: &FilePath) -> anyhow::Result<Option<LogStoreRef>> {
    if !path.join("_delta_log").is_dir() {
        return Ok(None);
    }
    Ok(Some(at(url_of(path)?)?.log_store()))
}

/// Whether the log has any version. Delta's own answer lists a thousand entries first.
async fn is_there(log: &LogStoreRef) -> anyhow::Result<bool> {
    Ok(newest_version(log.object_store(None).as_ref()).await?.is_some())
}

impl Table {
    /// Opens a table, or makes it. A table that stands there must have the columns that are to be written.
    pub async fn open(spec: &Spec) -> anyhow::Result<Self> {
        Self::open_or_create(spec).await.with_context(|| format!("open table {} in {}", spec.name, spec.path.display()))
    }

    async fn open_or_create(spec: &Spec) -> anyhow::Result<Self> {
        let url = url_of(&spec.path)?;
        let mut table = at(url)?;
        let columns = with_event_date(schema::columns(&spec.schema)?);
        if is_there(&table.log_store()).await? {
            table.load().await?;
        } else {
            table = create(&table, spec, columns.clone()).await?;
        }
        let mut opened = Self {
            name: spec.name.clone(),
            log: table.log_store(),
            version: 0,
            transactions: HashMap::new(),
            id: String::new(),
            path: spec.path.clone(),
            columns,
            rows: spec.schema.clone(),
            fit: Fit { columns: Vec::new(), changes: Vec::new(), notices: Vec::new() },
            form: None,
            grown: None,
        };
        opened.read(&table).await?;
        opened.tell_fit();
        Ok(opened)
    }

    /// Opens a table as it stands, whatever its columns are, with its files; `None` where there is none.
    pub async fn adopt(name: &str, path: PathBuf) -> anyhow::Result<Option<(Self, Vec<DataFile>)>> {
        let Some(log) = log_at(&path)? else { return Ok(None) };
        if !is_there(&log).await? {
            return Ok(None);
        }
        let mut table = DeltaTable::new(log);
        let opened = async {
            table.load().await?;
            let snapshot = table.snapshot()?;
            let mut opened = Self {
                name: name.to_owned(),
                log: table.log_store(),
                version: 0,
                transactions: HashMap::new(),
                id: String::new(),
                path: path.clone(),
                columns: snapshot.schema().fields().cloned().collect(),
                rows: Arc::new(Schema::empty()),
                fit: Fit { columns: Vec::new(), changes: Vec::new(), notices: Vec::new() },
                form: None,
                grown: None,
            };
            opened.read(&table).await?;
            anyhow::Ok((opened, files_in(&table).await?))
        };
        opened.await.map(Some).with_context(|| format!("open table {name} in {}", path.display()))
    }

    /// Reads the log anew: after a fence or an error nothing that was known before counts.
    pub async fn reload(&mut self) -> anyhow::Result<()> {
        let table = self.snapshot().await?;
        self.read(&table).await
    }

    async fn read(&mut self, table: &DeltaTable) -> anyhow::Result<()> {
        let snapshot = table.snapshot()?;
        accepts(table)?;
        let form = Form { metadata: snapshot.metadata().clone(), schema: snapshot.schema().as_ref().clone() };
        (self.fit, self.grown) = form.grow(&self.columns)?;
        let version = table.version().ok_or_else(|| anyhow!("the table has no version"))?;
        self.id = form.metadata.id().to_string();
        self.form = Some(form);
        self.transactions = transactions(self.store().as_ref(), Some(version)).await?;
        self.version = version;
        Ok(())
    }

    /// Goes on with rows of other columns. Nothing is read for it, and nothing changes if the table cannot take them.
    pub fn turn_to(&mut self, spec: &Spec) -> anyhow::Result<()> {
        let columns = with_event_date(schema::columns(&spec.schema)?);
        let form = self.form.as_ref().context("the table was not read yet")?;
        (self.fit, self.grown) = form.grow(&columns)?;
        (self.columns, self.rows) = (columns, spec.schema.clone());
        self.tell_fit();
        Ok(())
    }

    /// The Arrow schema of the table's files from the next rows on.
    pub fn layout(&self) -> anyhow::Result<SchemaRef> {
        let columns: Vec<_> = self.fit.columns.iter().filter(|column| column.name != EVENT_DATE).cloned().collect();
        schema::layout(&columns, &self.rows)
    }

    /// Another writer has given the table other properties.
    pub(super) fn learn(&mut self, metadata: Metadata) -> anyhow::Result<()> {
        if let Some(grown) = &mut self.grown {
            grown.metadata = metadata.clone().with_schema(&grown.schema)?;
        }
        if let Some(form) = &mut self.form {
            form.metadata = metadata;
        }
        Ok(())
    }

    /// The metadata with these properties of the table; `None` if it has them.
    pub fn with_properties(&self, properties: &[(&str, String)]) -> anyhow::Result<Option<Metadata>> {
        let form = self.form.as_ref().context("the table was not read yet")?;
        let has = form.metadata.configuration();
        if properties.iter().all(|(key, value)| has.get(*key) == Some(value)) {
            return Ok(None);
        }
        let mut metadata = form.metadata.clone();
        for (key, value) in properties {
            metadata = metadata.add_config_key((*key).to_owned(), value.clone())?;
        }
        Ok(Some(metadata))
    }

    /// How the rows that are to be written go into the table.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    fn tell_fit(&self) {
        for change in &self.fit.changes {
            info!(table = %self.name, "with the next rows, {change}");
        }
        for notice in &self.fit.notices {
            info!(table = %self.name, "{notice}");
        }
    }

    /// The table's state as of now, loaded afresh; kept by nobody, since it grows with the table.
    pub async fn snapshot(&self) -> anyhow::Result<DeltaTable> {
        let mut table = DeltaTable::new(self.log.clone());
        table.load().await.with_context(|| format!("load table {} in {}", self.name, self.path.display()))?;
        Ok(table)
    }

    /// Reads the log anew, and gives the data files at the version that it has come to.
    pub async fn files(&mut self) -> anyhow::Result<Vec<DataFile>> {
        let table = self.snapshot().await?;
        self.read(&table).await?;
        files_in(&table).await
    }

    /// The next offset of every log partition of which the table holds something.
    pub fn offsets(&self) -> Offsets {
        offsets_in(&self.transactions)
    }

    /// What the newest commit that moved an application id to `number` has left in its info under `silverd`.
    pub async fn info_of(&self, app_id: &str, number: i64) -> anyhow::Result<Option<serde_json::Value>> {
        for version in (1..=self.version).rev() {
            let Some(bytes) = self.log.read_commit_entry(version).await? else { return Ok(None) };
            let actions = get_actions(version, &bytes)?;
            let moved =
                |action: &Action| matches!(action, Action::Txn(txn) if txn.app_id == app_id && txn.version == number);
            if !actions.iter().any(moved) {
                continue;
            }
            return Ok(info_in(actions));
        }
        Ok(None)
    }

    /// The last version that is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn transaction(&self, app_id: &str) -> Option<i64> {
        self.transactions.get(app_id).copied()
    }

    pub fn store(&self) -> ObjectStoreRef {
        self.log.object_store(None)
    }

    pub fn log(&self) -> LogStoreRef {
        self.log.clone()
    }
}

/// What silverd has left of itself in a commit.
pub fn info_in(actions: Vec<Action>) -> Option<serde_json::Value> {
    actions.into_iter().find_map(|action| match action {
        Action::CommitInfo(mut info) => info.info.remove("silverd"),
        _ => None,
    })
}

/// Every day of which a table has rows.
pub async fn days_of(log: &LogStoreRef) -> anyhow::Result<BTreeSet<NaiveDate>> {
    Ok(files_of(log).await?.iter().filter_map(DataFile::date).collect())
}

/// The next offset of every log partition of which a table holds something, as of now.
pub async fn offsets_of(log: &LogStoreRef) -> anyhow::Result<Offsets> {
    Ok(offsets_in(&transactions(log.object_store(None).as_ref(), None).await?))
}

fn offsets_in(transactions: &HashMap<String, i64>) -> Offsets {
    transactions.iter().filter_map(|(id, version)| Some((LogPartition::from_app_id(id)?, *version))).collect()
}

/// A table's data files as of now.
pub async fn files_of(log: &LogStoreRef) -> anyhow::Result<Vec<DataFile>> {
    let mut table = DeltaTable::new(log.clone());
    table.load().await?;
    files_in(&table).await
}

/// A table's data files at a version.
pub async fn files_at(log: &LogStoreRef, version: u64) -> anyhow::Result<Vec<DataFile>> {
    let mut table = DeltaTable::new(log.clone());
    table.load_version(version).await.with_context(|| format!("load version {version}"))?;
    files_in(&table).await
}

/// The data files of a table at the version that it was loaded at.
async fn files_in(table: &DeltaTable) -> anyhow::Result<Vec<DataFile>> {
    let log = table.log_store();
    let views = table.snapshot()?.snapshot().file_views(log.as_ref(), None);
    let files = views.map_ok(|file| DataFile {
        path: file.object_store_path(),
        event_date: file.partition_values_map().remove(EVENT_DATE).flatten(),
        size: file.size() as u64,
        modified_ms: file.modification_time(),
        stats: file.stats(),
    });
    Ok(files.try_collect().await?)
}

fn with_event_date(mut columns: Vec<StructField>) -> Vec<StructField> {
    let comment = "Day of the event, UTC. The partition column.";
    let date = StructField::new(EVENT_DATE, DataType::Primitive(PrimitiveType::Date), true);
    columns.push(date.with_metadata([(COMMENT, comment)]));
    columns
}

async fn create(table: &DeltaTable, spec: &Spec, columns: Vec<StructField>) -> anyhow::Result<DeltaTable> {
    let mut builder = CreateBuilder::new()
        .with_log_store(table.log_store())
        .with_table_name(&spec.name)
        .with_columns(columns)
        .with_partition_columns([EVENT_DATE])
        .with_save_mode(SaveMode::Ignore);
    if let Some(doc) = &spec.doc {
        builder = builder.with_comment(doc);
    }
    let table = builder.await.context("create the table")?;
    info!(table = %spec.name, path = %spec.path.display(), "created table");
    Ok(table)
}

/// The highest protocol that this writer keeps: appends without invariants, generated columns or the like.
const WRITER_VERSION_MAX: i32 = 2;

fn accepts(table: &DeltaTable) -> anyhow::Result<()> {
    let snapshot = table.snapshot()?;
    let protocol = snapshot.protocol();
    if protocol.min_writer_version() > WRITER_VERSION_MAX {
        bail!(
            "the table asks for a writer of protocol version {}, silverd writes version {WRITER_VERSION_MAX}: it was \
             altered by another engine. Give pipeline.toml another path, and silverd makes a table of its own there",
            protocol.min_writer_version()
        );
    }
    let partitioned: Vec<_> = snapshot.metadata().partition_columns().iter().map(|c| c.to_string()).collect();
    if partitioned != [EVENT_DATE] {
        bail!("the table is partitioned by {partitioned:?}, expected [\"{EVENT_DATE}\"]");
    }
    Ok(())
}

impl Form {
    /// How these columns go into the table, and what it becomes by that, if it changes.
    fn grow(&self, columns: &[StructField]) -> anyhow::Result<(Fit, Option<Self>)> {
        let fit = evolve(&schema::known(self.schema.fields()), &schema::known(columns))?;
        if fit.changes.is_empty() {
            return Ok((fit, None));
        }
        let schema = schema::grown(&self.schema, &fit.columns)?;
        let metadata = self.metadata.clone().with_schema(&schema)?;
        Ok((fit, Some(Self { metadata, schema })))
    }
}
