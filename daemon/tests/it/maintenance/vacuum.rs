//! Vacuum: files are removed if they are old and no version within the retention has them.

use silverd::delta::TableFiles;
use silverd_core::config::Maintenance;

use super::{
    TABLES, block_on, data_files, entries, live_files, maintained, newest_version, project_with_small_files, set_age,
    unlimited, verify_ok,
};
use crate::harness::{Project, expected, python, rows};

#[test]
fn only_uncommitted_old_files_are_removed() {
    let project = project_with_small_files("orphans");
    let counts = expected::check(&project);
    for table in TABLES {
        data_files(&project.path(table)).iter().for_each(|file| set_age(file, 3));
        let day = data_files(&project.path(table)).first().unwrap().parent().unwrap().to_owned();
        for (name, days) in [
            ("part-old.zstd.parquet", 2),
            ("part-cut.zstd.parquet#1", 2),
            ("part-young.parquet", 0),
            ("part-begun.zstd.parquet#2", 0),
        ] {
            std::fs::write(day.join(name), "orphan").unwrap();
            set_age(&day.join(name), days);
        }
        std::fs::write(day.join("notes.txt"), "not a data file").unwrap();
        set_age(&day.join("notes.txt"), 9);
    }
    let printed = project.silverd(&["maintain", "--dry-run"]);
    assert_eq!(printed.matches("would remove 2 files").count(), TABLES.len(), "{printed}");
    let printed = project.silverd(&["maintain"]);
    assert_eq!(printed.matches("removed 2 files").count(), TABLES.len(), "{printed}");
    for table in TABLES {
        let left = data_files(&project.path(table));
        let has = |name: &str| left.iter().any(|file| file.ends_with(name));
        assert!(has("part-young.parquet") && has("part-begun.zstd.parquet#2") && has("notes.txt"), "{table}");
        assert!(!has("part-old.zstd.parquet") && !has("part-cut.zstd.parquet#1"), "{table}");
        // Compacted just now: older versions still have these files, whatever their age.
        let live = live_files(&project, table);
        assert!(left.len() > live + 3 || table == "quarantine", "{table}");
    }
    assert_eq!(expected::check(&project), counts);
    verify_ok(&project);
}

/// The commits say when a file was removed, even if no checkpoint names it any more.
#[test]
fn removed_files_are_kept_for_the_retention() {
    let project = Project::new("marks", "interval = \"10ms\"\nrows_max = 20\n\n[maintenance]\nenabled = false");
    project.generate(&["--count", "2000", "--seed", "51"]);
    project.silverd(&["run", "--drain"]);
    let path = project.path("bronze");
    let (old, maintained) = (newest_version(&path), maintained(&project, "bronze"));
    let rows = python::rows_and_digest(&path, Some(old));
    let replaced = data_files(&path);
    project.silverd(&["maintain", "bronze"]);
    let short_retention = Maintenance { retention_ms: 24, ..Maintenance::default() };
    let (mut table, _) = block_on(maintained.open()).unwrap().unwrap();
    block_on(maintained.set_retention(&mut table, &short_retention)).unwrap();
    project.generate(&["--count", "5000", "--seed", "52"]);
    project.silverd(&["run", "--drain"]);
    let counts = expected::check(&project);

    let first = replaced.first().unwrap().strip_prefix(&path).unwrap().to_str().unwrap().to_owned();
    let named = block_on(async {
        let (table, _) = maintained.open().await.unwrap().unwrap();
        TableFiles::read(table.store().as_ref()).await.unwrap().contains_since(&first.into(), 0)
    });
    assert!(!named, "the last checkpoint names a file that was compacted before it");
    data_files(&path).iter().for_each(|file| set_age(file, 3));
    let vacuum = |retention_ms: u64| {
        let (table, _) = block_on(maintained.open()).unwrap().unwrap();
        let config = Maintenance { retention_ms, ..Maintenance::default() };
        block_on(maintained.vacuum(&table, &config, false, &unlimited())).unwrap()
    };
    assert_eq!(vacuum(60 * 60 * 1000).files, 0);
    assert_eq!(python::rows_and_digest(&path, Some(old)), rows);
    assert_eq!(vacuum(0).files as usize, replaced.len());
    assert_eq!(expected::check(&project), counts);
    verify_ok(&project);
}

/// After a crash between Silver's commit and the quarantine's, the announced file is old and in no commit, and its
/// announcement is in an old log entry.
#[test]
fn announced_files_are_committed_before_anything_is_removed() {
    let project = project_with_small_files("announced");
    let counts = expected::check(&project);
    let quarantine = project.path("quarantine");
    std::fs::remove_file(entries(&quarantine).last_entry().unwrap().get()).unwrap();
    for table in TABLES {
        data_files(&project.path(table)).iter().for_each(|file| set_age(file, 30));
        entries(&project.path(table)).values().for_each(|entry| set_age(entry, 30));
    }
    assert_ne!(rows(&quarantine).len(), counts["quarantine"]);
    project.silverd(&["maintain", "quarantine"]);
    assert_eq!(expected::check(&project), counts);
    project.silverd(&["maintain"]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts);
    verify_ok(&project);
}
