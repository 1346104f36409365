//! Edits of pipeline.toml while Bronze cannot be written: they are applied at once, and no event is lost or doubled.

use std::path::PathBuf;

use super::verify_ok;
use crate::harness::{Daemon, Project, expected, root, rows, upgrade};

/// A daemon whose Bronze has 300 events, cannot be written, and misses 300 more.
fn stuck(project: &Project) -> (Daemon, PathBuf) {
    project.generate(&["--count", "300", "--seed", "5"]);
    // Each try is logged at this level.
    let args = ["run", "--log-format", "json", "--log", "info,silverd::bronze=debug"];
    let mut daemon = Daemon::start_with(project, &args, &[]);
    daemon.until("the first rows", |_| {
        project.has_table("bronze") && project.has_table("page_view") && rows(&project.path("bronze")).len() == 300
    });
    let entry = upgrade(&project.path("bronze"));
    project.generate(&["--count", "300", "--seed", "6"]);
    daemon.until_logged("append to bronze", 2);
    (daemon, entry)
}

#[test]
fn edits_are_applied_while_bronze_cannot_be_written() {
    let project = Project::new("stuck", "interval = \"50ms\"");
    let (mut daemon, upgrade) = stuck(&project);
    project.append_to_pipeline(&format!(
        "[silver.views]\nplugin = \"{}/plugins/page_view\"\nmatch = {{ field = \"event_type\", equals = \"page_view\" }}\n\
         event_time = \"ts\"",
        root().display()
    ));
    daemon.until("the table that was added", |_| project.has_table("views"));
    // A table whose worker waits for Bronze restarts, and so does the consumer: the chunk is read again.
    project.replace_in_pipeline("[silver.add_to_cart]\n", "[silver.add_to_cart]\ncompression = \"snappy\"\n");
    daemon.until_logged("is applied: [silver.add_to_cart] compression", 1);
    project.replace_in_pipeline("interval = \"50ms\"", "interval = \"60ms\"");
    daemon.until_logged("is applied: [commit]", 1);
    let tries = daemon.count_logged("append to bronze");
    daemon.until_logged("append to bronze", tries + 2);
    assert_eq!(daemon.count_logged("bronze can be written again"), 0, "{}", daemon.log());

    std::fs::remove_file(upgrade).unwrap();
    daemon.until("all events in bronze", |_| rows(&project.path("bronze")).len() == 600);
    daemon.stop();
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    assert_eq!(rows(&project.path("views")).len(), rows(&project.path("page_view")).len());
    verify_ok(&project, &["--deep"]);
}

/// The way out that an edit offers: another folder, which is filled from Kafka.
#[test]
fn bronze_gets_another_path_while_it_cannot_be_written() {
    let project = Project::new("stuck-path", "interval = \"50ms\"");
    let (mut daemon, _) = stuck(&project);
    project.append_to_pipeline("[bronze]\npath = \"data/bronze/other\"");
    let other = project.folder.path().join("data/bronze/other");
    daemon.until("all events in the new bronze", |_| other.join("_delta_log").is_dir() && rows(&other).len() == 600);
    daemon.stop();
    // The tests look for it where it was.
    std::fs::rename(project.path("bronze"), project.folder.path().join("old")).unwrap();
    std::fs::rename(&other, project.path("bronze")).unwrap();
    project.replace_in_pipeline("data/bronze/other", "data/bronze/events");
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    // Not `--deep`: Bronze was filled again, and so `ingested_at` is later there than in Silver.
    verify_ok(&project, &[]);
}
