//! The documentation: what can run in it is run, what it says of keys, commands and metrics is compared with the code, and
//! its links lead somewhere.

mod blocks;
mod links;
mod output;
mod page;
mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use silverd_core::config;

use blocks::{Block, Form, blocks_of, pages, text_of};
use page::{Brokers, PageRun};

/// The README's limit: it is the front door.
const README_LINES_MAX: usize = 220;

#[test]
fn every_block_has_a_known_form() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut errors = Vec::new();
    for page in pages() {
        let (blocks, wrong) = blocks_of(&page);
        errors.extend(wrong);
        for block in blocks {
            *counts.entry(block.form.name()).or_default() += 1;
            if matches!(block.form, Form::NoRun | Form::Excerpt) {
                println!("{}: {}", block.place, block.form.name());
            }
            if let Err(fault) = check(&block) {
                errors.push(format!("{}: {fault}", block.place));
            }
        }
    }
    println!("blocks: {counts:?}");
    assert!(errors.is_empty(), "{} errors:\n{}", errors.len(), errors.join("\n"));
}

/// Checks a block that needs no page to run in.
fn check(block: &Block) -> Result<(), String> {
    match &block.form {
        Form::Toml => check_toml(&block.text),
        Form::Json => {
            let mut values = serde_json::Deserializer::from_str(&block.text).into_iter::<Value>();
            values.try_for_each(|value| value.map(|_| ())).map_err(|fault| fault.to_string())
        }
        Form::ExcerptOf(page) => check_excerpt(&block.text, page),
        _ => Ok(()),
    }
}

/// Sections of pipeline.toml, with a `[source]` if they have none.
fn check_toml(text: &str) -> Result<(), String> {
    let has_source = text.lines().any(|line| line.trim() == "[source]");
    let source = if has_source { "" } else { "[source]\nbrokers = \"localhost:9092\"\ntopic = \"events.raw\"\n" };
    // Keys without a section come before the first one.
    let env = |name: &str| {
        Some(if name.ends_with("BROKERS") { "localhost:9092" } else { "a-value-of-some-length" }.to_owned())
    };
    let checked = config::check(&format!("{text}\n{source}"), &env);
    checked.map(|_| ()).map_err(|errors| errors.render("pipeline.toml", text, false))
}

/// Whether the lines of an excerpt stand in a page, in their order.
fn check_excerpt(text: &str, page: &Path) -> Result<(), String> {
    let whole = text_of(page);
    let mut lines = whole.lines().map(str::trim);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !lines.any(|of_page| of_page == line) {
            return Err(format!("{} has no such line, or not behind the one before: {line}", page.display()));
        }
    }
    Ok(())
}

#[test]
#[ignore = "takes minutes: `.ci/full pages`"]
fn the_blocks_of_the_manual_run() {
    run_pages(|page| page.starts_with("docs"));
}

#[test]
#[ignore = "takes minutes: `.ci/full pages`"]
fn the_blocks_of_the_readme_and_of_the_examples_run() {
    run_pages(|page| !page.starts_with("docs"));
}

/// Runs the pages, or those whose path contains `SILVERD_TEST_PAGE`.
fn run_pages(is_wanted: impl Fn(&Path) -> bool) {
    let only = std::env::var("SILVERD_TEST_PAGE").unwrap_or_default();
    let is_named = |page: &PathBuf| page.to_str().unwrap().contains(&only);
    let (brokers, mut failures, mut run) = (Brokers::start(), Vec::new(), 0);
    for page in pages().into_iter().filter(|page| is_wanted(page)).filter(is_named) {
        let (blocks, _) = blocks_of(&page);
        if !blocks.iter().any(|block| block.form.needs_page()) {
            continue;
        }
        if !brokers.suffice_for(&blocks) {
            println!("{}: skipped: it needs a Kafka (SILVERD_TEST_BROKERS)", page.display());
            continue;
        }
        let started = std::time::Instant::now();
        failures.extend(PageRun::start(&brokers).run(&blocks));
        run += blocks.iter().filter(|block| block.form.needs_page()).count();
        println!("{}: {:.1} s", page.display(), started.elapsed().as_secs_f64());
    }
    println!("{run} blocks were run");
    assert!(failures.is_empty(), "{} failures:\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn the_readme_is_short() {
    let lines = text_of(Path::new("README.md")).lines().count();
    assert!(
        lines <= README_LINES_MAX,
        "README.md has {lines} lines; what is beyond {README_LINES_MAX} belongs to docs/"
    );
}

#[test]
fn links_lead_somewhere() {
    let errors: Vec<String> = links::pages_with_links().flat_map(|page| links::broken_in(&page)).collect();
    assert!(errors.is_empty(), "{} broken links:\n{}", errors.len(), errors.join("\n"));
}
