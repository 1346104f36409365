//! From pipeline.toml on disk to a checked pipeline.

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use silverd_core::config::{self, Mistake, Mistakes, Pipeline, SilverTable};

use crate::reload::Print;
use crate::silver::{Blame, Loaded, fits, load_plugin};
use crate::sql::{self, Tables};
use crate::transform::{Host, this_program};

/// Mistakes in pipeline.toml, told with their places.
#[derive(Debug)]
pub struct Mistaken {
    text: String,
    count: usize,
    file: PathBuf,
}

impl fmt::Display for Mistaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "mistake" } else { "mistakes" };
        writeln!(f, "{}\n{}: {} {plural}", self.text.trim_end(), self.file.display(), self.count)
    }
}

impl std::error::Error for Mistaken {}

/// A checked pipeline and where it came from.
pub struct Setup {
    pub pipeline: Pipeline,
    /// The folder of pipeline.toml, from which its paths count.
    pub base: PathBuf,
    /// How the file looked before it was read: whoever follows it begins from there, and misses nothing.
    pub print: Print,
    file: PathBuf,
    text: String,
}

impl Setup {
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let place = std::path::absolute(file)?;
        let print = Print::of([&place]);
        let text = std::fs::read_to_string(file).with_context(|| {
            format!(
                "read {} (name another file with --config, or run silverd in the folder that has it)",
                file.display()
            )
        })?;
        let pipeline = config::check(&text, &|name| std::env::var(name).ok())
            .map_err(|mistakes| mistaken(&mistakes, file, &text))?;
        let base = place.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { pipeline, base, print, file: file.to_path_buf(), text })
    }

    /// The place of a Silver table in pipeline.toml.
    pub fn table(&self, name: &str) -> anyhow::Result<usize> {
        let tables = &self.pipeline.silver;
        tables.iter().position(|table| *table.name == *name).ok_or_else(|| {
            let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
            anyhow!("{} has no [silver.{name}]; its Silver tables are {}", self.file.display(), names.join(", "))
        })
    }

    /// The place of that table, or those of all.
    pub fn tables(&self, name: Option<&str>) -> anyhow::Result<Vec<usize>> {
        match name {
            Some(name) => Ok(vec![self.table(name)?]),
            None => Ok((0..self.pipeline.silver.len()).collect()),
        }
    }

    /// Makes the tables anew under another folder; plugins and reference data stay where they are.
    pub fn relocate(&mut self, out: &Path) {
        let base = &self.base;
        let pipeline = &mut self.pipeline;
        for table in &mut pipeline.silver {
            table.plugin.value = base.join(&*table.plugin).display().to_string();
            for path in table.reference.values_mut() {
                path.value = base.join(&**path).display().to_string();
            }
        }
        self.base = out.to_path_buf();
        let tables = pipeline.silver.iter_mut().map(|table| &mut table.path);
        for path in tables.chain([&mut pipeline.bronze.path, &mut pipeline.quarantine.path, &mut pipeline.late.path]) {
            // An absolute path must not lead out of the folder.
            path.value = path.trim_start_matches('/').to_owned();
        }
    }

    /// What plugins run in, with the folder of `[state]`.
    pub fn host(&self) -> anyhow::Result<Arc<Host>> {
        Host::with_state(&self.base.join(&*self.pipeline.state.path), &this_program())
    }

    /// Loads every plugin, building those that must be built; tells all that cannot fill their tables at once.
    ///
    /// Works for as long as it takes, on the thread that it is called on.
    pub fn load_plugins(&self, host: &Arc<Host>) -> anyhow::Result<Loaded> {
        self.load_plugins_of(host, |_| true)
    }

    /// The same for some tables.
    pub fn load_plugins_of(&self, host: &Arc<Host>, of: impl Fn(&SilverTable) -> bool) -> anyhow::Result<Loaded> {
        let runtime = tokio::runtime::Handle::current();
        let limits = self.pipeline.limits.clone();
        let (mut mistakes, mut loaded) = (Vec::new(), Loaded::new());
        for table in self.pipeline.silver.iter().filter(|table| of(table)) {
            let loaded_plugin = load_plugin(table, &self.base, host.clone(), limits.clone())
                .and_then(|plugin| runtime.block_on(fits(table, &plugin, &self.base)).map(|()| plugin));
            match loaded_plugin {
                Ok(plugin) => {
                    loaded.insert(table.name.clone(), Arc::new(plugin));
                }
                Err(failure) => mistakes.push(mistake_at(table, &failure)),
            }
        }
        if mistakes.is_empty() {
            Ok(loaded)
        } else {
            Err(mistaken(&Mistakes::from(mistakes), &self.file, &self.text).into())
        }
    }
}

impl Setup {
    /// Tells SQL that cannot be read, or asks for tables that there are not. A running silverd goes on without it.
    pub fn check_sql(&self) -> anyhow::Result<()> {
        let tables = Tables::new(&self.pipeline, &self.base, Arc::default());
        let gold = self.pipeline.gold.iter().map(|gold| (format!("gold.{}", gold.name), &gold.sql, true));
        let panels = self.pipeline.panels.iter().map(|panel| (format!("panel.{}", panel.name), &panel.sql, false));
        let mistakes = gold.chain(panels).filter_map(|(title, sql, of_gold)| {
            let failure = sql::check(&tables, sql, of_gold).err()?;
            Some(Mistake::new(sql.span.clone(), format!("[{title}] {failure}"), "this SQL", None))
        });
        let mistakes: Vec<_> = mistakes.collect();
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(mistaken(&Mistakes::from(mistakes), &self.file, &self.text).into())
    }
}

/// A plugin's failure as a mistake, at the place in pipeline.toml that is at fault.
fn mistake_at(table: &SilverTable, failure: &anyhow::Error) -> Mistake {
    let plugin = &table.plugin.span;
    let (span, label) = match failure.downcast_ref::<Blame>() {
        Some(Blame::EventDate) => (&table.event_date.span, "this column"),
        Some(Blame::Dedup) => (table.dedup.as_ref().map_or(plugin, |dedup| &dedup.by.span), "these columns"),
        Some(Blame::Reference(name)) => (table.reference.get(name).map_or(plugin, |file| &file.span), "this file"),
        None => (plugin, "this plugin"),
    };
    Mistake::new(span.clone(), format!("[silver.{}] {failure:#}", table.name), label, None)
}

pub(super) fn mistaken(mistakes: &Mistakes, file: &Path, text: &str) -> Mistaken {
    let color = std::io::stderr().is_terminal();
    Mistaken {
        text: mistakes.render(&file.display().to_string(), text, color),
        count: mistakes.len(),
        file: file.to_path_buf(),
    }
}

/// `silverd check`.
pub async fn check(file: &Path) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let load = move || setup.host().and_then(|host| Ok((setup.load_plugins(&host)?, setup)));
    let (loaded, setup) = tokio::task::spawn_blocking(load).await??;
    for table in &setup.pipeline.silver {
        let Some(plugin) = loaded.get(&table.name) else { continue };
        let (schema, digest) = (&plugin.schema, &plugin.digest);
        println!("{}: {} {digest}, {} columns", table.name, schema.interface, schema.columns.len());
    }
    setup.check_sql()?;
    println!("{}: no mistakes", file.display());
    Ok(())
}
