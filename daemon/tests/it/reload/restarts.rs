//! What a restart must not forget: a canary period, a version that failed, and a rebuild that a kill interrupted.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use serde_json::Value;

use super::{digest, hits, install, project, rows_by_version, send, verify_ok, version};
use crate::harness::{Daemon, Project, rows};

const SECTIONS: &str = "[commit]\ninterval = \"100ms\"\n";
const SWAPPED: &str = "the plugin was swapped";
const ROLLED_BACK: &str = "the new plugin version is rolled back";
const REBUILT: &str = "rebuilt the rows of the failed version";

/// A daemon with 50 rows of the version `one`, and 20 of a version that traps on `boom`.
fn with_canary(project: &Project, label: &str) -> Daemon {
    let mut daemon = Daemon::start(project);
    send(project, (0..50).map(|n| format!("a{n}")));
    daemon.until("rows of the first version", |_| hits(project) == 50);
    install(project, &version(label));
    daemon.until_logged(SWAPPED, 1);
    send(project, (0..20).map(|n| format!("b{n}")));
    daemon.until("rows of the second version", |_| hits(project) == 70);
    assert_eq!(rows_by_version(project)[label], 20);
    daemon
}

fn all_by(label: &str, rows: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(label.to_owned(), rows)])
}

/// The table's log has what is needed: a version that fails after a restart is rolled back, too.
#[test]
fn a_kill_does_not_end_the_canary_period() {
    for label in ["two traps-on-boom", "two rejects-boom"] {
        let project = project("canary-kill", SECTIONS);
        with_canary(&project, label).kill();
        let mut daemon = Daemon::start(&project);
        send(&project, (0..40).map(|n| if n % 2 == 0 { format!("boom{n}") } else { format!("c{n}") }));
        daemon.until_logged(ROLLED_BACK, 1);
        daemon.until_logged(REBUILT, 1);
        daemon.until("no row of the failed version", |_| rows_by_version(&project) == all_by("one", 110));
        daemon.stop();
        verify_ok(&project, &["--deep"]);
        // The file of the failed version is still there.
        let mut daemon = Daemon::start(&project);
        daemon.until_logged("is blocked: ", 1);
        daemon.stop();
    }
}

/// What somebody deployed is not compared with what served before.
#[test]
fn a_deployed_version_has_no_canary_period_after_a_restart() {
    let project = project("canary-deployed", SECTIONS);
    install(&project, &version("one traps-on-boom"));
    let mut daemon = Daemon::start(&project);
    send(&project, (0..50).map(|n| format!("a{n}")));
    daemon.until("rows of the first version", |_| hits(&project) == 50);
    install(&project, &version("two"));
    daemon.until_logged(SWAPPED, 1);
    send(&project, (0..10).map(|n| format!("b{n}")));
    daemon.until("rows of the second version", |_| hits(&project) == 60);
    let one = digest(&version("one traps-on-boom"));
    project.silverd(&["plugin", "deploy", "hits", "--digest", &one[..12]]);
    daemon.until_logged(SWAPPED, 2);
    send(&project, (0..10).map(|n| format!("c{n}")));
    daemon.until("rows of the deployed version", |_| hits(&project) == 70);
    daemon.kill();
    let mut daemon = Daemon::start(&project);
    send(&project, ["boom".to_owned(), "d".to_owned()]);
    daemon.until("the row of the good event", |_| hits(&project) == 71);
    daemon.until("the other event in the quarantine", |_| rows(&project.path("quarantine")).len() == 1);
    assert_eq!(daemon.count_logged(ROLLED_BACK), 0, "{}", daemon.log());
    daemon.stop();
    assert_eq!(rows_by_version(&project)["one traps-on-boom"], 61);
    verify_ok(&project, &["--deep"]);
}

/// Where silverd remembers rebuilds that are not done.
fn unfinished_rebuild(project: &Project) -> PathBuf {
    project.folder.path().join("data/.silverd/held/hits.rebuild.json")
}

/// Kills a daemon in a rollback, before it has rebuilt anything.
fn kill_in_rollback(project: &Project) {
    let mut daemon = with_canary(project, "two traps-on-boom");
    let lock =
        File::options().create(true).truncate(false).write(true).open(project.path("hits").join(".silverd.lock"));
    let lock = lock.unwrap();
    // As table maintenance does, which a correction waits for.
    lock.lock().unwrap();
    send(project, (0..10).map(|n| format!("boom{n}")));
    daemon.until_logged("waiting for the running maintenance of the table", 1);
    daemon.kill();
    assert!(unfinished_rebuild(project).is_file());
    assert_eq!(rows_by_version(project)["two traps-on-boom"], 20);
}

/// The failed version wrote last, and another build is the newest one.
#[test]
fn killed_rollback_is_completed_and_the_failed_version_never_serves_again() {
    let project = project("rollback-kill", SECTIONS);
    kill_in_rollback(&project);
    install(&project, b"\0asm no more");
    let mut daemon = Daemon::start(&project);
    daemon.until_logged(REBUILT, 1);
    send(&project, (0..10).map(|n| format!("c{n}")));
    daemon.until("all rows by the version before", |_| rows_by_version(&project) == all_by("one", 90));
    daemon.until_logged("the new build was rejected", 1);
    assert!(!unfinished_rebuild(&project).exists());
    let rebuilt = daemon.log_lines().into_iter().find(|line| line.to_string().contains(REBUILT)).unwrap();
    let message = rebuilt["fields"]["message"].as_str().unwrap();
    assert!(message.contains("20 rows replaced by 20, 0 events rejected"), "{message}");
    daemon.stop();
    let listed: Value = serde_json::from_str(&project.silverd(&["plugin", "list", "--json"])).unwrap();
    let reason = listed[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("it failed on ") && reason.contains("20 rows replaced by 20"), "{listed}");
    install(&project, &version("three"));
    verify_ok(&project, &["--deep"]);
}

/// Somebody has run the correction that a killed rollback asks for.
#[test]
fn rebuild_that_was_run_by_hand_is_not_repeated() {
    let project = project("rollback-by-hand", SECTIONS);
    kill_in_rollback(&project);
    install(&project, &version("three"));
    let failed = digest(&version("two traps-on-boom"));
    project.silverd(&["rebuild", "hits", "--written-by", &failed[..12]]);
    let mut daemon = Daemon::start(&project);
    daemon.until("all rows", |_| hits(&project) == 80);
    daemon.until_logged(SWAPPED, 1);
    assert_eq!(daemon.count_logged(REBUILT), 0, "{}", daemon.log());
    assert!(!unfinished_rebuild(&project).exists());
    daemon.stop();
    assert!(!rows_by_version(&project).contains_key("two traps-on-boom"));
    verify_ok(&project, &["--deep"]);
}

/// However many fail after it, and whatever is deployed in between.
#[test]
fn every_version_that_failed_stays_blocked() {
    // The shadow run would keep the failed versions out, too.
    let project = project("all-blocked", &format!("{SECTIONS}[reload]\nshadow_events = 0\n"));
    let mut daemon = Daemon::start(&project);
    let (mut sent, mut swaps) = (0, 0);
    let mut ten_rows_more = |daemon: &mut Daemon, name: &str| {
        send(&project, (sent..sent + 10).map(|n| format!("{name}{n}")));
        sent += 10;
        daemon.until("ten rows more", |_| hits(&project) == sent);
    };
    let mut swap = |daemon: &mut Daemon, label: &str| {
        install(&project, &version(label));
        swaps += 1;
        daemon.until_logged(SWAPPED, swaps);
    };
    ten_rows_more(&mut daemon, "a");
    for (number, label) in ["two traps-on-boom", "three traps-on-boom"].into_iter().enumerate() {
        swap(&mut daemon, label);
        ten_rows_more(&mut daemon, "b");
        ten_rows_more(&mut daemon, "boom");
        daemon.until_logged(REBUILT, number + 1);
        swap(&mut daemon, ["four", "five"][number]);
        ten_rows_more(&mut daemon, "c");
    }
    // A pin, which another build ends.
    let four = digest(&version("four"));
    project.silverd(&["plugin", "deploy", "hits", "--digest", &four[..12]]);
    daemon.until_logged(SWAPPED, swaps + 1);
    ten_rows_more(&mut daemon, "d");
    for label in ["two traps-on-boom", "three traps-on-boom"] {
        let blocked = format!("version {} is blocked: ", &digest(&version(label))[..12]);
        let before = daemon.count_logged(&blocked);
        install(&project, &version(label));
        daemon.until(&blocked, |daemon| daemon.count_logged(&blocked) > before);
        ten_rows_more(&mut daemon, "e");
    }
    let swapped = daemon.count_logged(SWAPPED);
    daemon.stop();
    let by_version = rows_by_version(&project);
    assert_eq!((swapped, by_version["four"]), (swaps + 1, 60), "{by_version:?}");
    assert!(by_version.keys().all(|label| !label.contains("traps")), "{by_version:?}");
    // Somebody deploys one on purpose.
    project.silverd(&["plugin", "deploy", "hits"]);
    let mut daemon = Daemon::start(&project);
    daemon.until_logged(SWAPPED, 1);
    daemon.stop();
    verify_ok(&project, &["--deep"]);
}
