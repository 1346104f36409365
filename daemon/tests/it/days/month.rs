//! A month of a shop in some minutes: the daemon's wall clock is fast (`fast_clock.c`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use silverd::runtime::clock;

use super::super::harness::{Daemon, Project, root, rows, seed};
use super::super::kill::random_time;
use super::super::reload::{install, version};
use super::{NamedTable, check_tables, publications, status_path};

const DAYS: i64 = 30;
const DAY: i64 = 24 * 60 * 60 * 1_000_000;
const HOUR: i64 = DAY / 24;
/// How long a day is in reality.
const REAL_DAY_S: i64 = 5;
const SPEED: i64 = 24 * 60 * 60 / REAL_DAY_S;
/// The month ends before the real present time, so that files, whose times are the kernel's, are never old.
const BEGINS_DAYS_AGO: i64 = 40;
const KILLS: usize = 10;
/// The topic has one more, without events.
const PARTITIONS_WITH_EVENTS: i32 = 3;

const SECTIONS: &str = r#"
[commit]
interval = "200ms"

[days]
final_after = "6h"

[silver.hits]
plugin = "hits.wasm"
match = { field = "event_type", equals = "page_view" }
event_time = "ts"
path = "data/silver/hits"
dedup = { by = ["event_id"], within = "24h" }

[silver.orders]
match = { field = "event_type", equals = "order" }
event_time = "ts"
path = "data/silver/orders"
late_after = "12h"
dedup = { by = ["event_id"], within = "24h" }
input = { event_id = "string", ts = "timestamp", cents = "s64" }
sql = "SELECT event_id, ts, cents FROM event"

[gold.visits]
sql = "SELECT event_date, count(*) AS n FROM hits GROUP BY event_date"
refresh = "1s"

[gold.sales]
sql = "SELECT event_date, count(*) AS n, sum(cents) AS cents FROM orders GROUP BY event_date"
refresh = "1s"
"#;

const TABLES: [NamedTable; 4] = [
    ("hits", "data/silver/hits"),
    ("orders", "data/silver/orders"),
    ("gold.visits", "data/gold/visits"),
    ("gold.sales", "data/gold/sales"),
];

/// The wall clock of the month.
struct FastClock {
    /// Of the real clock, in microseconds, when this one was at `from`.
    since: i64,
    from: i64,
    library: PathBuf,
}

impl FastClock {
    /// `None` without a C compiler.
    fn compile(folder: &Path) -> Option<Self> {
        let (library, source) = (folder.join("fast_clock.so"), root().join("daemon/tests/it/days/fast_clock.c"));
        let mut cc = Command::new("cc");
        // The functions of the clock are those of silverd-bench.
        cc.arg("-I").arg(root().join("daemon/bench/src/chaos"));
        let compiled = cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        match compiled {
            Err(failure) if failure.kind() == ErrorKind::NotFound => return None,
            compiled => assert!(compiled.unwrap().success(), "fast_clock.c does not compile"),
        }
        let since = clock::now_micros();
        Some(Self { since, from: (since / DAY - BEGINS_DAYS_AGO) * DAY, library })
    }

    fn now(&self) -> i64 {
        self.from + (clock::now_micros() - self.since) * SPEED
    }

    fn env(&self) -> [(&'static str, String); 2] {
        let clock = format!("{} {} {SPEED}", self.since * 1_000, self.from * 1_000);
        [("FAST_CLOCK", clock), ("LD_PRELOAD", self.library.display().to_string())]
    }

    fn daemon(&self, project: &Project) -> Daemon {
        let env = self.env();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Daemon::start_with(project, &["run", "--log-format", "json"], &env)
    }
}

/// The rows of a day: how many, and the sum of their cents.
type Day = (i64, i64);
/// What the tables must contain, by table and day.
type Expected = BTreeMap<(&'static str, i64), Day>;

/// Sends events, and knows the rows that they become.
struct Shop<'m> {
    name: &'static str,
    topic: &'m str,
    clock: &'m FastClock,
    producer: BaseProducer,
    random: StdRng,
    sent: Vec<String>,
    expected: Expected,
}

impl<'m> Shop<'m> {
    fn new(name: &'static str, project: &'m Project, clock: &'m FastClock, seed: u64) -> Self {
        let (producer, random) = (project.producer(), StdRng::seed_from_u64(seed));
        Self { name, topic: &project.topic, clock, producer, random, sent: Vec::new(), expected: Expected::new() }
    }

    fn produce(&mut self, line: &str) {
        let partition = self.random.random_range(0..PARTITIONS_WITH_EVENTS);
        let record = BaseRecord::<(), _>::to(self.topic).payload(line).partition(partition);
        let record = record.timestamp(self.clock.now() / 1_000);
        self.producer.send(record).map_err(|(failure, _)| failure).unwrap();
    }

    /// An event of a table at this time.
    fn send(&mut self, table: &'static str, micros: i64, mark: &str) {
        let cents = if table == "orders" { self.random.random_range(1..10_000) } else { 0 };
        let kind = if table == "orders" { "order" } else { "page_view" };
        let time = DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true);
        let id = format!("{mark}{}-{}", self.name, self.sent.len());
        let line = json!({ "event_type": kind, "event_id": id, "ts": time, "cents": cents }).to_string();
        self.produce(&line);
        self.sent.push(line);
        let day = self.expected.entry((table, micros.div_euclid(DAY))).or_default();
        *day = (day.0 + 1, day.1 + cents);
    }

    fn send_any(&mut self, micros: i64) {
        let table = if self.random.random_bool(0.5) { "hits" } else { "orders" };
        self.send(table, micros, "");
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Events of now, late ones, duplicates, and once many of days before the month.
    fn open_for_a_month(mut self) -> Expected {
        let end = self.clock.from + DAYS * DAY;
        let mut is_backfilled = false;
        while self.clock.now() < end {
            let now = self.clock.now();
            for _ in 0..4 {
                let ago = self.random.random_range(0..6 * HOUR);
                self.send_any(now - ago);
            }
            if self.random.random_bool(0.05) {
                let late = self.random.random_range(DAY..4 * DAY);
                self.send_any(now - late);
            }
            if self.random.random_bool(0.2) {
                let again = self.random.random_range(0..self.sent.len());
                let line = self.sent[again].clone();
                self.produce(&line);
            }
            if !is_backfilled && now > self.clock.from + 12 * DAY {
                is_backfilled = true;
                for _ in 0..60 {
                    let before = self.random.random_range(20 * DAY..26 * DAY);
                    self.send_any(self.clock.from - before);
                }
            }
            self.producer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(is_backfilled);
        self.flush();
        self.expected
    }
}

/// Days were changed by a version of the plugin that is rolled back, and change again as its rows are rebuilt.
fn roll_back(project: &Project, daemon: &mut Daemon, shop: &mut Shop<'_>) {
    install(project, &version("two traps-on-boom"));
    daemon.until_logged("the plugin was swapped", 1);
    for ago in 0..20 {
        let now = shop.clock.now();
        shop.send("hits", now - ago * 6 * HOUR, "");
    }
    shop.flush();
    let is_of_two = |row: &super::Row| row["version"].as_str().is_some_and(|version| version.starts_with("two"));
    daemon.until("rows of the second version", |_| rows(&project.path("hits")).iter().any(is_of_two));
    for _ in 0..10 {
        let now = shop.clock.now();
        shop.send("hits", now, "boom-");
    }
    shop.flush();
    daemon.until_logged("the new plugin version is rolled back", 1);
    daemon.until_logged("rebuilt the rows of the failed version", 1);
    daemon.until("no row of the second version", |_| !rows(&project.path("hits")).iter().any(is_of_two));
}

/// What a table contains, by day. Of Silver the rows are counted here; Gold has counted them.
fn contents(project: &Project, (table, folder): NamedTable) -> BTreeMap<i64, Day> {
    let mut days = BTreeMap::<i64, Day>::new();
    for row in rows(&project.folder.path().join(folder)) {
        let count = if table.starts_with("gold.") { row["n"].as_i64().unwrap() } else { 1 };
        let cents = row.get("cents").and_then(serde_json::Value::as_i64).unwrap_or(0);
        let day = days.entry(row["event_date"].as_i64().unwrap()).or_default();
        *day = (day.0 + count, day.1 + cents);
    }
    days
}

/// The days that are not final: of these, and those with a state that are no later.
fn not_final(project: &Project, last: i64, days: &BTreeSet<(&'static str, i64)>) -> Vec<(String, i64)> {
    let rows = rows(&status_path(project));
    let of_row = |row: &super::Row| {
        let (table, day) = (row["table_name"].as_str().unwrap().to_owned(), row["event_date"].as_i64().unwrap());
        ((table, day), row["state"] == "final")
    };
    let states: BTreeMap<(String, i64), bool> = rows.iter().map(of_row).collect();
    let missing = days.iter().map(|(table, day)| ((*table).to_owned(), *day)).filter(|day| !states.contains_key(day));
    let provisional = states.iter().filter(|((_, day), is_final)| *day <= last && !**is_final);
    missing.chain(provisional.map(|(day, _)| day.clone())).collect()
}

#[test]
#[ignore = "takes minutes: `.ci/full days`"]
fn a_month_in_a_fast_clock() {
    let project = Project::with_topic("days-month", SECTIONS);
    install(&project, &version("one"));
    let mut random = StdRng::seed_from_u64(seed());
    let Some(clock) = FastClock::compile(project.folder.path()) else {
        println!("there is no C compiler `cc`, which the fast clock needs: nothing was tested");
        return;
    };
    let shop = Shop::new("a", &project, &clock, random.random());
    let mut till = Shop::new("b", &project, &clock, random.random());
    let expected = std::thread::scope(|scope| {
        let month = scope.spawn(|| shop.open_for_a_month());
        for kill in 0..KILLS {
            let mut daemon = clock.daemon(&project);
            if kill == KILLS / 2 {
                roll_back(&project, &mut daemon, &mut till);
            }
            std::thread::sleep(random_time(&mut random, 22_000));
            let correction = (kill % 3 == 1).then(|| {
                let mut rebuild = project.command(&["rebuild", "orders", "--log", "error"]);
                rebuild.envs(clock.env()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            });
            std::thread::sleep(random_time(&mut random, 1_500));
            daemon.kill();
            if let Some(mut correction) = correction {
                let _ = correction.kill();
                correction.wait().unwrap();
            }
            check_tables(&project, &TABLES);
        }
        let mut daemon = clock.daemon(&project);
        let mut expected = month.join().unwrap();
        for (day, (count, cents)) in std::mem::take(&mut till.expected) {
            let known = expected.entry(day).or_default();
            *known = (known.0 + count, known.1 + cents);
        }
        let of_table = |table: &str| -> BTreeMap<i64, Day> {
            expected.iter().filter(|((of, _), _)| *of == table).map(|((_, day), rows)| (*day, *rows)).collect()
        };
        for (named, source) in TABLES.into_iter().zip(["hits", "orders", "hits", "orders"]) {
            let right = of_table(source);
            daemon.until(&format!("{} is equal to the count", named.0), |_| contents(&project, named) == right);
        }
        let days: BTreeSet<(&str, i64)> = expected
            .keys()
            .flat_map(|(table, day)| {
                [(*table, *day), (if *table == "hits" { "gold.visits" } else { "gold.sales" }, *day)]
            })
            .collect();
        let last = days.iter().map(|(_, day)| *day).max().unwrap();
        daemon.until(&format!("all days up to {last} are final"), |_| not_final(&project, last, &days).is_empty());
        daemon.stop();
        // Final, and still equal.
        for (named, source) in TABLES.into_iter().zip(["hits", "orders", "hits", "orders"]) {
            assert_eq!(contents(&project, named), of_table(source), "{}", named.0);
        }
        let left = not_final(&project, last, &days);
        assert!(left.is_empty(), "{left:?}");
        expected
    });
    let (compared, revoked) = check_tables(&project, &TABLES);
    let events: i64 = expected.values().map(|(count, _)| count).sum();
    let versions = super::entries(&status_path(&project)).len();
    println!(
        "{events} events of {} days; {compared} changes of days, {} published states in {versions} versions; {revoked} final \
         days were called provisional",
        expected.len(),
        publications(&project).len(),
    );
    assert!(expected.len() >= usize::try_from(2 * DAYS).unwrap(), "{}", expected.len());
    assert!(revoked >= 10, "late events, the backfill and the rebuilds change final days: {revoked}");
    project.silverd(&["verify"]);
}
