//! One Gold table: which days to compute again, and how their rows replace the old ones.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use arrow::datatypes::{DataType, SchemaRef};
use chrono::{Days, NaiveDate};
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{Expr, SessionContext, cast, col, lit};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use silverd_core::config::Compression;
use silverd_core::zone::Zone;
use tracing::debug;

use super::moving::Moving;
use super::shape;
use crate::day_status::DayLedger;
use crate::delta::{
    Change, DataFile, EVENT_DATE, Encoder, FileWriter, NewFile, Table, TableReader, TableSpec, format_day, list_days,
    list_files, writer_properties, zone_at,
};
use crate::runtime::clock;
use crate::sql::process::Notes;
use crate::sql::{self, DeltaScan, QueryError, Tables};
use crate::sql_engine::read_only;

/// Days of one commit. A table over years of history needs several commits to fill.
pub(super) const DAYS_MAX: usize = 31;
/// The application id under which the table counts its commits.
pub(super) const COMMITS: &str = "silverd-gold";
/// A replaced file is removed after this time: readers may still be reading an older version.
const REPLACED_FILE_AGE: Duration = Duration::from_secs(60 * 60);

/// A Gold table in pipeline.toml, as far as its rows depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub name: String,
    pub path: PathBuf,
    pub sql: String,
    pub lookback_days: u32,
    /// That of its days, and of its sources' days.
    pub time_zone: Zone,
    /// The folder of `gold.day_status`.
    pub day_status: PathBuf,
}

/// Which of the days that changed a refresh computes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scope {
    pub days_max: usize,
    /// Days that failed alone.
    pub skip: BTreeSet<NaiveDate>,
}

pub(super) struct Model {
    definition: Definition,
    pool_bytes: usize,
    pub(super) days: Arc<DayLedger>,
    open: Option<OpenTable>,
    /// Files that were replaced, and when.
    replaced: Vec<(Instant, Path)>,
}

/// The table at its newest version, and what it was computed from.
pub(super) struct OpenTable {
    pub(super) table: Table,
    encoder: Encoder,
    schema: SchemaRef,
    pub(super) progress: Progress,
    /// All days are computed again, in another zone.
    pub(super) moving: Option<Moving>,
}

/// What a Gold table was computed from. Stored in the info of its commits, and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) sources: BTreeMap<String, SourceVersion>,
    /// Days that changed and are not computed again yet.
    pub(super) pending: BTreeSet<NaiveDate>,
    /// Digest of the SQL. When it changes, all days are computed again.
    pub(super) sql: String,
}

/// The version of a source that the table was computed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SourceVersion {
    pub(super) version: u64,
    /// Digest of that version's log entry. It differs if the source was deleted and created again.
    #[serde(rename = "mark")]
    entry_digest: String,
    /// The zone of its days; UTC is left out.
    #[serde(default, skip_serializing_if = "Zone::is_utc_ref")]
    time_zone: Zone,
}

/// A source at its newest version.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) reader: TableReader,
    version: u64,
}

/// What a refresh did.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refreshed {
    /// The committed version; `None` if nothing changed.
    pub committed: Option<u64>,
    pub days: usize,
    pub rows: u64,
    /// Days that are still to be computed.
    pub pending: usize,
    /// The table moves to another zone, and the process has what is computed of it in memory.
    pub moving: bool,
}

impl Model {
    pub(super) fn new(definition: Definition, pool_bytes: usize, days: Arc<DayLedger>) -> Self {
        Self { definition, pool_bytes, days, open: None, replaced: Vec::new() }
    }

    pub(super) fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Computes the days again that changed since the last refresh. After an error the next refresh opens the table
    /// again. The days are noted before they are computed.
    pub(super) async fn refresh(
        &mut self,
        tables: &Tables,
        scope: &Scope,
        notes: &Notes<BTreeSet<NaiveDate>>,
    ) -> Result<Refreshed, QueryError> {
        self.remove_replaced_files().await;
        let mut sources = Vec::new();
        for name in sql::table_references(&self.definition.sql)? {
            sources.push(Source::open(tables, name).await?);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open(&sources).await?,
        };
        let refreshed = match open.table.moves_to() {
            Some(zone) => self.move_to(zone, &mut open, &sources, scope, notes).await?,
            None => self.update(&mut open, &sources, scope, notes).await?,
        };
        self.open = Some(open);
        Ok(refreshed)
    }

    fn context(&self) -> anyhow::Result<SessionContext> {
        let zone = Some(self.definition.time_zone).filter(|zone| !zone.is_utc());
        sql::bounded_context(self.pool_bytes, sql::session_in(zone).with_target_partitions(1))
    }

    async fn open(&self, sources: &[Source]) -> Result<OpenTable, QueryError> {
        let context = self.context()?;
        for source in sources {
            sql::register(&context, &source.name, DeltaScan::open(&source.reader, source.version).await?)?;
        }
        let frame = context.sql_with_options(&self.definition.sql, read_only()).await?;
        let schema = shape::file_schema(frame.schema().as_arrow())?;
        let doc = Some(format!("Computed from {} by SQL, a day at a time.", names(sources)));
        let Definition { name, path, time_zone, .. } = self.definition.clone();
        let spec = TableSpec { name, path, schema: schema.clone(), doc, time_zone };
        let mut table = Table::open_in_any_zone(&spec).await.map_err(|failure| {
            let path = self.definition.path.display();
            failure.context(format!("if the columns of its SQL changed, delete {path}; silverd then creates it again"))
        })?;
        let compression = Compression::default();
        let encoder = Encoder::new(schema.clone(), writer_properties(&compression)?.build(), &compression);
        if table.fit().widens() {
            let wide = Encoder::new(table.layout()?, writer_properties(&compression)?.build(), &compression);
            table.widen(&wide).await?;
        }
        let sql = hex(&Sha256::digest(self.definition.sql.as_bytes())[..8]);
        let number = table.transaction(COMMITS).unwrap_or(0);
        let info = if number > 0 { table.info_of(COMMITS, number).await? } else { None };
        let progress = info.and_then(|info| serde_json::from_value::<Progress>(info).ok());
        let progress = match progress {
            Some(progress) if progress.sql == sql => progress,
            // Another SQL gave rows for these days; this one may give none.
            _ => Progress { sql, pending: list_days(&table.log()).await?, ..Progress::default() },
        };
        Ok(OpenTable { table, encoder, schema, progress, moving: None })
    }

    async fn update(
        &mut self,
        open: &mut OpenTable,
        sources: &[Source],
        scope: &Scope,
        notes: &Notes<BTreeSet<NaiveDate>>,
    ) -> Result<Refreshed, QueryError> {
        let mut progress = open.progress.clone();
        for source in sources {
            let known = progress.sources.get(&source.name);
            let current = self.version_of(source, known).await?;
            let changed = match source.days_changed_since(known).await? {
                Some(changed) => changed,
                // The source was created again, or its log was cleaned up: all days of the source and of this table.
                None => &source.reader.days().await? | &list_days(&open.table.log()).await?,
            };
            progress.pending.extend(self.dependent_days(changed));
            progress.sources.insert(source.name.clone(), current);
        }
        let days = progress.pending.iter().rev().filter(|day| !scope.skip.contains(day));
        let days: BTreeSet<_> = days.take(scope.days_max).copied().collect();
        progress.pending.retain(|day| !days.contains(day));
        if days.is_empty() {
            // Newer versions that changed no row. They are not committed: finding them again after a restart is cheap.
            let pending = progress.pending.len();
            open.progress = progress;
            return Ok(Refreshed { pending, ..Refreshed::default() });
        }
        notes.send(days.clone()).map_err(anyhow::Error::from)?;
        let (adds, failed) = self.compute(open, sources, &days).await?;
        progress.pending.extend(failed.iter().map(|(day, _)| *day));
        let days: BTreeSet<_> =
            days.into_iter().filter(|day| !failed.iter().any(|(failed, _)| failed == day)).collect();
        let rows = adds.iter().map(NewFile::rows).sum();
        let mut refreshed =
            Refreshed { days: days.len(), rows, pending: progress.pending.len(), ..Refreshed::default() };
        let current = list_files(&open.table.log()).await?;
        let of_these_days = |file: &DataFile| file.date().is_some_and(|day| days.contains(&day));
        let removes: Vec<_> = current.into_iter().filter(of_these_days).collect();
        let replaced: Vec<_> = removes.iter().map(|file| file.path.clone()).collect();
        let mut info = json!(progress);
        info["days"] = json!(days);
        info["rows"] = json!(refreshed.rows);
        let number = open.table.transaction(COMMITS).unwrap_or(0) + 1;
        let change = Change { adds, removes, progress: vec![(COMMITS.to_owned(), number)], info, ..Change::default() };
        let changed = days.iter().map(|day| (*day - NaiveDate::default()).num_days() as i32).collect();
        let mut hold = self.days.hold(&self.definition.name, &changed).await?;
        let committed = hold.commit(open.table.commit(change)).await;
        let committed = committed.map_err(anyhow::Error::new).context("commit the Gold table")?;
        self.replaced_now(replaced);
        open.progress = progress;
        refreshed.committed = Some(committed.version);
        match failed.into_iter().next() {
            Some((day, failure)) => Err(anyhow!("{day}: {failure}; the other days are up to date").into()),
            None => Ok(refreshed),
        }
    }

    /// A source's newest version.
    ///
    /// # Errors
    ///
    /// If its days are those of another zone than this table's.
    pub(super) async fn version_of(
        &self,
        source: &Source,
        known: Option<&SourceVersion>,
    ) -> Result<SourceVersion, QueryError> {
        let entry_digest = source.reader.entry_digest(source.version).await?.unwrap_or_default();
        let unchanged = known.filter(|known| known.version == source.version && known.entry_digest == entry_digest);
        let time_zone = match unchanged {
            Some(known) => known.time_zone,
            None => zone_at(source.reader.log(), source.version).await?,
        };
        if time_zone != self.definition.time_zone {
            return Err(sql::gold_zone_differs(&source.name, time_zone, self.definition.time_zone));
        }
        Ok(SourceVersion { version: source.version, entry_digest, time_zone })
    }

    /// The days whose rows depend on days of a source: these, and the lookback days after each.
    pub(super) fn dependent_days(&self, days: BTreeSet<NaiveDate>) -> impl Iterator<Item = NaiveDate> + use<> {
        let lookback = 0..=u64::from(self.definition.lookback_days);
        let dependent = move |day: NaiveDate| {
            lookback.clone().filter_map(move |days| day.checked_add_days(Days::new(days))).collect::<Vec<_>>()
        };
        days.into_iter().flat_map(dependent)
    }

    /// The files of some days. Where they cannot be computed together, each day is computed alone: those that fail are
    /// returned with the reason, unless all of them do.
    pub(super) async fn compute(
        &self,
        open: &OpenTable,
        sources: &[Source],
        days: &BTreeSet<NaiveDate>,
    ) -> Result<(Vec<NewFile>, Vec<(NaiveDate, QueryError)>), QueryError> {
        let failure = match self.write(open, sources, days).await {
            Ok(files) => return Ok((files, Vec::new())),
            Err(failure) if days.len() == 1 => return Err(failure),
            Err(failure) => failure,
        };
        let (mut files, mut failed) = (Vec::new(), Vec::new());
        for day in days {
            match self.write(open, sources, &BTreeSet::from([*day])).await {
                Ok(of_day) => files.extend(of_day),
                Err(failure) => failed.push((*day, failure)),
            }
        }
        if failed.len() == days.len() { Err(failure) } else { Ok((files, failed)) }
    }

    /// Writes the rows of some days, each day to a file, as they are computed.
    async fn write(
        &self,
        open: &OpenTable,
        sources: &[Source],
        days: &BTreeSet<NaiveDate>,
    ) -> Result<Vec<NewFile>, QueryError> {
        let mut rows = self.frame(sources, days).await?.execute_stream().await?;
        let mut writers = BTreeMap::<i32, FileWriter<'_>>::new();
        while let Some(batch) = rows.try_next().await? {
            for (day, rows) in shape::split_by_day(&batch, &open.schema, self.definition.time_zone)? {
                let writer = match writers.entry(day) {
                    Entry::Occupied(writer) => writer.into_mut(),
                    Entry::Vacant(place) => {
                        place.insert(open.encoder.file_writer(open.table.store(), &format_day(day))?)
                    }
                };
                writer.write(&rows).await?;
            }
        }
        let mut files = Vec::new();
        for writer in writers.into_values() {
            files.push(writer.finish(clock::now_ms()).await?);
        }
        Ok(files)
    }

    /// The SQL for some days, over the days that their rows depend on.
    async fn frame(&self, sources: &[Source], days: &BTreeSet<NaiveDate>) -> Result<DataFrame, QueryError> {
        let context = self.context()?;
        let lookback = 0..=u64::from(self.definition.lookback_days);
        let input_days: BTreeSet<_> = days
            .iter()
            .flat_map(|day| lookback.clone().filter_map(|days| day.checked_sub_days(Days::new(days))))
            .collect();
        for source in sources {
            let table = context.read_table(DeltaScan::open(&source.reader, source.version).await?)?;
            sql::register(&context, &source.name, table.filter(is_one_of(col(EVENT_DATE), &input_days))?.into_view())?;
        }
        let frame = context.sql_with_options(&self.definition.sql, read_only()).await?;
        let date = cast(col(EVENT_DATE), DataType::Date32);
        Ok(frame.filter(is_one_of(date, days))?)
    }

    pub(super) fn replaced_now(&mut self, files: Vec<Path>) {
        self.replaced.extend(files.into_iter().map(|file| (Instant::now(), file)));
    }

    /// Removes files that were replaced a while ago. Vacuum removes those of a process that was killed.
    async fn remove_replaced_files(&mut self) {
        let Some(open) = &self.open else { return };
        let store = open.table.store();
        let (old, young): (Vec<_>, Vec<_>) =
            self.replaced.drain(..).partition(|(since, _)| since.elapsed() > REPLACED_FILE_AGE);
        self.replaced = young;
        for (_, path) in old {
            if let Err(failure) = store.delete(&path).await {
                debug!(table = %self.definition.name, "remove {path}: {failure}");
            }
        }
    }
}

impl Source {
    async fn open(tables: &Tables, name: String) -> Result<Self, QueryError> {
        let path = sql::gold_source(tables, &name)?;
        let not_written = || QueryError::NotWritten(name.clone());
        let reader = TableReader::open(path)?.ok_or_else(not_written)?;
        let version = reader.version().await?.ok_or_else(not_written)?;
        Ok(Self { name, reader, version })
    }

    /// The days that changed since a version; `None` if the log cannot say.
    async fn days_changed_since(&self, known: Option<&SourceVersion>) -> anyhow::Result<Option<BTreeSet<NaiveDate>>> {
        let Some(known) = known.filter(|known| known.version <= self.version) else { return Ok(None) };
        if self.reader.entry_digest(known.version).await?.as_ref() != Some(&known.entry_digest) {
            return Ok(None);
        }
        self.reader.days_changed(known.version, self.version).await
    }
}

fn is_one_of(date: Expr, days: &BTreeSet<NaiveDate>) -> Expr {
    let days = days.iter().map(|day| lit(ScalarValue::Date32(Some((*day - NaiveDate::default()).num_days() as i32))));
    date.in_list(days.collect(), false)
}

fn names(sources: &[Source]) -> String {
    sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
