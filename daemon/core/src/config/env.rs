//! Replaces `${NAME}` and `${NAME:-default}` in a string; `$${` gives `${`.

use std::ops::Range;

/// What is wrong, and the bytes of the string where it is.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) at: Range<usize>,
    pub(super) message: String,
    pub(super) label: &'static str,
    pub(super) help: String,
}

/// Replaces the variables by their values; as in a shell, `:-` is for a variable that is unset or empty.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<Fault>> {
    let mut expanded = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${").map(|found| at + found) {
        if let Some(before) = text[at..found].strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            at = found + 2;
            continue;
        }
        expanded.push_str(&text[at..found]);
        let Some(end) = text[found..].find('}').map(|end| found + end) else {
            faults.push(Fault {
                at: found..text.len(),
                message: "`${` without a closing `}`".to_owned(),
                label: "starts here",
                help: "close it with `}`, or write `$${` for the text `${`".to_owned(),
            });
            at = text.len();
            break;
        };
        match variable(&text[found + 2..end], env) {
            Ok(value) => expanded.push_str(&value),
            Err((message, label, help)) => faults.push(Fault { at: found..end + 1, message, label, help }),
        }
        at = end + 1;
    }
    expanded.push_str(&text[at..]);
    if faults.is_empty() { Ok(expanded) } else { Err(faults) }
}

/// Whether the text is only a reference to a variable, so that it can be shown.
pub(super) fn is_reference(text: &str) -> bool {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(is_name)
}

fn variable(inner: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, (String, &'static str, String)> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_name(name) {
        let help = "write `${NAME}` or `${NAME:-default}`, or `$${` for the text `${`";
        return Err((
            "this is not the name of an environment variable".to_owned(),
            "expected letters, digits and `_`",
            help.to_owned(),
        ));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            let help = format!("set {name} before silverd starts, or give a default: `${{{name}:-…}}`");
            Err((format!("the environment variable {name} is not set"), "has no value and no default", help))
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, Vec<&str>>) {
        let env = |name: &str| match name {
            "HOST" => Some("kafka".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let expanded = expand(text, &env);
        let found = expanded.as_ref().map(String::as_str);
        let found = found.map_err(|faults| faults.iter().map(|fault| &text[fault.at.clone()]).collect());
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn variables_are_replaced_by_their_values() {
        check("plain $ {} text", Ok("plain $ {} text"));
        check("${HOST}:9092", Ok("kafka:9092"));
        check("${HOST:-localhost}", Ok("kafka"));
        check("${NONE:-localhost}:1", Ok("localhost:1"));
        check("${EMPTY}|${EMPTY:-x}|${NONE:-}", Ok("|x|"));
        check("ä$${HOST}${HOST}", Ok("ä${HOST}kafka"));
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        check("ä${NONE} ${HOST} ${OTHER}", Err(vec!["${NONE}", "${OTHER}"]));
        check("${}${9}${A B}", Err(vec!["${}", "${9}", "${A B}"]));
        check("${HOST} ${HOST", Err(vec!["${HOST"]));
    }
}
