//! Commands: their input, how they end, and what they leave behind.

use std::fs;
use std::path::Path;

use silverd_core::zone::Zone;

use super::super::harness::until;
use super::{check_failed, notification, send};

#[test]
fn a_command_gets_the_notification_on_its_input_and_in_its_environment() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("notify.sh"),
        "cat > input.json\necho \"$1 $SILVERD_ALERT_NAME $SILVERD_ALERT_STATE $SILVERD_ALERT_SUMMARY\" > text\n",
    )
    .unwrap();
    send("[notify.r]\ncommand = [\"sh\", \"./notify.sh\", \"hunter2\"]", folder.path()).unwrap();
    let input = fs::read_to_string(folder.path().join("input.json")).unwrap();
    let input: serde_json::Value = serde_json::from_str(&input).unwrap();
    assert_eq!(input, silverd_core::notify::json::body(&notification("n-1", "no_orders"), Zone::UTC));
    let text = fs::read_to_string(folder.path().join("text")).unwrap();
    assert_eq!(text, "hunter2 no_orders firing no orders for 15 minutes\n");
}

#[test]
fn a_command_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let run = |script: &str| {
        fs::write(folder.path().join("notify.sh"), script).unwrap();
        send("[notify.r]\ncommand = [\"sh\", \"./notify.sh\"]\ntimeout = \"5s\"", folder.path())
    };
    // It reads nothing, and prints more than is kept.
    check_failed(
        run("printf 'first\\033[31m\\n'\nhead -c 1000000 /dev/zero | tr '\\0' x\nexit 3"),
        "sh ended with exit code 3: first\\u{1b}[31m xxx",
    );
    check_failed(run("echo broken >&2\nkill -9 $$"), "sh was killed");
    check_failed(send("[notify.r]\ncommand = [\"./none\"]", folder.path()), "run ./none: ");
    // What stays in the background is ended, and does not hold up the command.
    assert_eq!(run("sleep 1000 & echo $! > pid"), Ok(()));
    assert_gone(folder.path());
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notify.sh"), "sleep 1000 & echo $! > pid\nwait\n").unwrap();
    let sent = send("[notify.r]\ncommand = [\"sh\", \"./notify.sh\"]\ntimeout = \"2s\"", folder.path());
    check_failed(sent, "command sh: no success within 2 s");
    assert_gone(folder.path());
}

/// The process whose number is in the file `pid` has ended.
fn assert_gone(folder: &Path) {
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // Nobody may have asked for its exit code.
    until("the process has ended", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
}
