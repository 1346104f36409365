//! Pipelines on disk, each with the expected result in a file of the same name.
//!
//! `UPDATE_EXPECTED=1 cargo test -p silverd-core --test config` rewrites the expected results: read the diff.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use silverd_core::config::{self, ConfigError, ConfigErrors, Located, SilverTable, TableName, Transform};

/// The `pipeline.toml` at the top of the repository.
const REPOSITORY_PIPELINE: &str = include_str!("../../../pipeline.toml");

const PASSWORD: &str = "hunter2";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "BROKERS" => "kafka-1:9092,kafka-2:9092",
        "TOPIC" => "events.raw",
        "BAD_TOPIC" => "events raw",
        "SASL_PASSWORD" => PASSWORD,
        "EMPTY" => "",
        "PAGE_TOKEN" => "hunter2-hunter2-hunter2",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn valid_pipelines_are_read_as_expected() {
    for file in pipelines("valid") {
        let text = read(&file);
        let pipeline = config::check(&text, &env)
            .unwrap_or_else(|errors| panic!("{}\n{}", file.display(), errors.render("pipeline.toml", &text, false)));
        let meaning = format!("{pipeline:#?}\n");
        assert!(!meaning.contains(PASSWORD), "{}", file.display());
        compare(&file.with_extension("txt"), &meaning);
    }
}

#[test]
fn invalid_pipelines_are_reported_as_expected() {
    for file in pipelines("invalid") {
        let text = read(&file);
        let errors = config::check(&text, &env).expect_err(&file.display().to_string());
        assert_reported_well(&file, &text, &errors);
        let shown = errors.render("pipeline.toml", &text, false);
        assert!(!shown.contains(PASSWORD), "{} shows the password:\n{shown}", file.display());
        compare(&file.with_extension("err"), &shown);
    }
}

#[test]
fn old_pipelines_are_rewritten_and_keep_everything_else() {
    for file in pipelines("old") {
        let fixed = config::fix(&read(&file));
        compare(&file.with_extension("fixed"), &fixed.text);
        let mut notes = String::new();
        for (kind, found) in [("changed", &fixed.changes), ("remaining", &fixed.remaining)] {
            notes.extend(found.iter().map(|note| format!("{kind} {}: {}\n", note.line, note.message)));
        }
        let checked = config::check(&fixed.text, &env).map_or_else(|errors| errors.to_string(), |_| "valid".to_owned());
        notes.push_str(&format!("then: {checked}\n"));
        compare(&file.with_extension("changes"), &notes);
        assert_eq!(config::fix(&fixed.text).text, fixed.text, "{}", file.display());
    }
}

#[test]
fn the_repository_pipeline_is_valid() {
    let pipeline = config::check(REPOSITORY_PIPELINE, &|_| None).expect("pipeline.toml");
    assert_eq!(pipeline.source.brokers, "localhost:9092");
    let names: Vec<_> = pipeline.silver.iter().map(|table| table.name.to_string()).collect();
    assert_eq!(names, ["page_view", "add_to_cart", "order_placed"]);
    assert_eq!(&REPOSITORY_PIPELINE[pipeline.silver[0].transform.span().clone()], "\"plugins/page_view\"");
}

#[test]
fn a_comment_does_not_change_the_pipeline() {
    let moved = format!("# a comment\n\n{REPOSITORY_PIPELINE}");
    assert_eq!(config::check(REPOSITORY_PIPELINE, &env).ok(), config::check(&moved, &env).ok());
}

#[test]
fn errors_found_later_are_shown_in_the_same_form() {
    let pipeline = config::check(REPOSITORY_PIPELINE, &env).expect("pipeline.toml");
    let plugin_of = |table: &SilverTable| match &table.transform {
        Transform::Plugin(plugin) => plugin.clone(),
        Transform::Sql(_) => panic!("a plugin"),
    };
    let missing = |plugin: Located<String>| {
        let help = "build it: cargo component build --release".to_owned();
        ConfigError::new(plugin.span.clone(), format!("no plugin at `{}`", plugin.value), "no such file", Some(help))
    };
    let errors: Vec<_> = pipeline.silver.iter().rev().map(|table| missing(plugin_of(table))).collect();
    let shown = ConfigErrors::from(errors).render("pipeline.toml", REPOSITORY_PIPELINE, false);
    compare(&folder("found_later.err"), &shown);
}

#[test]
fn color_is_optional() {
    let errors = config::check("[sorce]\n", &env).expect_err("a wrong section");
    assert!(!errors.render("pipeline.toml", "[sorce]\n", false).contains('\x1b'));
    assert!(errors.render("pipeline.toml", "[sorce]\n", true).contains('\x1b'));
}

#[test]
fn a_span_outside_the_text_can_be_shown() {
    let errors = ConfigErrors::from(vec![
        ConfigError::new(900..950, "behind the end", "here", None),
        ConfigError::new(1..2, "within a letter", "here", None),
    ]);
    for text in ["", "\n", "ä", "password = 'ä'", "ä\r\nü"] {
        assert!(errors.render("pipeline.toml", text, false).contains("behind the end"), "{text:?}");
    }
}

#[test]
fn table_names_are_checked() {
    let longest = format!("a{}", "_".repeat(62));
    for name in ["a", "page_view", "a9", &longest] {
        assert_eq!(TableName::new(name).as_deref(), Some(name));
    }
    for name in
        ["", "A", "9a", "_a", "a-b", "ä", "bronze", "quarantine", "unrouted", "late", "gold", &format!("{longest}_")]
    {
        assert_eq!(TableName::new(name), None, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_has_a_result(text in "(?s).{0,200}") {
        check_any(&text);
    }

    #[test]
    fn any_toml_fragments_have_a_result(words in proptest::collection::vec(0..FRAGMENTS.len(), 0..40)) {
        check_any(&words.into_iter().map(|word| FRAGMENTS[word]).collect::<String>());
    }

    #[test]
    fn a_mutated_pipeline_has_a_result(
        which in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..30usize, 0..FRAGMENTS.len()), 1..5),
    ) {
        let files = pipelines("valid");
        let mut text: Vec<char> = read(&files[which.index(files.len())]).chars().collect();
        for (at, length, word) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, FRAGMENTS[word].chars());
        }
        check_any(&text.into_iter().collect::<String>());
    }

    /// In whatever way the line is broken.
    #[test]
    fn the_password_of_a_broken_line_is_not_shown(
        key in prop::sample::select(vec!["\"sasl.password\"", "sasl.password", "ssl.key.password", "'client.secret'"]),
        sign in prop::sample::select(vec![" = ", "=", ": ", " ", " == ", " = = ", " =\n"]),
        open in prop::sample::select(vec!["\"", "'", "", "\"\"\"", "'''", "\"\"\"\n", "[\"", "[\n\"", "{ a = \"", "\"\\q"]),
        close in prop::sample::select(vec!["\"", "'", "", "\"\"\"", "\n'''", "\"]", "\" }", "\" x"]),
        before in prop::sample::select(vec!["[source.kafka]\n", "[source.kafka\n", "[source]\n", "", "[source.kafka]\na = \n", "[source.kafka]\nkafka = { "]),
        after in prop::sample::select(vec!["", "\n[bronze]\npth = 1\n", "\nx", "\n\"sasl.password\" = \"again\"\n"]),
    ) {
        let text = format!("{before}{key}{sign}{open}{PASSWORD}{close}{after}");
        if let Err(errors) = config::check(&text, &env) {
            let shown = errors.render("pipeline.toml", &text, false);
            prop_assert!(!shown.contains(PASSWORD), "{text}\n{shown}");
        }
    }
}

const FRAGMENTS: [&str; 51] = [
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    " ",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "#",
    "\r\n",
    "\\",
    "\0",
    "ä",
    "-1",
    "99999999999999999999999999999999999999999",
    "0x7f",
    "1e9",
    "true",
    "1979-05-27",
    "inf",
    "${",
    "}",
    "${NONE}",
    "$${",
    ":-",
    "source",
    "kafka",
    "silver",
    "bronze",
    "path",
    "match",
    "settings",
    "password",
    "[source.kafka]\n",
    "[silver.a]\n",
    "\"64MiB\"",
    "topic = ",
    "event_date",
    "event_time",
    "expired",
    "interval_ms",
    "[commit]\n",
    "[[source]]\n",
    "\u{feff}",
];

/// Any text can be checked, its errors can be shown, and it can be fixed.
fn check_any(text: &str) {
    if let Err(errors) = config::check(text, &env) {
        assert_reported_well(Path::new("generated"), text, &errors);
        errors.render("pipeline.toml", text, false);
    }
    let fixed = config::fix(text).text;
    assert_eq!(config::fix(&fixed).text, fixed, "{text}");
}

fn assert_reported_well(file: &Path, text: &str, errors: &ConfigErrors) {
    assert!(!errors.is_empty(), "{}", file.display());
    assert!(errors.iter().is_sorted_by_key(|error| error.span.start), "{}", file.display());
    for error in errors.iter() {
        assert!(text.get(error.span.clone()).is_some(), "{}: {error:?}", file.display());
        assert!(!error.message.is_empty() && !error.label.is_empty(), "{}: {error:?}", file.display());
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn pipelines(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(kind)).expect("list the folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()))
}

fn compare(expected: &Path, found: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(expected, found).expect("write the expected result");
    }
    let expected_text = fs::read_to_string(expected).unwrap_or_default();
    assert!(expected_text == found, "{} contains\n{expected_text}\nbut the result is\n{found}", expected.display());
}
