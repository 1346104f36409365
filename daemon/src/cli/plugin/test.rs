//! `silverd plugin test`: a plugin's cases, through the real component.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{bail, ensure};
use silverd_core::config::SilverTable;

use super::case::{Case, CaseFile, Fate};
use super::counted;
use super::diff::differences;
use super::measure::{cost, fate_of};
use super::subject::Subject;
use crate::cli::setup::Setup;
use crate::transform::Transformer;

#[derive(clap::Args, Debug)]
pub struct TestArgs {
    /// Folders of plugins, or tables of pipeline.toml; none: every plugin of pipeline.toml that has cases
    plugins: Vec<String>,
    /// The table whose settings and reference files the plugin gets, if it is not the one that has this plugin
    #[arg(long)]
    table: Option<String>,
    /// Write what the plugin makes of the events into the cases: read the diff
    #[arg(long)]
    update: bool,
}

/// What came of a plugin's cases.
pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
}

pub fn test(config: &Path, args: &TestArgs) -> anyhow::Result<()> {
    let plugins = if args.plugins.is_empty() { with_cases(config)? } else { args.plugins.clone() };
    let (mut passed, mut failed) = (0, 0);
    for plugin in &plugins {
        let subject = Subject::find(config, plugin, args.table.as_deref())?;
        let outcome = tokio::task::block_in_place(|| test_one(&subject, args.update))?;
        passed += outcome.passed;
        failed += outcome.failed;
    }
    if failed > 0 {
        bail!(
            "{failed} of {} failed; if the plugin is right, run `silverd plugin test --update`, and read the diff",
            counted((passed + failed) as u64, "case")
        );
    }
    Ok(())
}

fn with_cases(config: &Path) -> anyhow::Result<Vec<String>> {
    let setup = Setup::read(config)?;
    let has = |table: &&SilverTable| setup.base.join(&**table.plugin).join("cases").is_dir();
    let names: Vec<_> = setup.pipeline.silver.iter().filter(has).map(|table| table.name.to_string()).collect();
    ensure!(!names.is_empty(), "no plugin of pipeline.toml has a folder cases/; `silverd plugin new` shows one");
    Ok(names)
}

/// Runs a plugin's cases and tells of each.
pub fn test_one(subject: &Subject, update: bool) -> anyhow::Result<Outcome> {
    let files = CaseFile::all(&subject.path)?;
    ensure!(
        files.iter().any(|file| !file.cases.is_empty()),
        "{} has no cases: write {{ \"event\": {{ … }} }} into {} and run `silverd plugin test {} --update`",
        subject.name,
        subject.path.join("cases/first.json").display(),
        subject.name
    );
    let plugin = Arc::new(subject.load()?);
    let columns: Vec<_> = plugin.schema.columns.iter().map(|column| column.name.clone()).collect();
    println!("{}: {} {}", subject.name, plugin.schema.interface, plugin.digest);
    let (mut transformer, mut outcome) = (Transformer::new(plugin.clone()), Outcome { passed: 0, failed: 0 });
    for file in &files {
        let mut fates = Vec::with_capacity(file.cases.len());
        for case in &file.cases {
            let begun = Instant::now();
            let found = fate_of(&mut transformer, case)?;
            let took = begun.elapsed().as_secs_f64() * 1e3;
            let wrong = match &case.expected {
                Some(expected) => differences(expected, &found, &columns),
                None => vec!["nothing is expected yet: run with --update".to_owned()],
            };
            let good = wrong.is_empty() || update;
            println!("  {:<6} {:<40} {took:>8.2} ms", if good { "ok" } else { "FAILED" }, case.name);
            if good {
                outcome.passed += 1;
            } else {
                outcome.failed += 1;
                tell(case, &wrong);
            }
            fates.push(keep(case, found, wrong.is_empty()));
        }
        if update {
            file.write(&fates, &columns)?;
        }
    }
    let cases: Vec<&Case> = files.iter().flat_map(|file| &file.cases).collect();
    match cost(&plugin, &cases) {
        Ok(cost) => println!("  {}", cost.told(&subject.limits)),
        Err(failure) => println!("  not measured: {failure:#}"),
    }
    Ok(outcome)
}

/// What an update writes: an expectation that holds stays as its author wrote it.
fn keep(case: &Case, found: Fate, holds: bool) -> Fate {
    match &case.expected {
        Some(expected) if holds => expected.clone(),
        _ => found,
    }
}

fn tell(case: &Case, wrong: &[String]) {
    const EVENT_CHARS_MAX: usize = 200;
    let event = case.value.as_deref().map_or("none".into(), String::from_utf8_lossy);
    let event = event.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = event.floor_char_boundary(EVENT_CHARS_MAX);
    println!("         event {}{}", &event[..cut], if cut < event.len() { " …" } else { "" });
    for line in wrong {
        println!("         {line}");
    }
}
