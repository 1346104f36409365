//! A Delta table that silverd writes: its newest known version, its progress per log partition, and its files.

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Action, Metadata, MetadataExt, StructField};
use deltalake_core::logstore::{LogStoreRef, ObjectStoreRef, get_actions};
use futures::{FutureExt, TryStreamExt};
use serde_json::json;
use silverd_core::offsets::Offsets;
use silverd_core::schema::evolve::Fit;
use silverd_core::zone::Zone;
use tracing::{debug, info, warn};

use super::commit::Change;
use super::create::{TableSpec, create, with_event_date};
use super::damaged;
use super::data_file::{DataFile, files_of_loaded};
use super::day::EVENT_DATE;
use super::definition::TableDefinition;
use super::location::{has_versions, open_log, table_url, unloaded_table};
use super::schema;
use super::transactions::{Transactions, offsets_in, read_transactions};
use super::zone::{ZoneCheck, zone_of};

/// The table property by which checkpoints leave out `txn` actions that are older.
pub(super) const TXN_RETENTION: &str = "delta.setTransactionRetentionDuration";

/// A table at the newest version that was read from its log.
pub struct Table {
    pub name: String,
    /// Delta's own id of the table, from its metadata.
    pub id: String,
    pub(super) path: PathBuf,
    pub(super) log: LogStoreRef,
    /// The newest version whose actions are known. The next commit tries the version after it.
    pub(super) version: u64,
    /// The version of each application id.
    pub(super) transactions: HashMap<String, i64>,
    /// Application ids that a checkpoint of another engine left out. The next reader may not find them any more.
    restored: Vec<(String, i64)>,
    /// How many of silverd's application ids the log has lost, at least.
    lost: u64,
    /// The table's definition at `version`; `None` before the first read.
    pub(super) definition: Option<TableDefinition>,
    /// The table's definition after the next commit that adds rows, if that commit changes it.
    pub(super) evolved: Option<TableDefinition>,
    /// The columns of the rows to be written, in Delta's types.
    row_columns: Vec<StructField>,
    /// The same columns, in the Arrow types of the batches.
    row_schema: SchemaRef,
    /// How these rows fit into the table.
    fit: Fit,
    /// The zone that the table must have.
    zone: ZoneCheck,
}

impl Table {
    /// Opens a table, or creates it. An existing table must be able to take rows of the spec's columns, and its days
    /// must be those of the spec's zone: else the error's cause is a `ZoneDiffers`.
    pub async fn open(spec: &TableSpec) -> anyhow::Result<Self> {
        Self::open_checked(spec, ZoneCheck::Same(spec.time_zone)).await
    }

    /// The same, whatever zone an existing table has: see [`moves_to`](Self::moves_to).
    pub(crate) async fn open_in_any_zone(spec: &TableSpec) -> anyhow::Result<Self> {
        Self::open_checked(spec, ZoneCheck::Moves(spec.time_zone)).await
    }

    async fn open_checked(spec: &TableSpec, zone: ZoneCheck) -> anyhow::Result<Self> {
        let opened = Self::open_or_create(spec, zone).await;
        opened.with_context(|| format!("open table {} in {}", spec.name, spec.path.display()))
    }

    /// Opens an existing table whatever its columns are, and lists its files; `None` if there is no table.
    pub async fn open_existing(name: &str, path: PathBuf) -> anyhow::Result<Option<(Self, Vec<DataFile>)>> {
        let Some(log) = open_log(&path)? else { return Ok(None) };
        let opened = async {
            let Some(loaded) = load_if_exists(&log).await? else { return Ok(None) };
            let columns = loaded.table.snapshot()?.schema().fields().cloned().collect();
            let (log, rows) = (loaded.table.log_store(), Arc::new(Schema::empty()));
            let mut opened = Self::unread(name, &path, log, columns, rows, ZoneCheck::Any);
            let files = files_of_loaded(&loaded.table).await?;
            opened.read(loaded)?;
            anyhow::Ok(Some((opened, files)))
        };
        opened.await.with_context(|| format!("open table {name} in {}", path.display()))
    }

    async fn open_or_create(spec: &TableSpec, zone: ZoneCheck) -> anyhow::Result<Self> {
        let table = unloaded_table(table_url(&spec.path)?)?;
        let log = table.log_store();
        let columns = with_event_date(schema::columns(&spec.schema)?, spec.time_zone);
        let loaded = match load_if_exists(&log).await? {
            Some(loaded) => loaded,
            None => {
                if let Err(failure) = create(&table, spec, columns.clone()).await {
                    if !has_versions(&log).await? {
                        return Err(failure);
                    }
                    // Another silverd has created it in the meantime.
                    debug!(table = %spec.name, "{failure:#}");
                }
                load(&log).await?
            }
        };
        let (log, rows) = (loaded.table.log_store(), spec.schema.clone());
        let mut opened = Self::unread(&spec.name, &spec.path, log, columns, rows, zone);
        opened.read(loaded)?;
        opened.keep_progress().await?;
        opened.report_fit();
        if damaged::were_found(&opened.log) {
            opened.write_checkpoint();
        }
        Ok(opened)
    }

    fn unread(
        name: &str,
        path: &FilePath,
        log: LogStoreRef,
        row_columns: Vec<StructField>,
        row_schema: SchemaRef,
        zone: ZoneCheck,
    ) -> Self {
        Self {
            name: name.to_owned(),
            id: String::new(),
            path: path.to_path_buf(),
            log,
            version: 0,
            transactions: HashMap::new(),
            restored: Vec::new(),
            lost: 0,
            definition: None,
            evolved: None,
            row_columns,
            row_schema,
            fit: Fit { columns: Vec::new(), changes: Vec::new(), notices: Vec::new() },
            zone,
        }
    }

    /// Reads the log again. Required after a fence or a failed commit: what was known before may be wrong.
    pub async fn reload(&mut self) -> anyhow::Result<()> {
        let loaded = self.load_newest().await?;
        self.read(loaded)?;
        self.keep_progress().await
    }

    /// Sets the application ids again that another engine's checkpoint left out, and removes the table property that
    /// allows it to.
    async fn keep_progress(&mut self) -> anyhow::Result<()> {
        let metadata = &self.definition()?.metadata;
        let deletes_txns = metadata.configuration().contains_key(TXN_RETENTION);
        let metadata = if deletes_txns { Some(metadata.clone().remove_config_key(TXN_RETENTION)?) } else { None };
        let progress = std::mem::take(&mut self.restored);
        if metadata.is_none() && progress.is_empty() {
            return Ok(());
        }
        warn!(
            table = %self.name, property = deletes_txns, restored = progress.len(),
            "another engine deletes silverd's progress from the table's log ({TXN_RETENTION}): silverd removes the \
             property, and sets again what was deleted"
        );
        self.commit_restored(progress, metadata).await
    }

    async fn commit_restored(
        &mut self,
        progress: Vec<(String, i64)>,
        metadata: Option<Metadata>,
    ) -> anyhow::Result<()> {
        let info = json!({ "maintenance": { "restored": progress.len() } });
        let change = Change { metadata, progress, info, rewrites: true, ..Change::default() };
        self.commit(change).await.context("commit the restored progress")?;
        Ok(())
    }

    /// Fails if the log of a Silver table has lost application ids: rows of these log partitions would be written again.
    pub(crate) fn check_progress(&self) -> anyhow::Result<()> {
        if self.lost == 0 {
            return Ok(());
        }
        let name = &self.name;
        bail!(
            "the log of table {name} has lost at least {} of the `txn` actions that hold silverd's progress: another engine \
             has deleted them, and the commits that set them are gone. silverd does not write the table, since it would \
             write events again. `silverd rebuild {name}`, without days, makes all its rows again from bronze, and sets its \
             progress",
            self.lost
        )
    }

    /// Fails if rows of the table cannot be replaced or removed.
    pub(crate) fn check_removal(&self) -> anyhow::Result<()> {
        self.definition()?.features().check_removal().with_context(|| format!("table {}", self.name))
    }

    /// How many of silverd's application ids the log has lost, at least.
    pub(crate) fn lost_transactions(&self) -> u64 {
        self.lost
    }

    /// Sets the next offsets of a table whose log has lost them.
    pub(crate) async fn set_offsets(&mut self, offsets: &Offsets) -> anyhow::Result<()> {
        let lost = std::mem::take(&mut self.lost);
        let progress = offsets.iter().map(|(log, next)| (log.app_id(), *next)).collect();
        let committed = self.commit_restored(progress, None).await;
        if committed.is_err() {
            self.lost = lost;
        }
        committed
    }

    /// Takes application ids for known that the log has lost, until it is read again. The next commit must set them.
    pub(crate) fn assume_restored(&mut self, progress: &[(String, i64)]) {
        self.lost = 0;
        self.transactions.extend(progress.iter().cloned());
    }

    /// Reads the log again, and returns the data files at the version that was read.
    pub async fn files(&mut self) -> anyhow::Result<Vec<DataFile>> {
        let loaded = self.load_newest().await?;
        let files = files_of_loaded(&loaded.table).await?;
        self.read(loaded)?;
        Ok(files)
    }

    /// Loads the table's state at its newest version. The result is not kept in `self`: it grows with the table.
    async fn load_newest(&self) -> anyhow::Result<Loaded> {
        let loaded = load(&self.log).await;
        loaded.with_context(|| format!("load table {} in {}", self.name, self.path.display()))
    }

    fn read(&mut self, Loaded { table, version, transactions }: Loaded) -> anyhow::Result<()> {
        let definition = TableDefinition::of_loaded(&table)?;
        self.zone.check(&self.name, &definition.metadata)?;
        (self.fit, self.evolved) = definition.evolve(&self.row_columns)?;
        self.id = definition.metadata.id().to_string();
        self.definition = Some(definition);
        (self.transactions, self.restored, self.lost) =
            (transactions.versions, transactions.restored, transactions.lost);
        self.version = version;
        Ok(())
    }

    /// Continues with rows of other columns. Reads nothing, and changes nothing if the table cannot take them.
    pub(crate) fn switch_to(&mut self, spec: &TableSpec) -> anyhow::Result<()> {
        let columns = with_event_date(schema::columns(&spec.schema)?, spec.time_zone);
        (self.fit, self.evolved) = self.definition()?.evolve(&columns)?;
        (self.row_columns, self.row_schema) = (columns, spec.schema.clone());
        self.report_fit();
        Ok(())
    }

    fn report_fit(&self) {
        for change in &self.fit.changes {
            info!(table = %self.name, "the next rows change the table: {change}");
        }
        for notice in &self.fit.notices {
            info!(table = %self.name, "{notice}");
        }
    }

    /// How the rows to be written fit into the table.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// The Arrow schema of the files to be written.
    pub fn layout(&self) -> anyhow::Result<SchemaRef> {
        let columns: Vec<_> = self.fit.columns.iter().filter(|column| column.name != EVENT_DATE).cloned().collect();
        schema::layout(&columns, &self.row_schema)
    }

    /// Takes over the table properties that another writer committed.
    pub(super) fn set_metadata(&mut self, metadata: Metadata) -> anyhow::Result<()> {
        if let Some(evolved) = &mut self.evolved {
            *evolved = evolved.with_metadata(&metadata)?;
        }
        if let Some(definition) = &mut self.definition {
            *definition = definition.with_metadata(&metadata)?;
        }
        Ok(())
    }

    /// The zone that all rows must be moved to, if the table's days are those of another one. The commit that replaces
    /// them sets it: see [`Change::time_zone`].
    pub(crate) fn moves_to(&self) -> Option<Zone> {
        self.zone.moves_to(&self.definition.as_ref()?.metadata)
    }

    /// Fails if all rows must be moved to another zone first.
    pub(crate) fn check_zone(&self) -> anyhow::Result<()> {
        let metadata = &self.definition()?.metadata;
        match self.zone.moves_to(metadata) {
            Some(wanted) => Ok(ZoneCheck::Same(wanted).check(&self.name, metadata)?),
            None => Ok(()),
        }
    }

    /// Whether other metadata say another zone.
    pub(super) fn changes_zone(&self, theirs: &Metadata) -> bool {
        self.definition.as_ref().is_some_and(|ours| zone_of(&ours.metadata) != zone_of(theirs))
    }

    /// A property of the table.
    pub(crate) fn property(&self, key: &str) -> Option<&str> {
        self.definition.as_ref()?.metadata.configuration().get(key).map(String::as_str)
    }

    /// The table's metadata with these properties; `None` if it has all of them already.
    pub(crate) fn with_properties(&self, properties: &[(&'static str, String)]) -> anyhow::Result<Option<Metadata>> {
        let definition = self.definition()?;
        let current = definition.metadata.configuration();
        if properties.iter().all(|(key, value)| current.get(*key) == Some(value)) {
            return Ok(None);
        }
        let mut metadata = definition.metadata.clone();
        for (key, value) in properties {
            metadata = metadata.add_config_key((*key).to_owned(), value.clone())?;
        }
        Ok(Some(metadata))
    }

    pub(super) fn definition(&self) -> anyhow::Result<&TableDefinition> {
        self.definition.as_ref().context("the table was not read yet")
    }

    /// The next offset of every log partition that the table holds data of.
    pub fn offsets(&self) -> Offsets {
        offsets_in(&self.transactions)
    }

    /// The newest version that is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version of an application id; `None` if the table has never committed it.
    pub fn transaction(&self, app_id: &str) -> Option<i64> {
        self.transactions.get(app_id).copied()
    }

    /// All application ids with their versions.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = (&str, i64)> {
        self.transactions.iter().map(|(id, version)| (id.as_str(), *version))
    }

    /// What silverd wrote into the info of the newest commit that set an application id to `number`.
    pub(crate) async fn info_of(&self, app_id: &str, number: i64) -> anyhow::Result<Option<serde_json::Value>> {
        for version in (1..=self.version).rev() {
            let Some(bytes) = self.log.read_commit_entry(version).await? else { return Ok(None) };
            let actions = get_actions(version, &bytes)?;
            let sets =
                |action: &Action| matches!(action, Action::Txn(txn) if txn.app_id == app_id && txn.version == number);
            let is_restored = |info: &serde_json::Value| info["maintenance"].get("restored").is_some();
            if actions.iter().any(sets) {
                let info = silverd_info(actions);
                if !info.as_ref().is_some_and(is_restored) {
                    return Ok(info);
                }
            }
        }
        Ok(None)
    }

    pub fn store(&self) -> ObjectStoreRef {
        self.log.object_store(None)
    }

    pub fn log(&self) -> LogStoreRef {
        self.log.clone()
    }
}

/// A table's state at its newest version. It grows with the table, so it is not kept.
struct Loaded {
    table: DeltaTable,
    version: u64,
    transactions: Transactions,
}

/// Loads a table; `None` if there is none. An entry of its creation that a power cut has damaged makes no table.
async fn load_if_exists(log: &LogStoreRef) -> anyhow::Result<Option<Loaded>> {
    if has_versions(log).await? {
        match load(log).await {
            // The damaged entries are left out by now.
            Err(_) if !has_versions(log).await? => {}
            loaded => return loaded.map(Some),
        }
    }
    // Another reader of this process may have found them first.
    damaged::move_entries_away(log)?;
    Ok(None)
}

async fn load(log: &LogStoreRef) -> anyhow::Result<Loaded> {
    let loaded = |log: LogStoreRef| {
        async move {
            let mut table = DeltaTable::new(log.clone());
            table.load().await?;
            // A checkpoint is read only where something needs it: a damaged one is to be found here.
            table.snapshot()?.snapshot().file_views(log.as_ref(), None).try_next().await?;
            let version = table.version().ok_or_else(|| anyhow!("the table has no version"))?;
            let transactions = read_transactions(log.object_store(None).as_ref(), Some(version)).await?;
            Ok(Loaded { table, version, transactions })
        }
        .boxed()
    };
    let loaded = damaged::read_past(log, loaded).await?;
    damaged::move_entries_away(log)?;
    Ok(loaded)
}

/// What silverd wrote into a commit's info, under its key `silverd`.
pub(crate) fn silverd_info(actions: Vec<Action>) -> Option<serde_json::Value> {
    actions.into_iter().find_map(|action| match action {
        Action::CommitInfo(mut info) => info.info.remove("silverd"),
        _ => None,
    })
}
