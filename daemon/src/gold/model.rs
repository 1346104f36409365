//! One Gold table: which days to make anew, and how they replace what stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{Days, NaiveDate};
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{Expr, SessionContext, cast, col, lit};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use silverd_core::config::{Compression, Gold};

use super::shape;
use crate::delta::{Change, DataFile, Encoder, Reader, Spec, Table, days_of, files_of, writer_properties};
use crate::sql::{self, Tables, Unanswered};

/// Days of one commit. A table that begins anew over years of history takes several.
const DAYS_MAX: usize = 31;
/// The application id under which the table counts its commits.
const COMMITS: &str = "silverd-gold";
/// A file that was replaced is left to those who read an older version for so long.
const LINGER: Duration = Duration::from_secs(60 * 60);

pub struct Model {
    config: Gold,
    path: PathBuf,
    open: Option<Open>,
    /// Files that were replaced, and when.
    gone: Vec<(Instant, Path)>,
}

/// The table as it stands, and what it was made of.
struct Open {
    table: Table,
    encoder: Encoder,
    schema: arrow::datatypes::SchemaRef,
    progress: Progress,
}

/// What a Gold table was made of: kept in its own commits, and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    sources: BTreeMap<String, Seen>,
    /// Days that changed, and are not made anew yet.
    pending: BTreeSet<NaiveDate>,
    /// Digest of the SQL: another SQL makes everything anew.
    sql: String,
}

/// Up to where a source was read, and what its log's entry there looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    version: u64,
    mark: String,
}

/// A source as of now.
struct Source {
    name: String,
    reader: Reader,
    version: u64,
}

/// What a refresh did.
#[derive(Debug, Default, PartialEq)]
pub struct Refreshed {
    pub committed: Option<u64>,
    pub days: usize,
    pub rows: u64,
    pub pending: usize,
}

impl Model {
    pub fn new(config: Gold, path: PathBuf) -> Self {
        Self { config, path, open: None, gone: Vec::new() }
    }

    pub fn name(&self) -> String {
        format!("gold.{}", self.config.name)
    }

    /// Makes the days anew that changed since the last time. After an error the table is opened again.
    pub async fn refresh(&mut self, tables: &Tables) -> Result<Refreshed, Unanswered> {
        self.tidy_up().await;
        let context = sql::context()?;
        let mut sources = Vec::new();
        for name in sql::references(&context, &self.config.sql)? {
            sources.push(source(tables, name).await?);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open(&context, &sources).await?,
        };
        let refreshed = self.bring_up(&mut open, &sources).await?;
        self.open = Some(open);
        Ok(refreshed)
    }

    async fn open(&self, context: &SessionContext, sources: &[Source]) -> Result<Open, Unanswered> {
        for source in sources {
            sql::register(context, &source.name, source.reader.at(source.version).await?)?;
        }
        let frame = context.sql_with_options(&self.config.sql, sql::read_only()).await?;
        let schema = shape::file_schema(frame.schema().as_arrow())?;
        let doc = Some(format!("Made of {} by SQL, a day at a time.", names(sources)));
        let spec = Spec { name: self.name(), path: self.path.clone(), schema: schema.clone(), doc };
        let mut table = Table::open(&spec).await.map_err(|failure| {
            let path = self.path.display();
            failure.context(format!("if its SQL changed, remove {path}, and it is made anew"))
        })?;
        let compression = Compression::default();
        let encoder = Encoder::new(schema.clone(), writer_properties(&compression)?.build(), &compression);
        if table.fit().widens() {
            let wide = Encoder::new(table.layout()?, writer_properties(&compression)?.build(), &compression);
            table.widen(&wide).await?;
        }
        let sql = hex(&Sha256::digest(self.config.sql.as_bytes())[..8]);
        let number = table.transaction(COMMITS).unwrap_or(0);
        let info = if number > 0 { table.info_of(COMMITS, number).await? } else { None };
        let progress = info.and_then(|info| serde_json::from_value::<Progress>(info).ok());
        let progress = match progress {
            Some(progress) if progress.sql == sql => progress,
            // Days of which another SQL gave rows, and this one may give none.
            _ => Progress { sql, pending: days_of(&table.log()).await?, ..Progress::default() },
        };
        Ok(Open { table, encoder, schema, progress })
    }

    async fn bring_up(&mut self, open: &mut Open, sources: &[Source]) -> Result<Refreshed, Unanswered> {
        let mut progress = open.progress.clone();
        for source in sources {
            let seen = progress.sources.get(&source.name);
            let changed = match source.changed(seen).await? {
                Some(changed) => changed,
                // Its log is another, or does not tell: everything that it has, and that was made of what it had.
                None => &source.reader.days().await? | &days_of(&open.table.log()).await?,
            };
            let after = 0..=u64::from(self.config.days_before);
            let later = |day: NaiveDate| after.clone().filter_map(move |days| day.checked_add_days(Days::new(days)));
            progress.pending.extend(changed.into_iter().flat_map(later));
            let mark = source.reader.mark(source.version).await?.unwrap_or_default();
            progress.sources.insert(source.name.clone(), Seen { version: source.version, mark });
        }
        let days: BTreeSet<_> = progress.pending.iter().rev().take(DAYS_MAX).copied().collect();
        progress.pending.retain(|day| !days.contains(day));
        if days.is_empty() {
            // Newer versions without a row that changed: found again after a restart, at no cost.
            open.progress = progress;
            return Ok(Refreshed::default());
        }
        let batches = self.frame(sources, &days).await?.collect().await?;
        let mut refreshed = Refreshed { days: days.len(), pending: progress.pending.len(), ..Refreshed::default() };
        let mut adds = Vec::new();
        for (day, rows) in shape::by_day(&batches, &open.schema)? {
            let (file, bytes) = open.encoder.encode(day, &rows)?;
            file.put(&open.table.store(), bytes).await?;
            refreshed.rows += file.rows();
            adds.push(file);
        }
        let stands = files_of(&open.table.log()).await?;
        let of_these_days = |file: &DataFile| file.date().is_some_and(|day| days.contains(&day));
        let removes: Vec<_> = stands.into_iter().filter(of_these_days).collect();
        let gone: Vec<_> = removes.iter().map(|file| (Instant::now(), file.path.clone())).collect();
        let mut info = json!(progress);
        info["days"] = json!(days);
        info["rows"] = json!(refreshed.rows);
        let number = open.table.transaction(COMMITS).unwrap_or(0) + 1;
        let change = Change { adds, removes, progress: vec![(COMMITS.to_owned(), number)], info, ..Change::default() };
        let committed = open.table.commit(change).await.map_err(anyhow::Error::new).context("commit")?;
        self.gone.extend(gone);
        open.progress = progress;
        refreshed.committed = Some(committed.version);
        Ok(refreshed)
    }

    /// The SQL over nothing but what the rows of these days are made of.
    async fn frame(&self, sources: &[Source], days: &BTreeSet<NaiveDate>) -> Result<DataFrame, Unanswered> {
        let context = sql::context()?;
        let before = 0..=u64::from(self.config.days_before);
        let read: BTreeSet<_> = days
            .iter()
            .flat_map(|day| before.clone().filter_map(|days| day.checked_sub_days(Days::new(days))))
            .collect();
        for source in sources {
            let table = context.read_table(source.reader.at(source.version).await?)?;
            sql::register(&context, &source.name, table.filter(is_one_of(col("event_date"), &read))?.into_view())?;
        }
        let frame = context.sql_with_options(&self.config.sql, sql::read_only()).await?;
        let date = cast(col("event_date"), arrow::datatypes::DataType::Date32);
        Ok(frame.filter(is_one_of(date, days))?)
    }

    /// Removes files that were replaced a while ago. What a killed silverd leaves is a vacuum's.
    async fn tidy_up(&mut self) {
        let Some(open) = &self.open else { return };
        let store = open.table.store();
        let (old, young) = self.gone.drain(..).partition(|(since, _)| since.elapsed() > LINGER);
        self.gone = young;
        for (_, path) in old as Vec<(Instant, Path)> {
            if let Err(failure) = store.delete(&path).await {
                tracing::debug!(table = %self.name(), "remove {path}: {failure}");
            }
        }
    }
}

impl Source {
    /// The days that changed since it was seen, if its log tells.
    async fn changed(&self, seen: Option<&Seen>) -> anyhow::Result<Option<BTreeSet<NaiveDate>>> {
        let Some(seen) = seen.filter(|seen| seen.version <= self.version) else { return Ok(None) };
        if self.reader.mark(seen.version).await?.as_ref() != Some(&seen.mark) {
            return Ok(None);
        }
        self.reader.days_changed(seen.version, self.version).await
    }
}

async fn source(tables: &Tables, name: String) -> Result<Source, Unanswered> {
    let path = sql::source_of_gold(tables, &name)?;
    let not_yet = || Unanswered::NotYet(name.clone());
    let reader = Reader::open(path)?.ok_or_else(not_yet)?;
    let version = reader.version().await?.ok_or_else(not_yet)?;
    Ok(Source { name, reader, version })
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
