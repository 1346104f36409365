//! Log cleanup: old commits that a checkpoint covers are removed, and the table stays readable.

use super::{entries, newest_version, set_age};
use crate::harness::{Project, expected, python};

/// A log of several hundred commits loses its first half, and everything that reads logs still works.
#[test]
fn cleaned_up_log_is_still_readable() {
    let project = Project::new("cleanup", "interval = \"10ms\"\nrows_max = 20\n\n[maintenance]\nenabled = false");
    for seed in ["31", "32", "33", "34", "35", "36"] {
        project.generate(&["--count", "1500", "--seed", seed]);
        // The end of each run waits for the checkpoints that it has started.
        project.silverd(&["run", "--drain"]);
    }
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    let counts = expected::check(&project);
    log_with_broken_checkpoints_is_not_cleaned_up(&project, "add_to_cart");
    let mut cleaned_up = Vec::new();
    for table in ["bronze", "page_view", "add_to_cart"] {
        let path = project.path(table);
        let newest = newest_version(&path);
        assert!(newest > 250, "{table} has {newest} versions");
        entries(&path).range(..=newest - 20).for_each(|(_, entry)| set_age(entry, 30));
        cleaned_up.push((table, newest));
    }
    let printed = project.silverd(&["maintain"]);
    for (table, newest) in cleaned_up {
        let first = *entries(&project.path(table)).first_key_value().unwrap().0;
        assert!((200..newest).contains(&first), "{table} starts at {first}: {printed}");
        let checkpoint = project.path(table).join(format!("_delta_log/{first:020}.checkpoint.parquet"));
        assert!(checkpoint.is_file(), "{table} starts without a checkpoint");
    }
    assert_eq!(expected::check(&project), counts);
    project.silverd(&["verify"]);
    project.silverd(&["verify", "--deep"]);
    let history = project.silverd(&["plugin", "history", "page_view", "--json"]);
    assert!(history.contains("digest"), "{history}");
    project.generate(&["--count", "500", "--seed", "37"]);
    project.silverd(&["run", "--drain"]);
    project.silverd(&["rebuild", "page_view"]);
    project.silverd(&["maintain"]);
    expected::check(&project);
    project.silverd(&["verify"]);
    project.silverd(&["verify", "--deep"]);
    let read = python::rows_and_digest(&project.path("bronze"), None);
    assert!(read.is_none_or(|(rows, _)| rows == counts["bronze"] as u64 + 500));
}

/// The checkpoints at which the log could start are truncated, as by a full disk; only the newest is intact.
fn log_with_broken_checkpoints_is_not_cleaned_up(project: &Project, table: &str) {
    let path = project.path(table);
    let checkpoint = |version: &u64| path.join(format!("_delta_log/{version:020}.checkpoint.parquet"));
    let mut all: Vec<_> = (0..=newest_version(&path)).filter(|version| checkpoint(version).is_file()).collect();
    let newest = all.pop().unwrap();
    entries(&path).range(..newest).for_each(|(_, entry)| set_age(entry, 30));
    let cut: Vec<_> = all.iter().map(checkpoint).collect();
    let whole: Vec<_> = cut.iter().map(|path| std::fs::read(path).unwrap()).collect();
    cut.iter().for_each(|path| std::fs::write(path, "PAR1").unwrap());
    let output = project.command(&["maintain", table]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!cut.is_empty() && !output.status.success() && stderr.contains("checkpoint.parquet"), "{stderr}");
    assert_eq!(*entries(&path).first_key_value().unwrap().0, 0);
    cut.iter().zip(whole).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
}
