//! Versions that pass validation and fail on live events.

use std::collections::BTreeMap;

use super::{hits, install, project, rows_by_version, send, verify_ok, version};
use crate::harness::{Daemon, rows};

/// silverd rolls back automatically, rebuilds the rows of the failed version, and ignores its file until it changes.
#[test]
fn version_that_fails_on_live_events_is_rolled_back() {
    for (label, reason) in [
        ("two traps-on-boom", "it failed on"),
        ("two rejects-boom", "which the version before it accepts; 10.0 % are allowed"),
    ] {
        let project = project("rolled-back", "[commit]\ninterval = \"100ms\"\nrows_max = 300\n");
        let mut daemon = Daemon::start(&project);
        send(&project, (0..2_000).map(|n| format!("a{n}")));
        daemon.until("the first rows", |_| hits(&project) == 2_000);
        install(&project, &version(label));
        daemon.until_logged("the plugin was swapped", 1);
        send(&project, (0..600).map(|n| format!("b{n}")));
        daemon.until("rows of the new version", |_| hits(&project) == 2_600);
        assert_eq!(rows_by_version(&project)[label], 600);

        send(&project, (0..400).map(|n| if n % 2 == 0 { format!("boom{n}") } else { format!("c{n}") }));
        daemon.until_logged("the new plugin version is rolled back", 1);
        daemon.until("all rows", |_| hits(&project) == 3_000);
        daemon.until_logged("rebuilt the rows of the failed version", 1);
        daemon.until("no row of the failed version", |_| {
            rows_by_version(&project) == BTreeMap::from([("one".to_owned(), 3_000)])
        });
        assert!(daemon.count_logged(reason) > 0, "{}", daemon.log());
        daemon.stop();
        verify_ok(&project, &["--deep"]);

        // The file is still there after a restart, and the version is not used.
        let mut daemon = Daemon::start(&project);
        send(&project, (0..100).map(|n| format!("d{n}")));
        daemon.until("rows after the restart", |_| hits(&project) == 3_100);
        daemon.until_logged("is blocked: ", 1);
        assert_eq!(rows_by_version(&project), BTreeMap::from([("one".to_owned(), 3_100)]));
        install(&project, &version("three"));
        daemon.until_logged("the plugin was swapped", 1);
        send(&project, (0..100).map(|n| format!("boom-e{n}")));
        daemon.until("rows of the third version", |_| hits(&project) == 3_200);
        daemon.stop();
        assert_eq!(rows_by_version(&project)["three"], 100);
        verify_ok(&project, &["--deep"]);
    }
}

/// The version before rejects these events, too.
#[test]
fn bad_events_do_not_roll_a_version_back() {
    let project = project("bad-events", "[commit]\ninterval = \"100ms\"\n");
    install(&project, &version("one traps-on-boom"));
    let mut daemon = Daemon::start(&project);
    send(&project, (0..100).map(|n| format!("a{n}")));
    daemon.until("the first rows", |_| hits(&project) == 100);
    install(&project, &version("two traps-on-boom"));
    daemon.until_logged("the plugin was swapped", 1);
    send(&project, (0..300).map(|n| if n % 3 == 0 { format!("boom{n}") } else { format!("b{n}") }));
    daemon.until("rows of the good events", |_| hits(&project) == 300);
    daemon.stop();
    assert_eq!(rows_by_version(&project)["two traps-on-boom"], 200);
    assert_eq!(rows(&project.path("quarantine")).len(), 100);
    verify_ok(&project, &["--deep"]);
}

/// Not to the version before the one that served.
#[test]
fn rollback_goes_to_the_version_that_served_before() {
    let project = project("served-before", "[commit]\ninterval = \"100ms\"\n");
    let mut daemon = Daemon::start(&project);
    send(&project, (0..50).map(|n| format!("a{n}")));
    daemon.until("rows of the first version", |_| hits(&project) == 50);
    install(&project, &version("two"));
    daemon.until_logged("the plugin was swapped", 1);
    send(&project, (0..20).map(|n| format!("b{n}")));
    daemon.until("rows of the second version", |_| hits(&project) == 70);
    install(&project, &version("three traps-on-boom"));
    daemon.until_logged("the plugin was swapped", 2);
    send(&project, (0..10).map(|n| format!("c{n}")));
    daemon.until("rows of the third version", |_| hits(&project) == 80);
    send(&project, (0..10).map(|n| format!("boom{n}")));
    daemon.until_logged("rebuilt the rows of the failed version", 1);
    let by_version = |two| BTreeMap::from([("one".to_owned(), 50), ("two".to_owned(), two)]);
    daemon.until("rows of the second version again", |_| rows_by_version(&project) == by_version(40));

    // A build that gives the failed version again leaves alone the one that serves.
    install(&project, &version("four"));
    daemon.until_logged("the plugin was swapped", 3);
    send(&project, (0..10).map(|n| format!("d{n}")));
    daemon.until("rows of the fourth version", |_| hits(&project) == 100);
    install(&project, &version("three traps-on-boom"));
    let blocked = daemon.count_logged("is blocked: ");
    daemon.until("the failed version is found", |daemon| daemon.count_logged("is blocked: ") > blocked);
    send(&project, (0..10).map(|n| format!("e{n}")));
    daemon.until("rows of the fourth version", |_| rows_by_version(&project).get("four") == Some(&20));
    daemon.stop();
    // Nor does a start.
    let mut daemon = Daemon::start(&project);
    send(&project, (0..10).map(|n| format!("f{n}")));
    daemon.until("rows of the fourth version", |_| rows_by_version(&project).get("four") == Some(&30));
    daemon.stop();
    verify_ok(&project, &["--deep"]);
}

/// Whatever share of rejects is allowed.
#[test]
fn version_that_traps_in_the_shadow_run_is_kept_out() {
    let project = project("shadow-trap", "[commit]\ninterval = \"100ms\"\n[reload]\nmax_new_rejects = \"100%\"\n");
    let mut daemon = Daemon::start(&project);
    send(&project, (0..100).map(|n| if n % 50 == 0 { format!("boom{n}") } else { format!("a{n}") }));
    daemon.until("the first rows", |_| hits(&project) == 100);
    install(&project, &version("two traps-on-boom"));
    daemon.until_logged("shadow run: it fails on 2 of 100 events on which the current version does not fail", 1);
    let log = daemon.log_lines();
    let rejected =
        log.iter().find(|line| line["fields"]["message"].as_str().unwrap_or_default().contains("shadow run: it"));
    assert_eq!(rejected.unwrap()["level"], "ERROR");
    // Rejects are another matter.
    install(&project, &version("three rejects-boom"));
    daemon.until_logged("the plugin was swapped", 1);
    daemon.stop();
}
