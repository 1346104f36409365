//! "Did you mean": the known word that is nearest to what was written.

/// The nearest of `known`, if it is near enough to be a typing error.
pub(crate) fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let written = written.to_lowercase().replace('-', "_");
    let (distance, word) = known.iter().map(|word| (distance(&written, word), *word)).min()?;
    (distance <= word.len().max(3) / 3).then_some(word)
}

/// Suggests the nearest word, or else lists all of them.
pub(super) fn help(written: &str, known: &[&str], plural: &str) -> String {
    match nearest(written, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("the {plural} are {}", list(known)),
    }
}

pub(crate) fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The number of edits from one word to the other; two swapped letters are one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    // A longer word is not a typing error, and the work below grows with the product of the lengths.
    if a.len() > 64 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1)
            };
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                table[i][j] = table[i][j].min(table[i - 2][j - 2] + 1);
            }
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_typing_errors_are_corrected() {
        let known = ["brokers", "topic", "path", "event_time"];
        let cases = [
            ("broker", Some("brokers")),
            ("Topic", Some("topic")),
            ("pth", Some("path")),
            ("tpoic", Some("topic")),
            ("event-time", Some("event_time")),
            ("evnet_time", Some("event_time")),
            ("bootstrap", None),
            ("", None),
        ];
        for (written, expected) in cases {
            assert_eq!(nearest(written, &known), expected, "{written}");
        }
    }
}
