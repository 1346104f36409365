//! Compares what a command printed with what a page shows. Numbers, times and digests differ from run to run.

/// Whether the lines of `shown` stand in `printed`, in this order and one below the other. `…` stands for anything in a line,
/// and as a whole line for any number of lines. If not, the first line that is missing.
pub fn find(shown: &str, printed: &str) -> Result<(), String> {
    let printed: Vec<String> = printed.lines().map(normalized).filter(|line| !line.is_empty()).collect();
    let shown: Vec<&str> = shown.lines().filter(|line| !line.trim().is_empty()).collect();
    // Parts between lines that are only `…`; the lines of one part follow each other.
    let mut at = 0;
    for part in shown.split(|line| line.trim() == "…").filter(|part| !part.is_empty()) {
        let part: Vec<(&str, String)> = part.iter().map(|line| (*line, normalized(line))).collect();
        let begins = |start: &usize| {
            printed.len() - start >= part.len()
                && part.iter().zip(&printed[*start..]).all(|((_, line), printed)| matches(line, printed))
        };
        let Some(start) = (at..printed.len()).find(begins) else {
            let missing = part.iter().find(|(_, line)| !printed[at..].iter().any(|printed| matches(line, printed)));
            return Err(match missing {
                Some((line, _)) => format!("there is no line such as: {line}"),
                None => format!("the lines do not follow each other from: {}", part[0].0),
            });
        };
        at = start + part.len();
    }
    Ok(())
}

/// A line with `#` for each number and digest, one space for several, and borders of one length.
fn normalized(line: &str) -> String {
    let is_word = |letter: char| letter.is_ascii_alphanumeric();
    let mut text = String::new();
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            letter if is_word(letter) => {
                let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
                text += &number_free(&rest[..end]);
                end
            }
            ' ' | '-' | '\t' => {
                let repeated = rest.find(|letter| letter != first).unwrap_or(rest.len());
                text.push(if first == '\t' { ' ' } else { first });
                repeated
            }
            other => {
                text.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    // A fraction, a date and a time are numbers, too.
    for joint in [".", ",", ":", "-", "/"] {
        while text.contains(&format!("#{joint}#")) {
            text = text.replace(&format!("#{joint}#"), "#");
        }
    }
    text
}

/// A word without its digits: `#` for a number or a digest, `v#` for `v22`, `#s` for `10s`.
fn number_free(word: &str) -> String {
    let is_digest = word.len() >= 7
        && word.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
        && word.bytes().any(|byte| byte.is_ascii_digit());
    if is_digest {
        return "#".to_owned();
    }
    let mut text = String::new();
    for letter in word.chars() {
        if !letter.is_ascii_digit() {
            text.push(letter);
        } else if !text.ends_with('#') {
            text.push('#');
        }
    }
    text
}

/// Whether a line is the shown one, in which `…` stands for anything, with the spaces around it.
fn matches(shown: &str, printed: &str) -> bool {
    if !shown.contains('…') {
        return shown == printed;
    }
    let mut parts = shown.split('…').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn numbers_differ_and_words_do_not() {
    let printed =
        "+-----+---+\n| a   | n |\n+-----+---+\n| x   | 7 |\n+-----+---+\nv22, 0.7 s ago\n2026-01-02T03:04:05Z done\n";
    let check = |shown: &str, is_there: bool| assert_eq!(find(shown, printed).is_ok(), is_there, "{shown}");
    check("| a | n  |\n+---+----+\n| x | 12 |", true);
    check("| a | n |\n…\nv1, 12.75 s ago", true);
    check("| x | … 12 … |", true);
    check("v1, …\n1999-12-31T23:59:59Z done", true);
    check("| y | 7 |", false);
    check("v1, 0.7 s ago\n| x | 7 |", false);
    check("| a | n |\n| x | 7 |", false);
    check("done", false);
    check("…done", true);
}
