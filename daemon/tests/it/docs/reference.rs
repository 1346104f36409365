//! The tables of the manual against the code: keys and defaults of pipeline.toml, the help of every command, metrics, environment
//! variables, and the pages that messages name.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use silverd_core::config::{self, Pipeline};

use super::super::harness::{root, source_files};
use super::blocks::text_of;

const CONFIGURATION: &str = "docs/configuration.md";
const CLI: &str = "docs/cli.md";
const CLI_REFERENCE: &str = "docs/cli-reference.md";
const METRICS: &str = "docs/metrics.md";

/// A row of a table that describes a key.
struct KeyRow {
    /// Those of the heading above, without brackets: `silver.<name>`.
    sections: Vec<String>,
    /// The table of keys that these are in, if it is the value of a key.
    within: Option<String>,
    keys: Vec<String>,
    default: Option<String>,
    bounds: Option<String>,
}

/// The rows of all tables with a column `key`.
fn key_rows() -> Vec<KeyRow> {
    let (mut rows, mut sections, mut within, mut header) = (Vec::new(), Vec::new(), None, None);
    for line in text_of(Path::new(CONFIGURATION)).lines() {
        if let Some(title) = line.strip_prefix('#') {
            let title = title.trim_start_matches('#').replace("&lt;", "<").replace("&gt;", ">");
            within = None;
            sections = title.split(['[', ']']).skip(1).step_by(2).map(str::to_owned).collect();
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            header = header.filter(|_| line.starts_with("|--"));
            let of_key = line.strip_prefix('`').and_then(|line| line.strip_suffix("`:"));
            within = of_key.map(str::to_owned).or(within);
            continue;
        };
        let cells: Vec<&str> = cells.split(" | ").map(str::trim).collect();
        let Some(names) = &header else {
            header = Some(cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<String>>());
            continue;
        };
        let column = |name: &str| names.iter().position(|of| of == name).and_then(|at| cells.get(at)).copied();
        let Some(keys) = column("key") else { continue };
        let section = column("section").map(|section| vec![section.trim_matches(['`', '[', ']']).to_owned()]);
        rows.push(KeyRow {
            sections: section.unwrap_or_else(|| sections.clone()),
            within: within.clone(),
            keys: quoted_in(keys),
            default: column("default").map(str::to_owned),
            bounds: column("bounds").map(str::to_owned),
        });
    }
    rows
}

/// The texts in backticks.
fn quoted_in(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_is_described_and_every_description_has_a_key() {
    let (rows, text) = (key_rows(), text_of(Path::new(CONFIGURATION)));
    for (section, keys) in config::keys() {
        let of_section = rows.iter().filter(|row| row.sections.iter().any(|of| of == section));
        let described: BTreeSet<&str> = of_section.flat_map(|row| row.keys.iter().map(String::as_str)).collect();
        let known: BTreeSet<&str> = keys.into_iter().collect();
        let unknown: Vec<_> = described.difference(&known).collect();
        // A key may have a section of its own, and no row.
        let has_section = |key: &str| text.contains(&format!("[{section}.{key}]"));
        let missing: Vec<_> = known.difference(&described).filter(|key| !has_section(key)).collect();
        assert!(
            unknown.is_empty() && missing.is_empty(),
            "[{section}] in {CONFIGURATION}: {unknown:?}, without {missing:?}"
        );
    }
}

/// A pipeline with one section of each kind, and `line` in the given one.
fn pipeline_with(section: &str, line: &str) -> Result<Pipeline, String> {
    let text = [
        ("source", "brokers = \"localhost:9092\"\ntopic = \"events.raw\""),
        ("bronze", ""),
        ("silver.<name>", "plugin = \"plugins/t\"\nmatch = \"everything\"\nevent_time = \"ts\"\ndedup.by = [\"id\"]\ndedup.within = \"1m\""),
        ("quarantine", ""),
        ("late", ""),
        ("days", ""),
        ("state", ""),
        ("commit", ""),
        ("limits", ""),
        ("maintenance", ""),
        ("reload", ""),
        ("gold.<name>", "sql = \"SELECT event_date FROM t\""),
        ("panel.<name>", "sql = \"SELECT 1\""),
        ("notify.<name>", "webhook = \"https://localhost\"\nquiet_hours = \"22:00-07:00\""),
        ("alerts", ""),
        ("alert.<name>", "sql = \"SELECT 1 AS n\"\nwhen = \"n > 0\""),
        ("http", ""),
    ]
    .map(|(of, keys)| {
        let name = if of.starts_with("silver") { "t" } else { "other" };
        let line = if of == section { line } else { "" };
        format!("[{}]\n{keys}\n{line}\n", of.replace("<name>", name))
    })
    .concat();
    config::check(&text, &|_| None).map_err(|errors| errors.render("pipeline.toml", &text, false))
}

#[test]
fn described_defaults_and_bounds_are_those_of_the_code() {
    let (mut defaults, mut bounds) = (0, 0);
    for KeyRow { sections, within, keys, default, bounds: range } in key_rows() {
        let (Some(default), [section], [key]) = (default, &*sections, &*keys) else { continue };
        let key = &within.map_or_else(|| key.clone(), |within| format!("{within}.{key}"));
        let section = section.as_str();
        // `default` is one value, and not "required", "none" or what another key says.
        let value = match &*quoted_in(&default) {
            [value] if default == format!("`{value}`") => {
                value.replace("<name>", if section.starts_with("silver") { "t" } else { "other" })
            }
            _ => continue,
        };
        let of_code = pipeline_with(section, "").unwrap();
        let set = pipeline_with(section, &format!("{key} = {value}"))
            .unwrap_or_else(|error| panic!("[{section}] {key}: {error}"));
        assert!(set == of_code, "{CONFIGURATION}: the default of [{section}] {key} is not {value}");
        defaults += 1;
        let Some((low, high)) = range.as_deref().and_then(|range| range.split_once(" to ")) else { continue };
        for bound in [low, high] {
            let bound = match &*quoted_in(bound) {
                [value] if bound == format!("`{value}`") => value.clone(),
                _ => bound.replace(',', ""),
            };
            let is_value = bound.starts_with('"') || bound.parse::<u64>().is_ok();
            if is_value && let Err(error) = pipeline_with(section, &format!("{key} = {bound}")) {
                // Some bounds hold only together with another key.
                assert!(error.contains("at least"), "{CONFIGURATION}: the bound of [{section}] {key}: {error}");
            }
            bounds += usize::from(is_value);
        }
    }
    println!("{defaults} defaults and {bounds} bounds were compared");
    assert!(defaults >= 30 && bounds >= 30, "{defaults} defaults and {bounds} bounds were found in {CONFIGURATION}");
}

/// `silverd COMMAND --help`.
fn help(command: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_silverd")).args(command).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{command:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

/// The commands below one, as its help lists them.
fn commands_of(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn add_help(command: &[String], page: &mut String) {
    let text = help(command);
    let name = std::iter::once("silverd").chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let _ = write!(page, "\n## {name}\n\n```text excerpt\n{text}\n```\n");
    for below in commands_of(&text) {
        add_help(&[command, &[below]].concat(), page);
    }
}

/// `UPDATE_EXPECTED=1` writes the page.
#[test]
fn the_reference_of_commands_is_what_they_say() {
    let mut page = "# Command line reference\n\nThe help of every command, as `silverd COMMAND --help` prints it. A test writes this page; \
                    [cli.md](cli.md)\nexplains the commands.\n"
        .to_owned();
    add_help(&[], &mut page);
    let file = root().join(CLI_REFERENCE);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "{CLI_REFERENCE} is not what the commands say: run this test with UPDATE_EXPECTED=1");
    // Each command stands in the table of cli.md.
    let overview = text_of(Path::new(CLI));
    for command in commands_of(&help(&[])) {
        assert!(overview.contains(&format!("`silverd {command}")), "{CLI} has no `silverd {command}`");
    }
}

/// The text of the code that makes up the program, and its files.
fn sources() -> Vec<(PathBuf, String)> {
    let folders = ["daemon/src", "daemon/core/src", "daemon/bench/src", "plugins", "wit", "scripts", "deploy"];
    let files = folders.iter().flat_map(|folder| source_files(&root().join(folder)));
    files.filter_map(|file| Some((file.clone(), std::fs::read_to_string(file).ok()?))).collect()
}

/// The words of a text that begin with `prefix`.
fn words_with<'t>(text: &'t str, prefix: &'t str) -> impl Iterator<Item = &'t str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(move |letter| !is_part(letter)).filter(move |word| word.starts_with(prefix) && word.len() > prefix.len())
}

#[test]
fn every_described_metric_and_variable_exists() {
    let sources = sources();
    let exists = |word: &str| sources.iter().any(|(_, text)| text.contains(word));
    let metrics = text_of(Path::new(METRICS));
    let named =
        quoted_in(&metrics).into_iter().filter(|word| word.starts_with("silverd_") || word.starts_with("process_"));
    for metric in named {
        let family =
            metric.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
        assert!(exists(family), "{METRICS}: nothing serves {metric}");
    }
    let variables = text_of(Path::new(CLI));
    for variable in words_with(&variables, "SILVERD_") {
        assert!(exists(variable), "{CLI}: nothing reads {variable}");
    }
    // The simulation is a test, and CONTRIBUTING.md has the variables of tests.
    let is_test = |path: &Path| path.starts_with(root().join("daemon/src/simulation"));
    let daemon = sources.iter().filter(|(path, _)| path.starts_with(root().join("daemon/src")) && !is_test(path));
    for (path, text) in daemon.filter(|(path, _)| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_read = |variable: &&str| text.contains(&format!("\"{variable}\""));
        for variable in words_with(text, "SILVERD_").filter(is_read) {
            assert!(variables.contains(variable), "{}: {variable} is not in {CLI}", path.display());
        }
    }
}

/// Error messages and comments name pages of the manual.
#[test]
fn pages_that_the_code_names_exist() {
    for (path, text) in sources() {
        for (at, _) in text.match_indices("docs/") {
            let end = text[at..].find(|letter: char| !(letter.is_ascii_alphanumeric() || "/._-".contains(letter)));
            let named = text[at..].get(..end.unwrap_or(text.len() - at)).unwrap_or_default().trim_end_matches('.');
            if named.ends_with(".md") && !text[..at].ends_with('/') {
                assert!(root().join(named).is_file(), "{} names {named}", path.display());
            }
        }
    }
}
