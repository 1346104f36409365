//! `silverd plugin new`: creates a plugin in Rust, which builds as it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use silverd_core::config::{self, TableName};
use silverd_core::infer::Values;
use tokio_util::sync::CancellationToken;

use super::content::Content;
use super::from_events::parts_of_events;
use super::scaffold::{Names, package_of, with_member};
use crate::app::setup::invalid_config;
use crate::app::wrong_use;
use crate::runtime::atomic_write::atomic_write;
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct NewArgs {
    /// The table that it fills: lower-case letters, digits and `_`
    name: String,
    /// The events that it gets: the value of the field by which events are routed [default: the table's name]
    #[arg(long, value_name = "VALUE")]
    event_type: Option<String>,
    /// Also add its section to pipeline.toml
    #[arg(long)]
    add: bool,
    /// Make it of the newest events of its kind: those of this file, or else of Bronze, or else of the topic. Its row has the
    /// fields of the events, and its cases are some of them
    #[arg(long, value_name = "EVENTS.JSONL", num_args = 0..=1)]
    from_events: Option<Option<PathBuf>>,
    /// Leave values in the cases that look like a person's data, instead of masking them
    #[arg(long, requires = "from_events")]
    show_values: bool,
}

pub(super) async fn new(config: &Path, args: &NewArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let base_dir = std::path::absolute(config)?.parent().map(Path::to_path_buf).unwrap_or_default();
    let Some(name) = TableName::new(&args.name) else {
        wrong_use!(
            "`{}` is not a valid table name: expected a lower-case letter, then lower-case letters, digits and `_`",
            args.name
        )
    };
    let workspace = workspace(&base_dir)?;
    let text = if config.exists() { Some(std::fs::read_to_string(config)?) } else { None };
    let env = |name: &str| std::env::var(name).ok();
    let pipeline = text.as_deref().and_then(|text| config::check(text, &env).ok());
    let field = pipeline
        .iter()
        .flat_map(|pipeline| &pipeline.silver)
        .find_map(|table| table.matches.first_field().map(str::to_owned));
    let names = Names {
        table: &name,
        field: field.as_deref().unwrap_or("event_type"),
        event_type: args.event_type.as_deref().unwrap_or(&name),
        package: package_of(&base_dir.join("wit/silver")),
    };
    names.check()?;
    let content = match &args.from_events {
        Some(file) => {
            let values = if args.show_values { Values::Shown } else { Values::Masked };
            Content::of_events(parts_of_events(config, file.clone(), &names, values, stop).await?)
        }
        None => Content::example(&names),
    };
    let files = names.files(&content);
    if let Some(file) = files.iter().find(|file| base_dir.join(&file.path).exists()) {
        wrong_use!("{} already exists: choose another name, or remove it", file.path.display());
    }
    // Everything is checked before the first file is written.
    let added = if args.add { Some(with_section(config, text.as_deref(), &names.section(&content))?) } else { None };
    let manifest = std::fs::read_to_string(&workspace)?;
    let manifest = with_member(&manifest, &name).with_context(|| workspace_help(&workspace))?;

    for file in &files {
        atomic_write(&base_dir.join(&file.path), &file.text)?;
        out!("created  {}", file.path.display());
    }
    if let Some(manifest) = manifest {
        atomic_write(&workspace, &manifest)?;
        out!("changed  plugins/Cargo.toml: \"{name}\" is a member");
    }
    match added {
        Some(text) => {
            atomic_write(config, &text)?;
            out!("changed  {}: [silver.{name}] is added", config.display());
        }
        None => out!("\nAdd this to {} (`--add` does it):\n\n{}", config.display(), names.section(&content)),
    }
    match args.from_events {
        Some(_) => {
            out!("Next: silverd plugin test plugins/{name} --update, which writes the rows into its cases: read them")
        }
        None => out!("Next: silverd plugin test plugins/{name}"),
    }
    Ok(())
}

/// The manifest of the plugins' workspace, which must contain the SDK.
fn workspace(base_dir: &Path) -> anyhow::Result<PathBuf> {
    let manifest = base_dir.join("plugins/Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap_or_default();
    if !text.contains("silverd-plugin") || !base_dir.join("wit/types.wit").is_file() {
        bail!(workspace_help(&manifest));
    }
    Ok(manifest)
}

fn workspace_help(manifest: &Path) -> String {
    format!(
        "a new plugin needs silverd's workspace of plugins in the folder of pipeline.toml: {} with `members` and, under \
         [workspace.dependencies], `silverd-plugin = {{ path = \"sdk\" }}`; the SDK in plugins/sdk and plugins/values; \
         and wit/types.wit. Copy plugins/Cargo.toml, plugins/sdk, plugins/values and wit/types.wit from silverd's \
         repository, or give its pipeline.toml with --config",
        manifest.display()
    )
}

/// The text of pipeline.toml with the section added. The result must be valid.
fn with_section(config: &Path, text: Option<&str>, section: &str) -> anyhow::Result<String> {
    let Some(text) = text else {
        bail!(
            "{} does not exist, so nothing can be added to it: name the file with --config, or omit --add",
            config.display()
        )
    };
    let title = section.lines().next().unwrap_or_default();
    if text.lines().any(|line| line.trim() == title) {
        bail!("{} already has {title}: omit --add", config.display());
    }
    let added = format!("{}\n\n{section}", text.trim_end());
    match config::check(&added, &|name| std::env::var(name).ok()) {
        Ok(_) => Ok(added),
        Err(errors) => Err(invalid_config(&errors, config, &added).into()),
    }
}
