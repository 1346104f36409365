//! Settings and reference files are part of a plugin version; kept versions; `silverd plugin deploy`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{digest, hits, install, project, rows_by_version, send, verify_ok, version};
use crate::harness::{Daemon, Project, verify};

/// A project with a running daemon, which receives ten events at a time.
struct Session {
    project: Project,
    /// `None` while it is stopped.
    daemon: Option<Daemon>,
    sent: usize,
    /// Swaps that the daemon has logged since its start.
    swaps: usize,
}

impl Session {
    fn start(project: Project) -> Self {
        Self { daemon: Some(Daemon::start(&project)), project, sent: 0, swaps: 0 }
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    /// Sends ten events, and waits for their rows.
    #[track_caller]
    fn ten_rows_more(&mut self) {
        self.ten_events_more("e");
        self.until_rows();
    }

    fn ten_events_more(&mut self, name: &str) {
        let sent = self.sent;
        send(&self.project, (sent..sent + 10).map(|n| format!("{name}{n}")));
        self.sent += 10;
    }

    /// Waits until each event has its row.
    #[track_caller]
    fn until_rows(&mut self) {
        let Self { daemon, project, sent, .. } = self;
        daemon.as_mut().unwrap().until("a row for each event", |_| hits(project) == *sent);
    }

    #[track_caller]
    fn until_swapped(&mut self) {
        self.swaps += 1;
        let swaps = self.swaps;
        self.daemon().until_logged("the plugin was swapped", swaps);
    }

    fn stop(&mut self) {
        self.daemon.take().unwrap().stop();
    }

    fn start_again(&mut self) {
        (self.daemon, self.swaps) = (Some(Daemon::start(&self.project)), 0);
    }

    /// The number of rows by the setting or the reference file `given`.
    fn rows_by_given(&self) -> Vec<String> {
        let rows = self.project.query("select given, count(*) as n from hits group by given order by given");
        rows.iter().map(|row| format!("{}={}", row["given"].as_str().unwrap_or("-"), row["n"])).collect()
    }
}

#[test]
fn changed_settings_and_reference_files_are_new_versions() {
    let project = project("given", "[commit]\ninterval = \"100ms\"\n");
    let folder = project.folder.path().to_owned();
    std::fs::write(folder.join("given.txt"), "first").unwrap();
    let text = project.pipeline();
    let with = |keys: &str| text.replace("event_time = \"ts\"\n", &format!("event_time = \"ts\"\n{keys}\n"));
    project.write_pipeline(&with("reference = { given = \"given.txt\" }"));
    let mut session = Session::start(project);
    session.ten_rows_more();
    std::fs::write(folder.join("given.txt"), "second").unwrap();
    session.until_swapped();
    session.ten_rows_more();
    session.project.write_pipeline(&with("settings = { given = \"third\" }"));
    session.until_swapped();
    session.ten_rows_more();
    assert_eq!(session.rows_by_given(), ["first=10", "second=10", "third=10"]);
    // The shadow run names the columns that differ.
    install(&session.project, &version("two"));
    session.until_swapped();
    session.ten_rows_more();
    let log = session.daemon().log();
    assert!(log.contains("`version` differs in 30 ("), "{log}");
    session.stop();
    // Each row is compared with what its version makes of it with the settings and files that it had.
    verify_ok(&session.project, &["--deep", "--strict"]);
    std::fs::remove_dir_all(folder.join("data/.silverd/given")).unwrap();
    let (report, code) = verify(session.project.folder.path(), &["--deep", "--strict"]);
    assert_eq!(code, Some(1), "{report:#}");
}

/// They are part of the version: only they are rolled back.
#[test]
fn settings_that_fail_on_live_events_are_rolled_back() {
    let project = project("given-fails", "[commit]\ninterval = \"100ms\"\n");
    let text = project.pipeline();
    let with = |given: &str| {
        let time = "event_time = \"ts\"\n";
        text.replace(time, &format!("{time}settings = {{ given = \"{given}\" }}\n"))
    };
    project.write_pipeline(&with("first"));
    let mut session = Session::start(project);
    session.ten_rows_more();
    session.project.write_pipeline(&with("second traps-on-boom"));
    session.until_swapped();
    session.ten_rows_more();
    assert_eq!(session.rows_by_given(), ["first=10", "second traps-on-boom=10"]);
    session.ten_events_more("boom");
    session.daemon().until_logged("rebuilt the rows of the failed version", 1);
    session.until_rows();
    assert_eq!(session.rows_by_given(), ["first=30"]);
    session.daemon().until_logged("with its present settings is blocked: ", 1);
    // Nor does a restart use them.
    session.stop();
    session.start_again();
    session.ten_rows_more();
    session.daemon().until_logged("with its present settings is blocked: ", 1);
    assert_eq!(session.rows_by_given(), ["first=40"]);
    session.project.write_pipeline(&with("third"));
    session.until_swapped();
    session.ten_rows_more();
    session.stop();
    assert_eq!(session.rows_by_given(), ["first=40", "third=10"]);
    verify_ok(&session.project, &["--deep"]);
}

/// An earlier build with settings that it never had is a new version.
#[test]
fn earlier_build_with_other_settings_is_validated() {
    let mut session = Session::start(project("given-earlier", "[commit]\ninterval = \"100ms\"\n"));
    session.ten_rows_more();
    install(&session.project, &version("two"));
    session.until_swapped();
    session.ten_rows_more();
    let rejected = "the new build was rejected: shadow run: it rejects 20 of 20 events";
    let time = "event_time = \"ts\"\n";
    session.project.replace_in_pipeline(time, &format!("{time}settings = {{ given = \"rejects-all\" }}\n"));
    session.daemon().until_logged(rejected, 1);
    let one = digest(&version("one"));
    let errors = session.project.silverd_fails(&["plugin", "deploy", "hits", "--digest", &one[..12]], 1);
    assert!(errors.contains("is not deployed: shadow run: it rejects 20 of 20 events"), "{errors}");
    session.ten_rows_more();
    session.stop();
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 10), ("two".to_owned(), 20)]));
}

#[test]
fn kept_version_is_used_while_the_file_is_broken_and_can_be_deployed() {
    let mut session = Session::start(project("kept", "[commit]\ninterval = \"100ms\"\n"));
    session.ten_rows_more();
    install(&session.project, &version("two"));
    session.until_swapped();
    session.ten_rows_more();
    session.stop();

    // The daemon starts with the version that filled the table last.
    install(&session.project, b"\0asm no more");
    session.start_again();
    session.ten_rows_more();
    session.daemon().until_logged("the new build was rejected", 1);
    assert_eq!(rows_by_version(&session.project)["two"], 20);
    install(&session.project, &version("two"));

    let (one, two) = (digest(&version("one")), digest(&version("two")));
    let printed = session.project.silverd(&["plugin", "deploy", "hits", "--digest", &one[..12]]);
    assert!(
        printed.contains(&format!("hits: version {} is deployed", &one[..12]))
            && printed.contains(&format!("`silverd rebuild hits --written-by {}`", &two[..12])),
        "{printed}"
    );
    session.until_swapped();
    session.ten_rows_more();
    assert_eq!(rows_by_version(&session.project)["two"], 20);
    session.stop();
    session.start_again();
    session.ten_rows_more();
    assert_eq!(rows_by_version(&session.project)["two"], 20, "the deployed version is used after a restart");
    let printed = session.project.silverd(&["plugin", "deploy", "hits"]);
    assert!(printed.contains(&format!("hits: the newest build, {}, is deployed", &two[..12])), "{printed}");
    session.until_swapped();
    session.ten_rows_more();
    session.stop();
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 30), ("two".to_owned(), 30)]));
    verify_ok(&session.project, &[]);
}

/// In manual mode a build is no release: only `silverd plugin deploy` is.
#[test]
fn manual_mode_serves_what_was_deployed() {
    let mut session =
        Session::start(project("manual", "[commit]\ninterval = \"100ms\"\n[reload]\nmode = \"manual\"\n"));
    session.ten_rows_more();
    install(&session.project, &version("two"));
    let listed = session.project.silverd(&["plugin", "list"]);
    let (one, two) = (digest(&version("one")), digest(&version("two")));
    assert!(listed.contains(&one[..12]) && listed.contains(&two[..12]), "{listed}");
    // Twice as long as the files' next check takes.
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(3) {
        session.ten_rows_more();
    }
    let before = session.sent as u64;
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), before)]));
    // Nor at a start.
    session.stop();
    session.start_again();
    session.ten_rows_more();
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), before + 10)]));

    session.project.silverd(&["plugin", "deploy", "hits"]);
    session.until_swapped();
    session.ten_rows_more();
    assert_eq!(rows_by_version(&session.project)["two"], 10);
    session.project.silverd(&["plugin", "deploy", "hits", "--digest", &one[..12]]);
    session.until_swapped();
    session.ten_rows_more();
    assert_eq!(rows_by_version(&session.project)["two"], 10);
    session.stop();
    session.start_again();
    session.ten_rows_more();
    session.stop();
    assert_eq!(
        rows_by_version(&session.project),
        BTreeMap::from([("one".to_owned(), before + 30), ("two".to_owned(), 10)])
    );
    verify_ok(&session.project, &[]);
}

/// Also in a drain, and also if that version cannot be loaded: then nothing serves until something is deployed.
#[test]
fn manual_mode_starts_with_the_version_that_wrote_last() {
    let project = project("manual-start", "[commit]\ninterval = \"100ms\"\n[reload]\nmode = \"manual\"\n");
    let ten_events = |from: usize| send(&project, (from..from + 10).map(|n| format!("e{n}")));
    ten_events(0);
    project.silverd(&["run", "--drain"]);
    install(&project, &version("two"));
    ten_events(10);
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows_by_version(&project), BTreeMap::from([("one".to_owned(), 20)]));
    std::fs::remove_dir_all(project.folder.path().join("data/.silverd/plugins")).unwrap();
    ten_events(20);
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("which wrote the table last, cannot be loaded") && errors.contains("plugin deploy hits"));
    assert_eq!(hits(&project), 20);
    project.silverd(&["plugin", "deploy", "hits"]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows_by_version(&project), BTreeMap::from([("one".to_owned(), 20), ("two".to_owned(), 10)]));
    verify_ok(&project, &[]);
}

/// The page says why the version that was deployed does not serve, and what became of its rows.
#[test]
fn manual_mode_shows_a_rollback() {
    let project = project("manual-rollback", "[commit]\ninterval = \"100ms\"\n[reload]\nmode = \"manual\"\n");
    let mut session = Session { daemon: Some(Daemon::start_with_dashboard(&project)), project, sent: 0, swaps: 0 };
    session.ten_rows_more();
    install(&session.project, &version("two traps-on-boom"));
    session.project.silverd(&["plugin", "deploy", "hits"]);
    session.until_swapped();
    session.ten_rows_more();
    session.ten_events_more("boom");
    session.until_rows();
    let shown = |daemon: &Daemon| daemon.json("/api/status")["plugins"][0]["update_rejected"].to_string();
    let is_shown = |daemon: &Daemon| {
        let shown = shown(daemon);
        shown.contains("is blocked: it failed on ") && shown.contains("10 rows replaced by 10")
    };
    session.daemon().until("the rollback on the page", is_shown);
    // A build is no release, and changes nothing of this.
    let blocked = session.daemon().count_logged("is blocked: ");
    install(&session.project, &version("three"));
    session.daemon().until("the next look at the files", |daemon| daemon.count_logged("is blocked: ") > blocked);
    assert!(is_shown(session.daemon()), "{}", shown(session.daemon()));
    session.ten_rows_more();
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 40)]));
    session.stop();
}

/// A version that the daemon rejected is used by no command, and not after a restart; deploying it says why.
#[test]
fn a_rejected_version_is_not_used() {
    let mut session = Session::start(project("rejected", "[commit]\ninterval = \"100ms\"\n"));
    session.ten_rows_more();
    install(&session.project, &version("two rejects-all"));
    session.daemon().until_logged("the new build was rejected: shadow run: it rejects 10 of 10 events", 1);
    session.project.silverd(&["rebuild", "hits"]);
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 10)]));
    let rejected = digest(&version("two rejects-all"));
    let listed = session.project.silverd(&["plugin", "list"]);
    assert!(listed.contains(&format!("hits: {} was rejected at ", &rejected[..12])), "{listed}");
    let errors = session.project.silverd_fails(&["plugin", "deploy", "hits"], 1);
    assert!(errors.contains("is not deployed: shadow run: it rejects 10 of 10 events"), "{errors}");
    session.stop();
    // Nobody validates it in a drain.
    send(&session.project, ["drained".to_owned()]);
    session.sent += 1;
    session.project.silverd(&["run", "--drain"]);
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 11)]));
    // It may be wanted.
    let time = "event_time = \"ts\"\n";
    session.project.replace_in_pipeline(time, &format!("{time}max_new_rejects = \"100%\"\n"));
    session.project.silverd(&["plugin", "deploy", "hits"]);
    send(&session.project, ["rejected".to_owned()]);
    session.project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&session.project), 11, "the version that was deployed rejects the event");
    let listed = session.project.silverd(&["plugin", "list"]);
    assert!(!listed.contains("was rejected"), "{listed}");
}

/// Also if its file is written again, as cargo does; and on one line of `plugin list`.
#[test]
fn a_rejected_build_is_logged_once() {
    let mut session = Session::start(project("rejected-once", "[commit]\ninterval = \"100ms\"\n"));
    session.ten_rows_more();
    let bad = version("two bad-start");
    let rejected_at = |session: &Session| {
        let listed = session.project.silverd(&["plugin", "list", "--json"]);
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        listed[0]["failed"][0]["at_ms"].as_i64().unwrap_or(0)
    };
    const REJECTED: &str = "the new build was rejected";
    for time in 0..3 {
        let before = rejected_at(&session);
        install(&session.project, &bad);
        let mut daemon = session.daemon.take().unwrap();
        daemon.until("the build is validated", |_| rejected_at(&session) > before);
        daemon.until_logged(REJECTED, 1);
        assert_eq!(daemon.count_logged(REJECTED), 1, "the {time}th time\n{}", daemon.log());
        session.daemon = Some(daemon);
    }
    let listed = session.project.silverd(&["plugin", "list"]);
    assert!(listed.contains("this version never starts") && !listed.contains("\\n"), "{listed}");
    // Another build in between.
    install(&session.project, &version("three"));
    session.until_swapped();
    install(&session.project, &bad);
    session.daemon().until_logged(REJECTED, 2);
    session.stop();
}

/// On a topic without events, too: the table's log does not name a version that has made no rows.
#[test]
fn the_version_that_serves_is_known_before_it_has_made_rows() {
    let mut session =
        Session::start(project("serving", "[commit]\ninterval = \"100ms\"\n[reload]\nmode = \"manual\"\n"));
    session.ten_rows_more();
    let listed = |session: &Session, key: &str| {
        let listed: Vec<Value> = serde_json::from_str(&session.project.silverd(&["plugin", "list", "--json"])).unwrap();
        listed[0][key].as_str().unwrap_or_default().to_owned()
    };
    let [one, two] = ["one", "two"].map(|label| digest(&version(label)));
    assert_eq!(listed(&session, "serving"), one);
    install(&session.project, &version("two"));
    let printed = session.project.silverd(&["plugin", "dev", "hits", "--once", "--deploy"]);
    assert!(printed.contains("table hits is now served by version "), "{printed}");
    assert_eq!([listed(&session, "serving"), listed(&session, "wrote_last")], [two, one.clone()]);
    // The next one is compared with it.
    install(&session.project, &version("three"));
    let printed = session.project.silverd(&["plugin", "deploy", "hits"]);
    assert!(printed.contains("`version` differs in 10 (") && printed.contains("\"two\" → \"three\""), "{printed}");
    session.daemon().until_logged("the plugin was swapped", 2);
    session.stop();
    assert_eq!(listed(&session, "serving"), one, "no silverd runs, and nothing was written since");
}

/// A build that was rolled back stays blocked when its reference files change; the version before it gets the new ones.
#[test]
fn a_blocked_build_stays_blocked_with_other_reference_files() {
    let project = project("blocked-given", "[commit]\ninterval = \"100ms\"\n");
    let folder = project.folder.path().to_owned();
    std::fs::write(folder.join("given.txt"), "first").unwrap();
    let time = "event_time = \"ts\"\n";
    project.replace_in_pipeline(time, &format!("{time}reference = {{ given = \"given.txt\" }}\n"));
    let mut session = Session::start(project);
    session.ten_rows_more();
    install(&session.project, &version("two traps-on-boom"));
    session.until_swapped();
    session.ten_rows_more();
    session.ten_events_more("boom");
    session.daemon().until_logged("rebuilt the rows of the failed version", 1);
    session.until_rows();
    std::fs::write(folder.join("given.txt"), "second").unwrap();
    session.until_swapped();
    session.ten_rows_more();
    assert_eq!(session.rows_by_given(), ["first=30", "second=10"]);
    session.stop();
    std::fs::write(folder.join("given.txt"), "third").unwrap();
    session.start_again();
    session.until_swapped();
    session.ten_rows_more();
    session.stop();
    assert_eq!(session.rows_by_given(), ["first=30", "second=10", "third=10"]);
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 50)]));
    verify_ok(&session.project, &["--deep", "--strict"]);
}

/// What somebody deployed ends with the next build, and does not return with the one that it served instead of.
#[test]
fn an_ended_deployment_does_not_return() {
    let mut session = Session::start(project("ended", "[commit]\ninterval = \"100ms\"\n"));
    session.ten_rows_more();
    for (built, deployed) in [("two", Some("one")), ("three", None), ("two", None)] {
        install(&session.project, &version(built));
        session.until_swapped();
        session.ten_rows_more();
        if let Some(deployed) = deployed {
            session.project.silverd(&["plugin", "deploy", "hits", "--digest", &digest(&version(deployed))[..12]]);
            session.until_swapped();
            session.ten_rows_more();
        }
    }
    let listed = session.project.silverd(&["plugin", "list"]);
    assert!(!listed.contains("is deployed"), "{listed}");
    session.stop();
    let rows = [("one", 20), ("two", 20), ("three", 10)].map(|(name, rows)| (name.to_owned(), rows));
    assert_eq!(rows_by_version(&session.project), BTreeMap::from(rows));
}

/// A deployed version that has not served is validated by the daemon that starts next, and not trusted.
#[test]
fn a_deployed_version_is_validated_after_a_restart() {
    let mut session =
        Session::start(project("deployed-new", "[commit]\ninterval = \"100ms\"\n[reload]\nmode = \"manual\"\n"));
    session.ten_rows_more();
    session.stop();
    install(&session.project, &version("two"));
    session.project.silverd(&["plugin", "deploy", "hits"]);
    session.start_again();
    session.until_swapped();
    session.daemon().until_logged("a new version is validated; shadow run", 1);
    session.ten_rows_more();
    session.stop();
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 10), ("two".to_owned(), 10)]));
}

/// The cases of a plugin that is a file are in a folder next to it.
#[test]
fn cases_of_a_file_are_run() {
    let mut session = Session::start(project("file-cases", "[commit]\ninterval = \"100ms\"\n"));
    session.ten_rows_more();
    let cases = session.project.folder.path().join("hits.cases");
    std::fs::create_dir(&cases).unwrap();
    let case =
        r#"{"event": {"event_type": "page_view", "event_id": "c", "ts": "2026-01-01T00:00:00Z"}, "dropped": true}"#;
    std::fs::write(cases.join("drops.json"), case).unwrap();
    install(&session.project, &version("two"));
    session.daemon().until_logged("the new build was rejected: 1 of its 1 cases failed; drops", 1);
    session.ten_rows_more();
    let errors = session.project.silverd_fails(&["plugin", "test", "hits"], 1);
    assert!(errors.contains("1 of 1 case failed"), "{errors}");
    session.project.silverd(&["plugin", "test", "hits", "--update"]);
    session.project.silverd(&["plugin", "deploy", "hits"]);
    session.until_swapped();
    session.ten_rows_more();
    session.stop();
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 20), ("two".to_owned(), 10)]));
}

/// The kept file of the version that wrote last does not match its name any more: the newest build serves.
#[test]
fn an_altered_kept_version_does_not_end_the_start() {
    let mut session = Session::start(project("altered", "[commit]\ninterval = \"100ms\"\n"));
    session.ten_rows_more();
    session.stop();
    let one = digest(&version("one"));
    let kept = session.project.folder.path().join(format!("data/.silverd/plugins/{one}.wasm"));
    std::fs::write(kept, b"altered").unwrap();
    session.start_again();
    session.ten_rows_more();
    session.stop();
    assert_eq!(rows_by_version(&session.project), BTreeMap::from([("one".to_owned(), 20)]));
}
