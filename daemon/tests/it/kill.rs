//! Silverd processes that are killed at any moment, under load: every event is in the tables once, whether the daemon
//! or a correction was killed, and also if two daemons write the same tables.

use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::harness::{Daemon, Generator, Project, SILVER, TableOptions, expected, rounds, seed};

const ARGS: [&str; 3] = ["run", "--log", "warn"];

#[test]
fn every_event_is_written_once_after_kills_at_any_moment() {
    let mut rng = StdRng::seed_from_u64(seed());
    let options = TableOptions { dedup_within_s: Some(600), ..TableOptions::default() };
    let project = Project::with_options("kill", "interval = \"50ms\"\nrows_max = 400", options);
    let kills = rounds(&project, 20);
    let generator = Generator::start_with(&project, 600, &["--dup-pct", "10"]);
    // All tables exist before the first kill.
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    let (mut while_writing, mut corrected) = (0, 0);
    for kill in 0..kills {
        if kill % 5 == 0 {
            project.send_odd_events();
        }
        let before = commits(&project);
        let mut daemon = Daemon::start_with(&project, &ARGS, &[]);
        // Every second time, a correction runs and is killed, too.
        let correction = (kill % 2 == 1).then(|| start_correction(&project, kill));
        match kill % 3 {
            // At any time, also while it starts.
            0 => std::thread::sleep(random_time(&mut rng, 2_500)),
            // At the instant in which a commit appears in the log of a table.
            1 => kill_at_commit(&project, daemon.id(), rng.random_range(1..=12)),
            // Some time after the first commits.
            _ => {
                until_committed(&mut daemon, &project, before + 2);
                std::thread::sleep(random_time(&mut rng, 400));
            }
        }
        daemon.kill();
        if let Some(mut correction) = correction {
            corrected += usize::from(correction.try_wait().unwrap().is_some_and(|status| status.success()));
            let _ = correction.kill();
            correction.wait().unwrap();
        }
        while_writing += usize::from(commits(&project) > before);
        // Whatever was interrupted, the commits account for every event.
        project.silverd(&["verify"]);
    }
    generator.stop();
    assert!(while_writing >= kills / 2, "only {while_writing} of {kills} kills came after a commit");

    project.silverd(&["run", "--drain"]);
    project.silverd(&["rebuild", "page_view"]);
    project.silverd(&["quarantine", "replay"]);
    project.silverd(&["verify"]);
    let counts = expected::check(&project);
    assert!(counts["quarantine"] > 0, "rejects, too, are written once");
    println!("{kills} kills, {while_writing} of them after a commit, {corrected} completed corrections: {counts:?}");
}

pub(super) fn random_time(rng: &mut StdRng, max_ms: u64) -> Duration {
    Duration::from_millis(rng.random_range(0..max_ms))
}

/// Starts a rebuild of a table, or a replay of the quarantine.
fn start_correction(project: &Project, kill: usize) -> Child {
    let args: &[&str] = match kill % 8 {
        1 => &["rebuild", "page_view"],
        3 => &["rebuild", "add_to_cart"],
        5 => &["rebuild", "order_placed"],
        _ => &["quarantine", "replay"],
    };
    project.command(args).args(["--log", "error"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn until_committed(daemon: &mut Daemon, project: &Project, wanted: usize) {
    daemon.until(&format!("{wanted} commits"), |_| commits(project) >= wanted);
}

/// Kills a process as soon as the `nth` commit from now on appears in the log of any table: also between two commits
/// that belong together.
pub(super) fn kill_at_commit(project: &Project, process: u32, nth: usize) {
    let (sender, killed) = mpsc::channel();
    let mut seen = 0;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let created = matches!(event.kind, EventKind::Create(_));
        seen += event.paths.iter().filter(|path| created && path.extension().is_some_and(|e| e == "json")).count();
        if seen >= nth {
            // SAFETY: sends a signal to a child that has not been waited for.
            unsafe { libc::kill(process as libc::pid_t, libc::SIGKILL) };
            let _ = sender.send(());
        }
    })
    .unwrap();
    for table in SILVER.into_iter().chain(["bronze", "quarantine"]) {
        watcher.watch(&project.path(table).join("_delta_log"), RecursiveMode::NonRecursive).unwrap();
    }
    killed.recv_timeout(Duration::from_secs(60)).expect("a commit within 60 s");
}

/// The number of commits in Bronze's log.
fn commits(project: &Project) -> usize {
    let log = project.path("bronze").join("_delta_log");
    let entries = std::fs::read_dir(log).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count()
}

/// A daemon that holds a chunk while another one, which took it for dead, commits the same records.
#[test]
fn a_daemon_that_was_stopped_for_a_while_writes_nothing_twice() {
    let project = Project::with_sections("stopped", "[commit]\ninterval = \"8s\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker has no consumer groups of several processes");
        return;
    }
    project.append_to_pipeline("[source.kafka]\n\"group.protocol\" = \"classic\"\n\"session.timeout.ms\" = 6000\n");
    project.broker.create_topic(&project.topic, 1);
    let send = |count: usize| project.send_values(&vec![b"{\"number\": 1}".to_vec(); count]);
    send(10);
    let mut first = Daemon::start_with_dashboard(&project);
    first.until("the first records", |_| project.bronze_rows() == 10);
    send(20);
    // Then the consumer has them, and their chunk waits for the interval.
    first.until("records that are not in bronze", |daemon| daemon.json("/api/status")["lag"] == 20);
    first.signal(libc::SIGSTOP);
    let mut second = Daemon::start(&project);
    second.until_within(Duration::from_secs(120), "the records by another daemon", |_| project.bronze_rows() == 30);
    first.signal(libc::SIGCONT);
    first.until_logged("bronze is fenced", 1);
    send(5);
    second.until("the last records", |_| project.bronze_rows() >= 35);
    first.stop();
    second.stop();
    assert_eq!(project.bronze_rows(), 35);
    project.silverd(&["verify"]);
}

/// The daemons share the partitions. The fence in the log rejects what both commit at the same time.
#[test]
fn two_daemons_write_every_event_once() {
    let options = TableOptions { dedup_within_s: Some(600), late_after_s: Some(120) };
    let project = Project::with_options("two", "interval = \"50ms\"\nrows_max = 400", options);
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker has no consumer groups of several processes");
        return;
    }
    let generator = Generator::start(&project, 2000);
    let start = || Daemon::start_with(&project, &ARGS, &[]);
    let mut first = start();
    until_committed(&mut first, &project, 20);
    let mut second = start();
    until_committed(&mut second, &project, 150);
    first.kill();
    until_committed(&mut second, &project, 200);
    let mut third = start();
    until_committed(&mut third, &project, 300);
    second.stop();
    third.stop();
    generator.stop();

    project.silverd(&["run", "--drain"]);
    println!("{:?}", expected::check(&project));
}
