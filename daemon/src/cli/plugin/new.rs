//! `silverd plugin new`: a plugin in Rust that builds at once and passes its own cases.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use silverd_core::config::{self, TableName};

use super::scaffold::{Names, package_of, with_member};
use crate::cli::setup::mistaken;

#[derive(clap::Args, Debug)]
pub struct NewArgs {
    /// The table that it fills: small letters, digits and `_`
    name: String,
    /// The events that it takes, by the value of the field that routes them [default: the table's name]
    #[arg(long, value_name = "VALUE")]
    event_type: Option<String>,
    /// Add its section to pipeline.toml
    #[arg(long)]
    add: bool,
}

pub fn new(config: &Path, args: &NewArgs) -> anyhow::Result<()> {
    let base = std::path::absolute(config)?.parent().map(Path::to_path_buf).unwrap_or_default();
    let Some(name) = TableName::new(&args.name) else {
        bail!(
            "`{}` cannot be the name of a table: expected a small letter, then small letters, digits and `_`",
            args.name
        )
    };
    let workspace = workspace(&base)?;
    let text = if config.exists() { Some(std::fs::read_to_string(config)?) } else { None };
    let env = |name: &str| std::env::var(name).ok();
    let pipeline = text.as_deref().and_then(|text| config::check(text, &env).ok());
    let field = pipeline.iter().flat_map(|pipeline| &pipeline.silver).map(|table| table.matches.field.clone()).next();
    let names = Names {
        table: &name,
        field: field.as_deref().unwrap_or("event_type"),
        event_type: args.event_type.as_deref().unwrap_or(&name),
        package: package_of(&base.join("wit/silver")),
    };
    names.check()?;
    let files = names.files();
    if let Some(file) = files.iter().find(|file| base.join(&file.path).exists()) {
        bail!("{} is there already: take another name, or remove it", file.path.display());
    }
    // What is to be added is checked before anything is made.
    let added = if args.add { Some(with_section(config, text.as_deref(), &names.section())?) } else { None };
    let manifest = std::fs::read_to_string(&workspace)?;
    let manifest = with_member(&manifest, &name).with_context(|| workspace_help(&workspace))?;

    for file in &files {
        write(&base.join(&file.path), &file.text)?;
        println!("made     {}", file.path.display());
    }
    if let Some(manifest) = manifest {
        write(&workspace, &manifest)?;
        println!("changed  plugins/Cargo.toml: \"{name}\" is a member");
    }
    match added {
        Some(text) => {
            write(config, &text)?;
            println!("changed  {}: [silver.{name}] is added", config.display());
        }
        None => println!("\nAdd this to {} (`--add` does it):\n\n{}", config.display(), names.section()),
    }
    println!("Next: silverd plugin test plugins/{name}");
    Ok(())
}

/// The manifest of the plugins' workspace, which must have the SDK.
fn workspace(base: &Path) -> anyhow::Result<PathBuf> {
    let manifest = base.join("plugins/Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap_or_default();
    if !text.contains("silverd-plugin") || !base.join("wit/types.wit").is_file() {
        bail!(workspace_help(&manifest));
    }
    Ok(manifest)
}

fn workspace_help(manifest: &Path) -> String {
    format!(
        "a new plugin needs silverd's workspace of plugins beside pipeline.toml: {} with `members` and, under \
         [workspace.dependencies], `silverd-plugin = {{ path = \"sdk\" }}`; the SDK in plugins/sdk; and wit/types.wit. \
         Copy plugins/Cargo.toml, plugins/sdk and wit/types.wit from silverd's repository, or name its pipeline.toml by \
         --config",
        manifest.display()
    )
}

/// The text of pipeline.toml with a section more, which must be as right as before.
fn with_section(config: &Path, text: Option<&str>, section: &str) -> anyhow::Result<String> {
    let Some(text) = text else {
        bail!("there is no {} to add to; name it with --config, or leave --add out", config.display())
    };
    let title = section.lines().next().unwrap_or_default();
    if text.lines().any(|line| line.trim() == title) {
        bail!("{} has {title} already: leave --add out", config.display());
    }
    let added = format!("{}\n\n{section}", text.trim_end());
    match config::check(&added, &|name| std::env::var(name).ok()) {
        Ok(_) => Ok(added),
        Err(mistakes) => Err(mistaken(&mistakes, config, &added).into()),
    }
}

/// Writes a file whole, or not at all: the daemon may be watching.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let whole = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let unfinished = folder.join(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
        std::fs::write(&unfinished, text)?;
        if let Ok(found) = path.metadata() {
            std::fs::set_permissions(&unfinished, found.permissions())?;
        }
        std::fs::rename(&unfinished, path)
    };
    whole().with_context(|| format!("write {}", path.display()))
}
