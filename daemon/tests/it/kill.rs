//! `kill -9`, again and again, under load: nothing is lost, and nothing is there twice; neither by the daemon nor by the
//! corrections that run beside it.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::harness::{Asked, Project, wait};
use super::pipeline::send_odd_ones;
use super::truth::{self, SILVER};

/// A little generator of our own, so that a seed gives the same moments on every machine.
struct Moments(u64);

impl Moments {
    fn next(&mut self, max: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        max.mul_f64((self.0 >> 33) as f64 / f64::from(1u32 << 31))
    }
}

#[test]
fn killed_at_any_moment_every_event_is_there_once() {
    let seed = match std::env::var("SILVERD_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos().into(),
    };
    println!("SILVERD_TEST_SEED={seed}");
    let mut moments = Moments(seed);
    let asked = Asked { dedup_within_s: Some(600), ..Asked::default() };
    let project = Project::asking("kill", "interval_ms = 50\nrows_max = 400", asked);
    let kills = if project.broker.is_kafka() { 50 } else { 10 };
    let address = project.broker.address();
    let mut generator = project
        .command(&["generate", "--bootstrap", &address, "--topic", &project.topic, "--eps", "600", "--for", "400s"])
        .args(["--dup-pct", "10"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The tables are there before the first kill.
    send_odd_ones(&project);
    project.silverd(&["run", "--drain"]);
    let (mut kill, mut while_writing, mut corrected) = (0, 0, 0);
    while kill < kills {
        if kill % 5 == 0 {
            send_odd_ones(&project);
        }
        let before = commits(&project);
        let mut daemon = project.command(&["run", "--log", "warn"]).stdout(Stdio::null()).spawn().unwrap();
        // Beside every other daemon, history is made anew; the kill hits both.
        let mut correction = (kill % 2 == 1).then(|| correct(&project, kill));
        match kill % 3 {
            // Anywhere, the starting included.
            0 => std::thread::sleep(moments.next(Duration::from_millis(2_500))),
            // In the instant in which a commit appears in the log of some table.
            1 => assassin(&project, daemon.id(), 1 + moments.next(Duration::from_millis(12)).as_millis() as usize),
            // A while behind the first commits.
            _ => {
                await_commits(&project, before + 2, &mut daemon);
                std::thread::sleep(moments.next(Duration::from_millis(400)));
            }
        }
        let _ = daemon.kill();
        daemon.wait().unwrap();
        if let Some(correction) = &mut correction {
            corrected += usize::from(correction.try_wait().unwrap().is_some_and(|status| status.success()));
            let _ = correction.kill();
            correction.wait().unwrap();
        }
        while_writing += usize::from(commits(&project) > before);
        // Whatever was cut off, what is committed is conserved.
        project.silverd(&["verify"]);
        kill += 1;
    }
    terminate(&generator);
    assert!(wait(&mut generator, Duration::from_secs(30)).is_some_and(|status| status.success()));
    assert!(while_writing >= kills / 2, "only {while_writing} of {kills} kills hit a daemon that wrote");

    project.silverd(&["run", "--drain"]);
    for args in [["rebuild", "page_view"], ["quarantine", "replay"]] {
        project.silverd(&args);
    }
    project.silverd(&["verify"]);
    let counts = truth::check(&project);
    assert!(counts["quarantine"] > 0, "rejects, too, are there once");
    println!("{kills} kills, {while_writing} of them behind a commit, {corrected} corrections whole: {counts:?}");
}

/// A rebuild of a table, or a replay of the quarantine, under way.
fn correct(project: &Project, kill: usize) -> Child {
    let args: &[&str] = match kill % 8 {
        1 => &["rebuild", "page_view"],
        3 => &["rebuild", "add_to_cart"],
        5 => &["rebuild", "order_placed"],
        _ => &["quarantine", "replay"],
    };
    project.command(args).args(["--log", "error"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn await_commits(project: &Project, wanted: usize, daemon: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while commits(project) < wanted {
        assert!(Instant::now() < deadline, "a run of 60 s has committed nothing");
        assert!(daemon.try_wait().unwrap().is_none(), "silverd has ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a process as soon as the `nth` commit from now on appears in any table's log: between two commits that belong
/// together, if there are such.
fn assassin(project: &Project, victim: u32, nth: usize) {
    let (told, heard) = std::sync::mpsc::channel();
    let mut seen = 0;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let created = matches!(event.kind, notify::EventKind::Create(_));
        seen += event.paths.iter().filter(|path| created && path.extension().is_some_and(|e| e == "json")).count();
        if seen >= nth {
            // SAFETY: sends a signal to a child that has not been waited for.
            unsafe { libc::kill(victim as i32, libc::SIGKILL) };
            let _ = told.send(());
        }
    })
    .unwrap();
    for table in SILVER.into_iter().chain(["bronze", "quarantine"]) {
        notify::Watcher::watch(
            &mut watcher,
            &project.path(table).join("_delta_log"),
            notify::RecursiveMode::NonRecursive,
        )
        .unwrap();
    }
    heard.recv_timeout(Duration::from_secs(60)).expect("a run of 60 s has committed");
}

/// How many commits Bronze's log has.
fn commits(project: &Project) -> usize {
    let log = project.path("bronze").join("_delta_log");
    let entries = std::fs::read_dir(log).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count()
}

fn terminate(child: &Child) {
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
}

/// Two daemons on one topic and one set of tables: they share the partitions, one comes, one is killed, and what both
/// write at once the log's fence keeps apart.
#[test]
fn two_at_once_write_every_event_once() {
    let asked = Asked { dedup_within_s: Some(600), late_after_s: Some(120) };
    let project = Project::asking("two", "interval_ms = 50\nrows_max = 400", asked);
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker is one daemon's own");
        return;
    }
    let address = project.broker.address();
    let mut generator = project
        .command(&["generate", "--bootstrap", &address, "--topic", &project.topic, "--eps", "2000", "--for", "200s"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = || project.command(&["run", "--log", "warn"]).stdout(Stdio::null()).spawn().unwrap();
    let mut first = start();
    await_commits(&project, 20, &mut first);
    let mut second = start();
    await_commits(&project, 150, &mut second);
    first.kill().unwrap();
    first.wait().unwrap();
    await_commits(&project, 200, &mut second);
    let mut third = start();
    await_commits(&project, 300, &mut third);
    terminate(&second);
    assert!(wait(&mut second, Duration::from_secs(60)).is_some_and(|status| status.success()));
    terminate(&third);
    assert!(wait(&mut third, Duration::from_secs(60)).is_some_and(|status| status.success()));
    terminate(&generator);
    assert!(wait(&mut generator, Duration::from_secs(30)).is_some_and(|status| status.success()));

    project.silverd(&["run", "--drain"]);
    println!("{:?}", truth::check(&project));
}
