//! Reports tables that share a folder: each would use the other's files as its own.

use super::error::ConfigError;
use super::gold::GoldSection;
use super::pipeline::{Late, Located, State};
use super::silver::SilverSection;
use super::walk::Walk;

/// `always`: the tables that every pipeline has, by their sections.
pub(super) fn report_overlaps(
    walk: &mut Walk,
    always: [(&str, &Located<String>); 3],
    silver: &[SilverSection],
    late: &Late,
    state: &State,
    gold: &[GoldSection],
) {
    // The path of a section that could not be read is a guess.
    if walk.is_damaged() {
        return;
    }
    let mut owners = always.to_vec();
    owners.extend(silver.iter().map(|table| (table.title.as_str(), &table.path)));
    owners.extend(gold.iter().map(|table| (table.title.as_str(), &table.path)));
    if silver.iter().any(|table| table.late) {
        owners.push(("late", &late.path));
    }
    // The state folder may be inside a table's folder: Delta ignores hidden folders there.
    let of_state = ("state", &state.path);
    for (title, path) in &owners {
        if parts(path).starts_with(&parts(&state.path))
            && let Some(error) = overlap(title, path, &of_state)
        {
            walk.report(error);
        }
    }
    owners.sort_by_key(|(_, path)| path.span.start);
    for (at, (title, path)) in owners.iter().enumerate() {
        // One reason to move a table is enough: the first in the file.
        if let Some(error) = owners[..at].iter().find_map(|other| overlap(title, path, other)) {
            walk.report(error);
        }
    }
}

fn overlap(title: &str, path: &Located<String>, other: &(&str, &Located<String>)) -> Option<ConfigError> {
    let (other_title, other_path) = other;
    let (mine, theirs) = (parts(path), parts(other_path));
    let (what, label) = if mine == theirs {
        (format!("[{title}] and [{other_title}] have the same path"), format!("already the path of [{other_title}]"))
    } else if mine.starts_with(&theirs) {
        let what = format!("the path of [{title}] is inside the path of [{other_title}]");
        (what, format!("inside `{}`", other_path.value))
    } else if theirs.starts_with(&mine) {
        let what = format!("the path of [{other_title}] is inside the path of [{title}]");
        (what, format!("contains `{}`", other_path.value))
    } else {
        return None;
    };
    let help = "give every table a folder of its own, such as \"data/silver/page_view\"".to_owned();
    Some(ConfigError::new(path.span.clone(), what, label, Some(help)))
}

/// The folders of a path, without redundant parts: `./`, `//`, a `/` at the end, and `..` after a folder.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    if path.starts_with('/') {
        parts.push("/");
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| !matches!(*last, "/" | "..")) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn paths_that_lead_to_the_same_folder_are_the_same() {
        for same in ["data/a", "./data/a", "data/a/", "././data//a/.", "data/b/../a", "x/../data/a"] {
            assert_eq!(parts(same), ["data", "a"], "{same}");
        }
        assert_ne!(parts("/data"), parts("data"));
        assert_ne!(parts("../data"), parts("data"));
        assert_ne!(parts("s3://one/data"), parts("s3://two/data"));
        assert!(!parts("data/ab").starts_with(&parts("data/a")));
    }
}
