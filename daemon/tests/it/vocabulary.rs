//! The names in this repository are the field's own. These words were private ones, and must not come back.

use super::harness::{root, source_files};

/// Words that stand nowhere: neither in prose and messages nor as a part of a name.
const OLD_WORDS: [&str; 49] = [
    "anew",
    "asker",
    "beside",
    "cadence",
    "calm",
    "complain",
    "complains",
    "crew",
    "desk",
    "fate",
    "fates",
    "hub",
    "hurry",
    "judge",
    "judged",
    "judges",
    "keeper",
    "keepers",
    "kit",
    "knock",
    "landed",
    "landing",
    "lent",
    "lies",
    "mistake",
    "mistaken",
    "mistakes",
    "overtaken",
    "patience",
    "probation",
    "prove",
    "proven",
    "proves",
    "rehearsal",
    "rush",
    "sides",
    "spares",
    "stranger",
    "strangers",
    "sweep",
    "sweeps",
    "swept",
    "tells",
    "tidies",
    "tidy",
    "told",
    "undisturbed",
    "verdict",
    "verdicts",
];

/// The same for sequences of words.
const OLD_PHRASES: [&str; 12] = [
    "by itself",
    "care for files",
    "held off",
    "hold off",
    "holds off",
    "in vain",
    "made anew",
    "mind the group",
    "own folder",
    "start over",
    "stays out",
    "step back",
];

/// The files that name old words for those who know them, and this one.
const EXEMPT: [&str; 5] = [
    "daemon/tests/it/vocabulary.rs",
    "daemon/core/src/config/renamed.rs",
    "daemon/src/cli/renamed.rs",
    "daemon/src/http/assets/chart.umd.min.js",
    "daemon/tests/it/fixtures/shop-events.jsonl",
];

#[test]
fn no_private_word_is_left() {
    let (mut files, mut found) = (0, Vec::new());
    for file in source_files(root()) {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if EXEMPT.contains(&name.as_str()) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&file) else { continue }; // a picture
        files += 1;
        for (number, line) in text.lines().enumerate() {
            for old in old_words_in(line) {
                found.push(format!("{name}:{}: `{old}` in: {}", number + 1, line.trim()));
            }
        }
        found.extend(old_words_in(&name).map(|old| format!("{name}: `{old}` in the file's name")));
    }
    assert!(files > 300, "only {files} files were read");
    assert!(found.is_empty(), "{} old words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn old_words_are_found_in_prose_and_in_names() {
    let check = |line: &str, expected: &[&str]| assert_eq!(old_words_in(line).collect::<Vec<_>>(), expected, "{line}");
    check("the table is made anew", &["anew", "made anew"]);
    check("fn judge_bronze(verdicts: &JudgedRows)", &["judge", "verdicts", "judged"]);
    check("let kit = PluginKit::new();", &["kit", "kit"]);
    check("HELD_OFF, heldOff", &["held off", "held off"]);
    check("a toolkit, github, a fatal error, prejudged, the release", &[]);
}

/// The old words in a line: whole words, in any case, and the parts of `snake_case` and `CamelCase` names.
fn old_words_in(line: &str) -> impl Iterator<Item = &'static str> {
    let words = words_of(&line.replace("WebKit", "")); // a browser's name
    let single: Vec<_> = words.iter().filter_map(|word| OLD_WORDS.into_iter().find(|old| old == word)).collect();
    let phrases: Vec<_> = OLD_PHRASES
        .into_iter()
        .flat_map(|old| {
            let parts: Vec<&str> = old.split(' ').collect();
            let times = words.windows(parts.len()).filter(|window| *window == parts).count();
            std::iter::repeat_n(old, times)
        })
        .collect();
    single.into_iter().chain(phrases)
}

fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut lower_before) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        if !letter.is_alphabetic() || (letter.is_uppercase() && lower_before) {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        }
        if letter.is_alphabetic() {
            word.extend(letter.to_lowercase());
        }
        lower_before = letter.is_lowercase();
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}
