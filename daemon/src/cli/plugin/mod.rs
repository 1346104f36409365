//! `silverd plugin`: the commands for authors of plugins.

mod content;
mod deploy;
mod dev;
mod from_events;
mod history;
mod input_text;
mod inspect;
mod list;
mod measure;
mod new;
mod scaffold;
mod selected;
mod test;
mod try_plugin;
mod wit;

use std::path::Path;

use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::arrow_table::arrow_table;

#[derive(Args, Debug)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Subcommand, Debug)]
enum PluginCommand {
    /// Create a plugin in Rust: package, WIT file, cases, and the section for pipeline.toml
    New(new::NewArgs),
    /// Show what a plugin declares, and whether it fits the existing table
    Inspect(inspect::InspectArgs),
    /// Run a plugin's cases through the real component
    Test(test::TestArgs),
    /// Run a plugin on the newest events of Bronze, and print the rows and rejects; writes nothing
    Try(try_plugin::TryArgs),
    /// On each save: build, run the cases, and compare with the current version; --deploy releases what passes
    Dev(dev::DevArgs),
    /// Show which version of a plugin wrote which offsets of a table, and when
    History(history::HistoryArgs),
    /// Deploy the newest build of a table's plugin, or an earlier version; a running silverd swaps at once
    Deploy(deploy::DeployArgs),
    /// Show which version of which plugin serves, and which is the newest build
    List(list::ListArgs),
    /// Print the WIT of a table with SQL, for a plugin that takes the table over
    Wit(wit::WitArgs),
}

pub(super) async fn plugin(config: &Path, args: PluginArgs, stop: CancellationToken) -> anyhow::Result<()> {
    match args.command {
        PluginCommand::New(args) => new::new(config, &args, stop).await,
        PluginCommand::Inspect(args) => inspect::inspect(config, &args).await,
        PluginCommand::Test(args) => test::test(config, &args),
        PluginCommand::Try(args) => try_plugin::try_plugin(config, &args).await,
        PluginCommand::Dev(args) => dev::dev(config, &args, stop).await,
        PluginCommand::History(args) => history::history(config, &args).await,
        PluginCommand::Deploy(args) => deploy::deploy(config, &args).await,
        PluginCommand::List(args) => list::list(config, &args).await,
        PluginCommand::Wit(args) => wit::wit(config, &args),
    }
}

/// A table of text, for a terminal.
pub(super) fn text_table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<String> {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};

    let column = |at: usize| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[at]))) };
    let batch = RecordBatch::try_from_iter(header.iter().enumerate().map(|(at, name)| (*name, column(at))))?;
    Ok(arrow_table(&[batch])?)
}

/// `1 event`, `2 events`.
fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// A size with its unit: `1.5 MiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
