//! Pipelines on disk beside what silverd must say of them.
//!
//! `UPDATE_EXPECTED=1 cargo test -p silverd-core --test config` writes the answers anew: read the diff.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use silverd_core::config::{self, Located, Mistake, Mistakes, TableName};

/// The real thing is valid, too: `pipeline.toml` at the top of the repository.
const SEED: &str = include_str!("../../../pipeline.toml");

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
fn valid_pipelines_mean_this() {
    for file in pipelines("valid") {
        let text = read(&file);
        let pipeline = config::check(&text, &env).unwrap_or_else(|mistakes| {
            panic!("{}\n{}", file.display(), mistakes.render("pipeline.toml", &text, false))
        });
        let meaning = format!("{pipeline:#?}\n");
        assert!(!meaning.contains(PASSWORD), "{}", file.display());
        compare(&file.with_extension("txt"), &meaning);
    }
}

#[test]
fn invalid_pipelines_are_told_like_this() {
    for file in pipelines("invalid") {
        let text = read(&file);
        let mistakes = config::check(&text, &env).expect_err(&file.display().to_string());
        assert_told_well(&file, &text, &mistakes);
        let shown = mistakes.render("pipeline.toml", &text, false);
        assert!(!shown.contains(PASSWORD), "{} gives the password away:\n{shown}", file.display());
        compare(&file.with_extension("err"), &shown);
    }
}

#[test]
fn the_seed_is_valid() {
    let pipeline = config::check(SEED, &|_| None).expect("pipeline.toml");
    assert_eq!(pipeline.source.brokers, "localhost:9092");
    let names: Vec<_> = pipeline.silver.iter().map(|table| table.name.to_string()).collect();
    assert_eq!(names, ["page_view", "add_to_cart", "order_placed"]);
    assert_eq!(&SEED[pipeline.silver[0].plugin.span.clone()], "\"plugins/page_view\"");
}

#[test]
fn a_comment_does_not_change_the_pipeline() {
    let moved = format!("# a comment\n\n{SEED}");
    assert_eq!(config::check(SEED, &env).ok(), config::check(&moved, &env).ok());
}

#[test]
fn mistakes_found_later_are_shown_alike() {
    let pipeline = config::check(SEED, &env).expect("pipeline.toml");
    let missing = |plugin: &Located<String>| {
        let help = "build it: cargo component build --release".to_owned();
        Mistake::new(plugin.span.clone(), format!("no plugin at `{}`", plugin.value), "no such file", Some(help))
    };
    let mistakes: Vec<_> = pipeline.silver.iter().rev().map(|table| missing(&table.plugin)).collect();
    let shown = Mistakes::from(mistakes).render("pipeline.toml", SEED, false);
    compare(&folder("found_later.err"), &shown);
}

#[test]
fn color_is_only_for_who_asks() {
    let mistakes = config::check("[sorce]\n", &env).expect_err("a wrong section");
    assert!(!mistakes.render("pipeline.toml", "[sorce]\n", false).contains('\x1b'));
    assert!(mistakes.render("pipeline.toml", "[sorce]\n", true).contains('\x1b'));
}

#[test]
fn spans_of_another_text_are_shown_somewhere() {
    let mistakes = Mistakes::from(vec![
        Mistake::new(900..950, "behind the end", "here", None),
        Mistake::new(1..2, "within a letter", "here", None),
    ]);
    for text in ["", "\n", "ä", "password = 'ä'", "ä\r\nü"] {
        assert!(mistakes.render("pipeline.toml", text, false).contains("behind the end"), "{text:?}");
    }
}

#[test]
fn names_of_tables() {
    let longest = format!("a{}", "_".repeat(62));
    for name in ["a", "page_view", "a9", &longest] {
        assert_eq!(TableName::new(name).as_deref(), Some(name));
    }
    for name in ["", "A", "9a", "_a", "a-b", "ä", "bronze", "quarantine", "late", "gold", &format!("{longest}_")] {
        assert_eq!(TableName::new(name), None, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_is_answered(text in "(?s).{0,200}") {
        answer(&text);
    }

    #[test]
    fn any_soup_of_toml_is_answered(words in proptest::collection::vec(0..SOUP.len(), 0..40)) {
        answer(&words.into_iter().map(|word| SOUP[word]).collect::<String>());
    }

    #[test]
    fn a_mutated_pipeline_is_answered(
        which in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..30usize, 0..SOUP.len()), 1..5),
    ) {
        let files = pipelines("valid");
        let mut text: Vec<char> = read(&files[which.index(files.len())]).chars().collect();
        for (at, length, word) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, SOUP[word].chars());
        }
        answer(&text.into_iter().collect::<String>());
    }

    /// However the line of a password is broken, the password does not show.
    #[test]
    fn a_broken_line_keeps_its_password(
        key in prop::sample::select(vec!["\"sasl.password\"", "sasl.password", "ssl.key.password", "'client.secret'"]),
        sign in prop::sample::select(vec![" = ", "=", ": ", " ", " == ", " = = ", " =\n"]),
        open in prop::sample::select(vec!["\"", "'", "", "\"\"\"", "'''", "\"\"\"\n", "[\"", "[\n\"", "{ a = \"", "\"\\q"]),
        close in prop::sample::select(vec!["\"", "'", "", "\"\"\"", "\n'''", "\"]", "\" }", "\" x"]),
        before in prop::sample::select(vec!["[source.kafka]\n", "[source.kafka\n", "[source]\n", "", "[source.kafka]\na = \n", "[source.kafka]\nkafka = { "]),
        after in prop::sample::select(vec!["", "\n[bronze]\npth = 1\n", "\nx", "\n\"sasl.password\" = \"again\"\n"]),
    ) {
        let text = format!("{before}{key}{sign}{open}{PASSWORD}{close}{after}");
        if let Err(mistakes) = config::check(&text, &env) {
            let shown = mistakes.render("pipeline.toml", &text, false);
            prop_assert!(!shown.contains(PASSWORD), "{text}\n{shown}");
        }
    }
}

const SOUP: [&str; 45] = [
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
    "\u{feff}",
];

/// Whatever the text, there is an answer, and it can be shown.
fn answer(text: &str) {
    if let Err(mistakes) = config::check(text, &env) {
        assert_told_well(Path::new("generated"), text, &mistakes);
        mistakes.render("pipeline.toml", text, false);
    }
}

fn assert_told_well(file: &Path, text: &str, mistakes: &Mistakes) {
    assert!(!mistakes.is_empty(), "{}", file.display());
    assert!(mistakes.iter().is_sorted_by_key(|mistake| mistake.span.start), "{}", file.display());
    for mistake in mistakes.iter() {
        assert!(text.get(mistake.span.clone()).is_some(), "{}: {mistake:?}", file.display());
        assert!(!mistake.message.is_empty() && !mistake.label.is_empty(), "{}: {mistake:?}", file.display());
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn pipelines(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(kind)).expect("list the pipelines");
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
        fs::write(expected, found).expect("write the answer");
    }
    let expected_text = fs::read_to_string(expected).unwrap_or_default();
    assert!(expected_text == found, "{} holds\n{expected_text}\nbut silverd says\n{found}", expected.display());
}
