//! `kill -9`, again and again, under load: nothing is lost, and nothing is there twice.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::harness::{Project, wait};
use super::pipeline::send_odd_ones;
use super::truth;

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
    let project = Project::new("kill", "interval_ms = 50\nrows_max = 400");
    let kills = if project.broker.is_kafka() { 50 } else { 10 };
    let address = project.broker.address();
    let mut generator = project
        .command(&["generate", "--bootstrap", &address, "--topic", &project.topic, "--eps", "600", "--for", "400s"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (mut kill, mut while_writing) = (0, 0);
    while kill < kills {
        if kill % 5 == 0 {
            send_odd_ones(&project);
        }
        let before = commits(&project);
        let mut daemon = project.command(&["run", "--log", "warn"]).stdout(Stdio::null()).spawn().unwrap();
        // Half of the kills fall anywhere, the starting included; the others behind a commit of this run.
        if kill % 2 == 0 {
            let deadline = Instant::now() + Duration::from_secs(60);
            while commits(&project) < before + 2 {
                assert!(Instant::now() < deadline, "a run of 60 s has committed nothing");
                assert!(daemon.try_wait().unwrap().is_none(), "silverd has ended by itself");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        std::thread::sleep(moments.next(Duration::from_millis(400)));
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        while_writing += usize::from(commits(&project) > before);
        kill += 1;
    }
    terminate(&generator);
    assert!(wait(&mut generator, Duration::from_secs(30)).is_some_and(|status| status.success()));
    assert!(while_writing >= kills / 2, "only {while_writing} of {kills} kills hit a daemon that wrote");

    project.silverd(&["run", "--drain"]);
    let counts = truth::check(&project);
    assert!(counts["quarantine"] > 0, "rejects, too, are there once");
    println!("{kills} kills, {while_writing} of them behind a commit: {counts:?}");
}

/// How many commits Bronze's log has.
fn commits(project: &Project) -> usize {
    let log = project.path("bronze").join("_delta_log");
    let entries = std::fs::read_dir(log).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count()
}

fn terminate(child: &std::process::Child) {
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
}
