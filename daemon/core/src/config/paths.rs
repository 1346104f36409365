//! No two tables may share a folder: each would take the other's files for its own.

use super::gold::GoldSection;
use super::mistake::Mistake;
use super::pipeline::{Bronze, Late, Located, Quarantine, State};
use super::silver::SilverSection;
use super::walk::Walk;

pub(super) fn tell_overlaps(
    walk: &mut Walk,
    bronze: &Bronze,
    silver: &[SilverSection],
    quarantine: &Quarantine,
    late: &Late,
    state: &State,
    gold: &[GoldSection],
) {
    // Where a section could not be read its path is a guess.
    if walk.is_damaged() {
        return;
    }
    let mut owners: Vec<(&str, &Located<String>)> = vec![("bronze", &bronze.path), ("quarantine", &quarantine.path)];
    owners.extend(silver.iter().map(|table| (table.title.as_str(), &table.path)));
    owners.extend(gold.iter().map(|table| (table.title.as_str(), &table.path)));
    if silver.iter().any(|table| table.late) {
        owners.push(("late", &late.path));
    }
    // The other way round does no harm: Delta passes over a hidden folder inside of a table's.
    let of_state = ("state", &state.path);
    for (title, path) in &owners {
        if parts(path).starts_with(&parts(&state.path))
            && let Some(mistake) = overlap(title, path, &of_state)
        {
            walk.tell(mistake);
        }
    }
    owners.sort_by_key(|(_, path)| path.span.start);
    for (at, (title, path)) in owners.iter().enumerate() {
        // One reason to move is enough, and the first is the one that stands highest in the file.
        if let Some(mistake) = owners[..at].iter().find_map(|other| overlap(title, path, other)) {
            walk.tell(mistake);
        }
    }
}

fn overlap(title: &str, path: &Located<String>, other: &(&str, &Located<String>)) -> Option<Mistake> {
    let (other_title, other_path) = other;
    let (mine, theirs) = (parts(path), parts(other_path));
    let (what, label) = if mine == theirs {
        (format!("[{title}] and [{other_title}] have the same path"), format!("[{other_title}] writes here already"))
    } else if mine.starts_with(&theirs) {
        let what = format!("the path of [{title}] lies inside that of [{other_title}]");
        (what, format!("inside `{}`", other_path.value))
    } else if theirs.starts_with(&mine) {
        let what = format!("the path of [{other_title}] lies inside that of [{title}]");
        (what, format!("holds `{}`", other_path.value))
    } else {
        return None;
    };
    let help = "give every table a folder of its own, such as \"data/silver/page_view\"".to_owned();
    Some(Mistake::new(path.span.clone(), what, label, Some(help)))
}

/// The folders of a path, without what leads nowhere: `./`, `//`, a `/` at the end, and `..` after a folder.
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
