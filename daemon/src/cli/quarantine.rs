//! `silverd quarantine`: lists rejected events, shows one in full, and replays them with the current plugin versions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use silverd_core::counts::Counts;
use silverd_core::outcome::Code;
use silverd_core::route::Router;
use silverd_core::unrouted::{NO_TABLE, UnroutedReason};
use tokio_util::sync::CancellationToken;

use super::plugin_version::load_serving;
use super::progress::Progress;
use super::query;
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::corrections::{Correction, QuarantinedEvents, Resolved, retry_on_conflict};
use crate::delta::is_table;
use crate::runtime::inert::{inert, inert_lines};
use crate::runtime::out::out;
use crate::sql::printable;
use crate::tables::event_set::EventSet;
use crate::tables::quarantine::KIND;
use crate::tables::side_output::SideOutput;

#[derive(clap::Subcommand, Debug)]
pub enum QuarantineCommand {
    /// List the rejected events, newest first, and count them by table and code
    List(ListArgs),
    /// Show one event in full, by its id: table/partition/offset, with several topics table/topic/partition/offset
    Show {
        /// The id, as `silverd quarantine list` prints it, e.g. page_view/0/123
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Transform unresolved events with the current plugin versions: accepted ones become rows, once, and are resolved
    Replay(ReplayArgs),
}

#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Only events of this Silver table, or `unrouted`: those that no table takes
    #[arg(long)]
    table: Option<String>,
    /// Only events with this code, e.g. malformed
    #[arg(long, value_parser = code)]
    code: Option<RejectCode>,
    /// Also resolved events
    #[arg(long)]
    all: bool,
    /// List at most this many events
    #[arg(long, default_value_t = 20, value_name = "EVENTS")]
    limit: usize,
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct ReplayArgs {
    /// Only events of this Silver table, or `unrouted`: those that no table takes
    #[arg(long)]
    table: Option<String>,
    /// Only events with this code, e.g. malformed
    #[arg(long, value_parser = code)]
    code: Option<RejectCode>,
}

/// Why an event is in the quarantine.
#[derive(Clone, Copy, Debug)]
enum RejectCode {
    OfTable(Code),
    Unrouted(UnroutedReason),
}

impl RejectCode {
    fn as_str(self) -> &'static str {
        match self {
            Self::OfTable(code) => code.as_str(),
            Self::Unrouted(reason) => reason.as_str(),
        }
    }
}

fn code(text: &str) -> Result<RejectCode, String> {
    let code = Code::parse(text).map(RejectCode::OfTable);
    code.or_else(|| UnroutedReason::parse(text).map(RejectCode::Unrouted)).ok_or_else(|| {
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        let reasons: Vec<_> = UnroutedReason::ALL.iter().map(|reason| reason.as_str()).collect();
        let (codes, reasons) = (codes.join(", "), reasons.join(", "));
        format!("no such code; expected one of {codes}, or of {reasons} for an event that no table takes")
    })
}

pub async fn quarantine(file: &Path, command: QuarantineCommand, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    match command {
        QuarantineCommand::List(args) => list(&setup, args).await,
        QuarantineCommand::Show { id } => show(&setup, &id).await,
        QuarantineCommand::Replay(args) => replay(&setup, args, stop).await,
    }
}

/// Characters of a reason that a list shows.
const REASON_CHARS_MAX: usize = 80;

async fn list(setup: &Setup, args: ListArgs) -> anyhow::Result<()> {
    if !exists(setup) {
        out!("{}", if args.json { "[]" } else { "no event was ever rejected" });
        return Ok(());
    }
    let mut wanted = vec!["true".to_owned()];
    if let Some(table) = &args.table {
        check_table(setup, table)?;
        wanted.push(format!("\"table\" = '{table}'"));
    }
    wanted.extend(args.code.map(|code| format!("code = '{}'", code.as_str())));
    if !args.all {
        wanted.push("resolved_at is null".to_owned());
    }
    let (wanted, limit) = (wanted.join(" and "), args.limit);
    let reason = if args.json { "reason".to_owned() } else { format!("left(reason, {REASON_CHARS_MAX})") };
    // Of one topic, the partition and the offset suffice.
    let topic = if setup.pipeline.source.topics.single().is_some() { "" } else { "topic || '/' || " };
    let events = format!(
        "select \"table\" || '/' || {topic}partition || '/' || \"offset\" as id, code, {reason} as reason, left(plugin_digest, \
         12) as plugin, date_trunc('second', quarantined_at) as quarantined_at, resolution from quarantine where {wanted} \
         order by quarantined_at desc, partition, \"offset\" limit {limit}"
    );
    if args.json {
        return query::print(setup, &events, true).await;
    }
    let found = query::collect(setup, &events).await?;
    if found.iter().all(|batch| batch.num_rows() == 0) {
        out!("no unresolved events; --all lists the resolved ones, too");
        return Ok(());
    }
    query::print(
        setup,
        &format!(
            "select \"table\", code, count(*) as events, count(resolved_at) as resolved from quarantine where {wanted} \
             group by 1, 2 order by events desc"
        ),
        false,
    )
    .await?;
    query::print(setup, &events, false).await
}

async fn show(setup: &Setup, id: &str) -> anyhow::Result<()> {
    let parts: Vec<&str> = id.split('/').collect();
    let (table, topic, position) = match parts[..] {
        [table, partition, offset] => (table, None, partition.parse::<i32>().ok().zip(offset.parse::<i64>().ok())),
        [table, topic, partition, offset] => {
            (table, Some(topic), partition.parse::<i32>().ok().zip(offset.parse::<i64>().ok()))
        }
        _ => ("", None, None),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let Some((partition, offset)) = position.filter(|_| topic.is_none_or(|topic| topic.chars().all(is_name))) else {
        wrong_use!(
            "`{id}` is not an id: expected table/partition/offset, such as page_view/0/123, or table/topic/partition/offset. \
             `silverd quarantine list` shows ids"
        );
    };
    let topic = topic.map(|topic| format!("and topic = '{topic}' ")).unwrap_or_default();
    check_table(setup, table)?;
    if !exists(setup) {
        bail!("no event was ever rejected: there is no quarantine yet");
    }
    let sql = format!(
        "select * from quarantine where \"table\" = '{table}' and partition = {partition} and \"offset\" = {offset} {topic}\
         order by quarantined_at desc"
    );
    let batches = query::collect(setup, &sql).await?;
    let mut found = false;
    for batch in &printable(&batches)? {
        for row in 0..batch.num_rows() {
            found = true;
            print_event(batch, row)?;
        }
    }
    if !found {
        bail!("the quarantine has no event {id}; `silverd quarantine list --all` lists its events");
    }
    let once = if table == NO_TABLE { "a table takes it" } else { "the plugin accepts it" };
    out!("once {once}, run: silverd quarantine replay --table {table}");
    Ok(())
}

fn print_event(batch: &RecordBatch, row: usize) -> anyhow::Result<()> {
    let options = FormatOptions::default();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name();
        if ["value", "key"].contains(&name.as_str()) {
            let bytes = cast(column, &DataType::Binary)?;
            let bytes = bytes.as_binary::<i32>();
            let text = if bytes.is_null(row) { "null".to_owned() } else { readable(bytes.value(row)) };
            out!("{name:<15} {text}");
        } else if column.is_valid(row) {
            out!("{name:<15} {}", inert(&ArrayFormatter::try_new(column, &options)?.value(row).to_string()));
        }
    }
    Ok(())
}

/// JSON is indented; of anything else, all bytes but printable ASCII are escaped.
fn readable(bytes: &[u8]) -> String {
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes)
        && let Ok(pretty) = serde_json::to_string_pretty(&json)
        && json.is_object()
    {
        return inert_lines(&format!("\n{pretty}"));
    }
    bytes.escape_ascii().to_string()
}

fn exists(setup: &Setup) -> bool {
    is_table(&setup.base_dir.join(&*setup.pipeline.quarantine.path))
}

/// Fails if rejected events cannot be of this table.
fn check_table(setup: &Setup, table: &str) -> anyhow::Result<()> {
    if table != NO_TABLE {
        setup.table(table)?;
    }
    Ok(())
}

async fn replay(setup: &Setup, args: ReplayArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let table = args.table.as_deref();
    let mut tables = match table {
        Some(NO_TABLE) => Vec::new(),
        table => setup.tables(table)?,
    };
    let (mut with_unrouted, code) = (table.is_none_or(|table| table == NO_TABLE), args.code.map(RejectCode::as_str));
    match args.code {
        Some(RejectCode::OfTable(_)) => with_unrouted = false,
        Some(RejectCode::Unrouted(_)) => tables.clear(),
        None => {}
    }
    if !exists(setup) {
        out!("no event was ever rejected");
        return Ok(());
    }
    let replay = async {
        for index in tables {
            replay_table(setup, index, code).await?;
        }
        if with_unrouted {
            replay_unrouted(setup, code, table.is_some() || code.is_some()).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = replay => done,
        () = stop.cancelled() => bail!("interrupted; what was replayed so far is committed, and a replay goes on from there"),
    }
}

async fn open_quarantine(setup: &Setup) -> anyhow::Result<SideOutput> {
    SideOutput::open(&KIND, setup.base_dir.join(&*setup.pipeline.quarantine.path)).await
}

/// Replays the unresolved events of a table, a part in each commit.
async fn replay_table(setup: &Setup, index: usize, code: Option<&str>) -> anyhow::Result<()> {
    let name = &setup.pipeline.silver[index].name;
    let quarantine = open_quarantine(setup).await?;
    let positions = QuarantinedEvents::positions(&quarantine, name, code).await.context("read the quarantine")?;
    let events = positions.len();
    if events == 0 {
        out!("{name}: no unresolved events");
        return Ok(());
    }
    let plugin = load_serving(setup, index).await?;
    let progress = Progress::new(name);
    let (mut done, mut resolved, mut counts) = (EventSet::default(), 0, Counts::default());
    loop {
        let part = QuarantinedEvents::read_part(&quarantine, name, code, &done).await.context("read the quarantine")?;
        if part.len() == 0 {
            break;
        }
        let before = done.len();
        let replayed = retry_on_conflict(name, async || {
            let correction = Correction::open(&setup.pipeline, &setup.base_dir, index, plugin.clone()).await?;
            correction.replay(&part, &mut |now, _| progress.show(before + now, events)).await
        });
        let summary = replayed.await?;
        done.merge(part.events());
        resolved += summary.resolved;
        counts += summary.counts;
    }
    progress.clear();
    out!("{name}: {resolved} of {events} events resolved ({} rows), {} rejected again", counts.rows, counts.rejected);
    Ok(())
}

/// Routes the unresolved events again that no table took. The tables that take them now transform them; an event is
/// marked once all of them have.
async fn replay_unrouted(setup: &Setup, code: Option<&str>, is_asked_for: bool) -> anyhow::Result<()> {
    let quarantine = open_quarantine(setup).await?;
    let positions = QuarantinedEvents::positions(&quarantine, NO_TABLE, code).await.context("read the quarantine")?;
    let events = positions.len();
    if events == 0 {
        if is_asked_for {
            out!("{NO_TABLE}: no unresolved events");
        }
        return Ok(());
    }
    let silver = &setup.pipeline.silver;
    let (router, mut plugins) = (Router::new(silver), BTreeMap::new());
    let progress = Progress::new(NO_TABLE);
    let (mut done, mut taken, mut rejected, mut rows) = (EventSet::default(), 0, 0, 0);
    loop {
        let part = QuarantinedEvents::read_part(&quarantine, NO_TABLE, code, &done).await;
        let part = part.context("read the quarantine")?;
        if part.len() == 0 {
            break;
        }
        let (before, mut resolved) = (done.len(), Resolved::default());
        for (index, table) in silver.iter().enumerate() {
            // A table that silverd has still to create takes all events from Bronze.
            let exists = is_table(&setup.base_dir.join(&*table.path));
            if !exists || part.routed_to(&router, index, None)?.len() == 0 {
                continue;
            }
            let plugin = match plugins.get(&index) {
                Some(plugin) => Arc::clone(plugin),
                None => plugins.entry(index).or_insert(load_serving(setup, index).await?).clone(),
            };
            let replayed = retry_on_conflict(&table.name, async || {
                let correction = Correction::open(&setup.pipeline, &setup.base_dir, index, plugin.clone()).await?;
                correction.replay_unrouted(&part, &mut |now, _| progress.show(before + now, events)).await
            });
            let (summary, of_table) = replayed.await?;
            resolved.merge(of_table);
            rows += summary.counts.rows;
        }
        let mark = resolved.mark(&quarantine, NO_TABLE).await;
        mark.context("mark resolved events in the quarantine")?;
        taken += resolved.len() - resolved.rejected();
        rejected += resolved.rejected();
        done.merge(part.events());
    }
    progress.clear();
    out!(
        "{NO_TABLE}: {taken} of {events} events resolved ({rows} rows), {rejected} rejected by their tables, under which the \
         quarantine has them now; the others match no table, or their table has not read them from bronze yet"
    );
    Ok(())
}
