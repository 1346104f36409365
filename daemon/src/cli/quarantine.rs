//! `silverd quarantine`: what waits there, one event in full, and the same events under the plugin of today.

use std::path::Path;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use silverd_core::verdict::Code;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::query;
use super::rebuild::load;
use super::setup::Setup;
use crate::correct::{Correction, undisturbed, waiting};
use crate::quarantine::KIND;
use crate::side::SideTable;

#[derive(clap::Subcommand, Debug)]
pub enum QuarantineCommand {
    /// List the rejected events, the newest first, and count them by table and code
    List(ListArgs),
    /// Show one event in full, by its id: table/partition/offset
    Show {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Hand the waiting events to the plugins of today: those that pass become rows, once, and are marked as resolved
    Replay(ReplayArgs),
}

#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Only events that were meant for this Silver table
    #[arg(long)]
    table: Option<String>,
    /// Only this kind of fault, e.g. malformed
    #[arg(long, value_parser = code)]
    code: Option<Code>,
    /// Resolved ones, too
    #[arg(long)]
    all: bool,
    #[arg(long, default_value_t = 20, value_name = "EVENTS")]
    limit: usize,
    /// Answer as one JSON array of objects
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct ReplayArgs {
    /// Only events that were meant for this Silver table
    #[arg(long)]
    table: Option<String>,
    /// Only this kind of fault, e.g. malformed
    #[arg(long, value_parser = code)]
    code: Option<Code>,
}

fn code(text: &str) -> Result<Code, String> {
    let codes = Code::ALL.iter().find(|code| code.as_str() == text).copied();
    codes.ok_or_else(|| {
        let all: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        format!("no such code; the codes are {}", all.join(", "))
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

/// How much of a reason a list shows.
const REASON_CHARS_MAX: usize = 80;

async fn list(setup: &Setup, args: ListArgs) -> anyhow::Result<()> {
    if !is_there(setup) {
        println!("{}", if args.json { "[]" } else { "nothing was ever rejected" });
        return Ok(());
    }
    let mut wanted = vec!["true".to_owned()];
    if let Some(table) = &args.table {
        setup.table(table)?;
        wanted.push(format!("\"table\" = '{table}'"));
    }
    wanted.extend(args.code.map(|code| format!("code = '{}'", code.as_str())));
    if !args.all {
        wanted.push("resolved_at is null".to_owned());
    }
    let (wanted, limit) = (wanted.join(" and "), args.limit);
    let reason = if args.json { "reason".to_owned() } else { format!("left(reason, {REASON_CHARS_MAX})") };
    let events = format!(
        "select \"table\" || '/' || partition || '/' || \"offset\" as id, code, {reason} as reason, left(plugin_digest, \
         12) as plugin, date_trunc('second', quarantined_at) as quarantined_at, resolution from quarantine where {wanted} \
         order by quarantined_at desc, partition, \"offset\" limit {limit}"
    );
    if args.json {
        return query::print(setup, &events, true).await;
    }
    let (_, found) = query::answer(setup, &events).await?;
    if found.iter().all(|batch| batch.num_rows() == 0) {
        println!("nothing waits here; --all shows what was resolved");
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
    let place = match parts[..] {
        [table, partition, offset] => {
            partition.parse::<i32>().ok().zip(offset.parse::<i64>().ok()).map(|at| (table, at))
        }
        _ => None,
    };
    let Some((table, (partition, offset))) = place else {
        bail!(
            "`{id}` is no id: expected table/partition/offset, such as page_view/0/123. `silverd quarantine list` shows them"
        );
    };
    setup.table(table)?;
    if !is_there(setup) {
        bail!("nothing was ever rejected: there is no quarantine yet");
    }
    let sql = format!(
        "select * from quarantine where \"table\" = '{table}' and partition = {partition} and \"offset\" = {offset} order \
         by quarantined_at desc"
    );
    let (_, batches) = query::answer(setup, &sql).await?;
    let mut found = false;
    for batch in &batches {
        for row in 0..batch.num_rows() {
            found = true;
            print_event(batch, row)?;
        }
    }
    if !found {
        bail!("the quarantine has no event {id}; `silverd quarantine list --all` shows what it has");
    }
    println!("once the plugin takes it: silverd quarantine replay --table {table}");
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
            println!("{name:<15} {text}");
        } else if column.is_valid(row) {
            println!("{name:<15} {}", ArrayFormatter::try_new(column, &options)?.value(row));
        }
    }
    Ok(())
}

/// JSON is laid out; what is no text is shown with its bytes escaped.
fn readable(bytes: &[u8]) -> String {
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes)
        && let Ok(pretty) = serde_json::to_string_pretty(&json)
        && json.is_object()
    {
        return format!("\n{pretty}");
    }
    bytes.escape_ascii().to_string()
}

fn is_there(setup: &Setup) -> bool {
    setup.base.join(&*setup.pipeline.quarantine.path).join("_delta_log").is_dir()
}

async fn replay(setup: &Setup, args: ReplayArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let tables = setup.tables(args.table.as_deref())?;
    if !is_there(setup) {
        println!("nothing was ever rejected");
        return Ok(());
    }
    for index in tables {
        let name = &setup.pipeline.silver[index].name;
        tokio::select! {
            done = undisturbed(name, async || replay_table(setup, index, args.code).await) => done?,
            () = stop.cancelled() => bail!("stopped: what was not told as done waits in the quarantine as before"),
        }
    }
    Ok(())
}

async fn replay_table(setup: &Setup, index: usize, code: Option<Code>) -> anyhow::Result<()> {
    let name = &setup.pipeline.silver[index].name;
    let path = setup.base.join(&*setup.pipeline.quarantine.path);
    let side = SideTable::open(&KIND, path).await?;
    let waiting = waiting(&side, name, code.map(Code::as_str)).await.context("read the quarantine")?;
    let events = waiting.places.len();
    if events == 0 {
        println!("{name}: nothing waits");
        return Ok(());
    }
    let plugin = load(setup, index).await?;
    let correction = Correction::open(&setup.pipeline, &setup.base, index, plugin).await?;
    let progress = Progress::new(name);
    let result = correction.replay(waiting, &mut |done, total| progress.show(done, total)).await;
    progress.clear();
    let outcome = result?;
    println!(
        "{name}: {} of {events} events resolved ({} rows), {} rejected again",
        outcome.resolved, outcome.counts.rows, outcome.counts.rejected
    );
    Ok(())
}
