//! `silverd plugin`: what a plugin's author works with.

mod case;
mod dev;
mod diff;
mod history;
mod inspect;
mod measure;
mod new;
mod rollback;
mod scaffold;
mod subject;
mod test;
mod try_out;

use std::path::Path;

use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

#[derive(Args, Debug)]
pub struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Subcommand, Debug)]
enum PluginCommand {
    /// Make a plugin in Rust: a package, its WIT file, its cases, and the section for pipeline.toml
    New(new::NewArgs),
    /// Show what a plugin declares, and whether it fits its table
    Inspect(inspect::InspectArgs),
    /// Run a plugin's cases through the real component
    Test(test::TestArgs),
    /// Run a plugin on the newest events of Bronze, and print what it makes of them; writes nothing
    Try(try_out::TryArgs),
    /// On each save: build, test, compare with the version that fills the table, and tell when it is taken up
    Dev(dev::DevArgs),
    /// Tell which plugin has written which offsets of a table, and when
    History(history::HistoryArgs),
    /// Let an earlier version fill a table again
    Rollback(rollback::RollbackArgs),
}

pub async fn plugin(config: &Path, args: PluginArgs, stop: CancellationToken) -> anyhow::Result<()> {
    match args.command {
        PluginCommand::New(args) => new::new(config, &args),
        PluginCommand::Inspect(args) => inspect::inspect(config, &args).await,
        PluginCommand::Test(args) => test::test(config, &args),
        PluginCommand::Try(args) => try_out::try_out(config, &args).await,
        PluginCommand::Dev(args) => dev::dev(config, &args, stop).await,
        PluginCommand::Rollback(args) => rollback::rollback(config, &args).await,
        PluginCommand::History(args) => history::history(config, &args).await,
    }
}

/// A table for people, of columns of text.
fn text_table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<String> {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use arrow::util::pretty::pretty_format_batches;

    let column = |at: usize| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[at]))) };
    let batch = RecordBatch::try_from_iter(header.iter().enumerate().map(|(at, name)| (*name, column(at))))?;
    Ok(pretty_format_batches(&[batch])?.to_string())
}

/// One of something, or several.
fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// Bytes, as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
