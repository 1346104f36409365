//! Settings and reference files are part of a plugin version; kept versions; `silverd plugin deploy`.

use std::collections::BTreeMap;

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
        let sent = self.sent;
        send(&self.project, (sent..sent + 10).map(|n| format!("e{n}")));
        self.sent += 10;
        let Self { daemon, project, sent, .. } = self;
        daemon.as_mut().unwrap().until("ten rows more", |_| hits(project) == *sent);
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
        printed.starts_with(&format!("hits: version {} is deployed", &one[..12]))
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
    assert!(printed.starts_with(&format!("hits: the newest build, {}, is deployed", &two[..12])), "{printed}");
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
