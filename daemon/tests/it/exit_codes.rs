//! Exit codes as docs/cli.md says them: 0 done, 1 failed, 2 wrong command line or configuration, 3 a time was over.

use std::process::Stdio;

use super::harness::{Project, fixture};

#[test]
fn exit_codes_are_those_of_the_manual() {
    let project = Project::new("exit-codes", "interval = \"100ms\"");
    project.send_file(&fixture("shop-events.jsonl"));
    project.silverd(&["run", "--drain"]);
    let folder = project.folder.path();
    std::fs::write(folder.join("no.toml"), "[source").unwrap();
    std::fs::write(folder.join("gone.toml"), project.pipeline().replace(&project.topic, "no-such-topic")).unwrap();
    for (code, args) in [
        (0, &["--version"][..]),
        (0, &["--help"]),
        (0, &["check"]),
        (0, &["run", "--drain"]),
        (0, &["query", "SELECT 1"]),
        (0, &["query", "SELECT * FROM generate_series(1, 3)"]),
        (0, &["verify"]),
        (0, &["verify", "page_view", "--deep"]),
        (0, &["maintain", "--dry-run"]),
        (0, &["repair"]),
        (0, &["repair", "bronze", "page_view", "--dry-run"]),
        (0, &["quarantine", "list"]),
        (0, &["rebuild", "page_view", "--from", "2025-01-01", "--to", "2025-01-01", "--dry-run"]),
        (0, &["plugin", "list"]),
        (0, &["plugin", "history", "page_view"]),
        (0, &["plugin", "inspect", "page_view"]),
        // What was asked for failed.
        (1, &["query", "SELEKT 1"]),
        (1, &["query", "SELECT nonsense FROM page_view"]),
        (1, &["query", "SELECT 10000000000 * 10000000000"]),
        (1, &["query", "COPY (SELECT 1) TO 'x.csv'"]),
        (1, &["run", "--drain", "--config", "gone.toml", "--for", "1s"]),
        (1, &["quarantine", "show", "page_view/0/1"]),
        // The command line names what does not exist, or contradicts itself.
        (2, &["none"]),
        (2, &["run", "--for", "soon"]),
        (2, &["run", "--listen", "nowhere"]),
        (2, &["run", "--listen", "0.0.0.0:0"]),
        (2, &["query"]),
        (2, &["query", "SELECT 1 FROM none"]),
        (2, &["verify", "none"]),
        (2, &["verify", "--strict"]),
        (2, &["rebuild", "none"]),
        (2, &["rebuild"]),
        (2, &["rebuild", "page_view", "--from", "2025-01-02", "--to", "2025-01-01"]),
        (2, &["rebuild", "page_view", "--from", "yesterday"]),
        (2, &["rebuild", "page_view", "--as-of", "2999-01-01"]),
        (2, &["rebuild", "--written-by", "ffffffffffff"]),
        (2, &["maintain", "none"]),
        (2, &["wait", "--day", "2025-01-01", "--table", "none"]),
        (3, &["wait", "--day", "today", "--table", "page_view", "--timeout", "0s"]),
        (2, &["repair", "none"]),
        (2, &["quarantine", "list", "--table", "none"]),
        (2, &["quarantine", "list", "--code", "none"]),
        (2, &["quarantine", "show", "none"]),
        (2, &["quarantine", "show", "none/0/1"]),
        (2, &["quarantine", "replay", "--table", "none"]),
        (2, &["plugin", "history", "none"]),
        (2, &["plugin", "deploy", "none"]),
        (2, &["plugin", "deploy", "page_view", "--digest", "ffff"]),
        (2, &["plugin", "test", "none"]),
        (2, &["plugin", "inspect", "none"]),
        (2, &["plugin", "try", "none"]),
        (2, &["plugin", "new", "Upper"]),
        // No configuration, or one with errors.
        (2, &["check", "--config", "no.toml"]),
        (2, &["run", "--drain", "--config", "no.toml"]),
        (2, &["query", "SELECT 1", "--config", "no.toml"]),
        (2, &["check", "--config", "none.toml"]),
        (2, &["run", "--config", "none.toml"]),
        (2, &["verify", "--config", "none.toml"]),
        (2, &["maintain", "--config", "none.toml"]),
        (2, &["repair", "--config", "none.toml"]),
        (2, &["plugin", "list", "--config", "none.toml"]),
    ] {
        let output = project.output(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "silverd {args:?}\n{errors}");
        assert!(code == 0 || errors.contains("error"), "silverd {args:?}\n{errors}");
    }
}

/// The commands that print more than a line.
const PRINTING: [&[&str]; 12] = [
    &["check"],
    &["query", "SELECT value FROM generate_series(1, 20000)"],
    &["query", "--json", "SELECT value FROM generate_series(1, 20000)"],
    &["verify"],
    &["verify", "--json", "--deep"],
    &["maintain", "--dry-run"],
    &["repair", "--dry-run"],
    &["quarantine", "list"],
    &["rebuild", "page_view", "--dry-run"],
    &["plugin", "list"],
    &["plugin", "history", "page_view"],
    &["plugin", "inspect", "page_view"],
];

/// As with `silverd … | head -1`.
#[test]
fn a_closed_output_is_no_error_and_a_full_disk_is_one() {
    let project = Project::new("closed-output", "interval = \"100ms\"");
    project.send_file(&fixture("shop-events.jsonl"));
    project.silverd(&["run", "--drain"]);
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = project.command(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(0) && !errors.contains("panicked"),
            "{args:?}: {}\n{errors}",
            output.status
        );
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = project.command(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let is_reported = errors.contains("write to standard output: No space left on device");
        assert!(output.status.code() == Some(1) && is_reported, "{args:?}: {}\n{errors}", output.status);
    }
}
