//! `silverd plugin test`: runs a plugin's cases through the real component.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{bail, ensure};
use silverd_core::config::SilverTable;

use super::counted;
use super::measure::cost;
use super::selected::SelectedPlugin;
use crate::app::setup::Setup;
use crate::cases::{Case, CaseFile, cases_folder, differences, outcome_of};
use crate::plugin::{Source, Transformer};
use crate::runtime::inert::inert;
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct TestArgs {
    /// Folders of plugins, or tables of pipeline.toml [default: every plugin of pipeline.toml that has cases]
    plugins: Vec<String>,
    /// Use the settings and reference files of this table, instead of the one that uses the plugin
    #[arg(long)]
    table: Option<String>,
    /// Write the actual outcomes into the cases; read the diff afterwards
    #[arg(long)]
    update: bool,
}

/// How many of a plugin's cases passed and failed.
#[derive(Default)]
pub(super) struct TestResult {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

pub(super) fn test(config: &Path, args: &TestArgs) -> anyhow::Result<()> {
    let plugins = if args.plugins.is_empty() { plugins_with_cases(config)? } else { args.plugins.clone() };
    let mut total = TestResult::default();
    for plugin in &plugins {
        let selected = SelectedPlugin::find(config, plugin, args.table.as_deref())?;
        let result = tokio::task::block_in_place(|| test_one(&selected, args.update))?;
        total.passed += result.passed;
        total.failed += result.failed;
    }
    if total.failed > 0 {
        bail!(
            "{} of {} failed; if the plugin is right, run `silverd plugin test --update`, and read the diff",
            total.failed,
            counted((total.passed + total.failed) as u64, "case")
        );
    }
    Ok(())
}

/// Runs a plugin's cases and prints the result of each.
pub(super) fn test_one(selected: &SelectedPlugin, update: bool) -> anyhow::Result<TestResult> {
    let files = CaseFile::read_all(&selected.source)?;
    ensure!(
        files.iter().any(|file| !file.cases.is_empty()),
        "{} has no cases: write {{ \"event\": {{ … }} }} into {} and run `silverd plugin test {} --update`",
        selected.name,
        cases_folder(&selected.source).join("first.json").display(),
        selected.name
    );
    let plugin = Arc::new(selected.load()?);
    let columns: Vec<_> = plugin.schema.columns.iter().map(|column| column.name.clone()).collect();
    out!("{}: {} {}", selected.name, plugin.schema.interface, plugin.digest);
    let (mut transformer, mut result) = (Transformer::new(plugin.clone()), TestResult::default());
    for file in &files {
        let mut outcomes = Vec::with_capacity(file.cases.len());
        for case in &file.cases {
            let began = Instant::now();
            let found = outcome_of(&mut transformer, case)?;
            let ms = began.elapsed().as_secs_f64() * 1e3;
            let differences = match &case.expected {
                Some(expected) => differences(expected, &found, &columns),
                None => vec!["no outcome is expected yet: run with --update".to_owned()],
            };
            let passed = differences.is_empty() || update;
            out!("  {:<6} {:<40} {ms:>8.2} ms", if passed { "ok" } else { "FAILED" }, case.name);
            if passed {
                result.passed += 1;
            } else {
                result.failed += 1;
                print_differences(case, &differences);
            }
            outcomes.push(match &case.expected {
                // An expectation that is met stays as its author wrote it.
                Some(expected) if differences.is_empty() => expected.clone(),
                _ => found,
            });
        }
        if update {
            file.write(&outcomes, &columns)?;
        }
    }
    let cases: Vec<&Case> = files.iter().flat_map(|file| &file.cases).collect();
    match cost(&plugin, &cases) {
        Ok(cost) => out!("  {}", cost.describe(&selected.limits)),
        Err(failure) => out!("  not measured: {failure:#}"),
    }
    Ok(result)
}

fn plugins_with_cases(config: &Path) -> anyhow::Result<Vec<String>> {
    let setup = Setup::read(config)?;
    let has_cases = |table: &&SilverTable| cases_folder(&Source::of(table, &setup.base_dir)).is_dir();
    let names: Vec<_> = setup.pipeline.silver.iter().filter(has_cases).map(|table| table.name.to_string()).collect();
    ensure!(!names.is_empty(), "no table of pipeline.toml has cases; `silverd plugin new` creates an example");
    Ok(names)
}

fn print_differences(case: &Case, differences: &[String]) {
    const EVENT_BYTES_MAX: usize = 200;
    let event = case.value.as_deref().map_or("none".into(), String::from_utf8_lossy);
    let event = event.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = event.floor_char_boundary(EVENT_BYTES_MAX);
    out!("         event {}{}", inert(&event[..cut]), if cut < event.len() { " …" } else { "" });
    for line in differences {
        out!("         {}", inert(line));
    }
}
