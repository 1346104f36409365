//! Maintenance at the same time as the pipeline, corrections, and other maintenance.

use std::time::Duration;

use silverd::delta::{Change, TableLock};
use silverd::maintenance::{Compacted, CompleteDays};
use silverd_core::config::Maintenance;

use super::{
    block_on, compactions, data_files, live_files, maintained, project_with_small_files, unlimited, verify_ok,
};
use crate::harness::{Daemon, Generator, Project, TableOptions, expected, python};

/// Background threads have a low priority: a compaction takes its time while other tests run on two slow cores.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(900);

#[test]
fn running_daemon_compacts_without_losing_or_duplicating_rows() {
    let options = TableOptions { dedup_within_s: Some(600), late_after_s: Some(120) };
    let project = Project::with_options("background", "interval = \"50ms\"\nrows_max = 500", options);
    let generator = Generator::start(&project, 500);
    let mut daemon = Daemon::start_with(&project, &["run", "--log", "warn"], &[]);
    let compacted = |table: &str| project.has_table(table) && !compactions(&project.path(table)).is_empty();
    daemon.until_within(COMPACTION_TIMEOUT, "compactions of three tables", |_| {
        ["bronze", "page_view", "add_to_cart"].into_iter().all(compacted)
    });
    generator.stop();
    daemon.stop();
    project.silverd(&["run", "--drain"]);
    println!("{:?}", expected::check(&project));
    verify_ok(&project);
    for table in ["bronze", "page_view"] {
        let path = project.path(table);
        let first = compactions(&path)[0];
        let [before, after] = [first - 1, first].map(|version| python::rows_and_digest(&path, Some(version)));
        assert_eq!(before, after, "{table}, before and after a compaction");
    }
}

/// Without the table lock, as on two machines that share a folder: only the commit protocol prevents duplicates.
#[test]
fn concurrent_compactions_duplicate_no_row() {
    let project = project_with_small_files("concurrent");
    let counts = expected::check(&project);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for table in ["bronze", "page_view", "add_to_cart"] {
        let maintained = maintained(&project, table);
        let both: Vec<Compacted> = runtime.block_on(async {
            let compact = || {
                let maintained = maintained.clone();
                tokio::spawn(async move {
                    let (mut table, files) = maintained.open().await.unwrap().unwrap();
                    // Small steps, so that they conflict often.
                    let small = Maintenance { file_bytes_max: 64 << 10, ..Maintenance::default() };
                    maintained.compact(&mut table, files, &small, CompleteDays::All, &unlimited()).await.unwrap()
                })
            };
            let (first, second) = tokio::join!(compact(), compact());
            vec![first.unwrap(), second.unwrap()]
        });
        println!("{table}: {both:?}");
        assert!(both.iter().any(|compacted| compacted.compactions > 0), "{table}");
    }
    assert_eq!(expected::check(&project), counts);
    verify_ok(&project);
}

/// The commit conflicts, and the file that the compaction wrote is removed.
#[test]
fn compacting_removed_files_has_no_effect() {
    let project = project_with_small_files("conflict");
    block_on(async {
        let maintained = maintained(&project, "page_view");
        let (mut late, files) = maintained.open().await.unwrap().unwrap();
        let (mut second, stale) = maintained.open().await.unwrap().unwrap();
        let (mut first, known) = maintained.open().await.unwrap().unwrap();
        let (config, all) = (Maintenance::default(), CompleteDays::All);
        maintained.compact(&mut first, known, &config, all, &unlimited()).await.unwrap();
        let before = data_files(&project.path("page_view"));
        let compacted = maintained.compact(&mut second, stale, &config, all, &unlimited()).await.unwrap();
        assert_eq!((compacted, data_files(&project.path("page_view"))), (Compacted::default(), before));
        let change = Change { removes: files[..2].to_vec(), rewrites: true, ..Change::default() };
        let failure = late.commit(change).await.err().unwrap().to_string();
        assert!(failure.contains("changed the rows that this commit builds on"), "{failure}");
    });
    expected::check(&project);
}

/// Many tables are opened in a runtime of limited threads, in which two openings used to wait for each other.
#[test]
fn openings_do_not_block_one_another() {
    let project = project_with_small_files("openings");
    let maintained = maintained(&project, "bronze");
    let runtime = silverd::runtime::background::handle().unwrap();
    let opening = || {
        let maintained = maintained.clone();
        async move { maintained.open().await.unwrap().unwrap().1.len() }
    };
    let all = async { futures::future::join_all((0..48).map(|_| tokio::spawn(opening()))).await };
    let opened = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), all).await });
    let opened = opened.expect("every table is opened");
    let files = live_files(&project, "bronze");
    assert!(opened.into_iter().all(|opened| opened.unwrap() == files));
}

#[test]
fn maintenance_does_not_run_during_a_correction() {
    let project = project_with_small_files("lock");
    let folder = project.path("page_view");
    let lock = block_on(TableLock::shared(&folder, "page_view")).unwrap();
    assert!(TableLock::exclusive(&folder).unwrap().is_none());
    let errors = project.silverd_fails(&["maintain", "page_view"], 1);
    assert!(errors.contains("is running"), "{errors}");
    assert!(compactions(&folder).is_empty());
    // Several corrections may run at the same time.
    project.silverd(&["rebuild", "page_view"]);
    drop(lock);
    project.silverd(&["maintain", "page_view"]);
    expected::check(&project);
    verify_ok(&project);
}
