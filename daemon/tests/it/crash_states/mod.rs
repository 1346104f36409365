//! Power cuts: a run of the real program is recorded, and each state that a disk may have after a cut is opened again.
//!
//! `recorder.c` records the program's writes, renames and synchronizations, and what it reports as committed. After each
//! operation the power may go: what was synchronized is there, and any part of the rest ([`disk`]). Every table must open, have each
//! event once up to its progress, and all that was reported as committed.

mod disk;
mod recovery;
mod trace;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::harness::{Project, root, seed};
use disk::{Files, Kept, Moment, hash_of};
use recovery::{CheckedTable, Found, Recovery};
use trace::{Object, Operation, Trace};

/// States that the suite opens; `SILVERD_TEST_STATES` sets another number.
const STATES: usize = 2_000;

const TABLES: [CheckedTable; 5] = [
    CheckedTable { name: "bronze", folder: "bronze/events", place: Some(["partition", "offset"]) },
    silver("page_view", "silver/page_view"),
    silver("add_to_cart", "silver/add_to_cart"),
    silver("order_placed", "silver/order_placed"),
    CheckedTable { name: "quarantine", folder: "quarantine", place: None },
];

const fn silver(name: &'static str, folder: &'static str) -> CheckedTable {
    CheckedTable { name, folder, place: Some(["_partition", "_offset"]) }
}

/// The recorder, compiled.
fn recorder() -> PathBuf {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recorder-{}.so", std::process::id()));
    let source = root().join("daemon/tests/it/crash_states/recorder.c");
    let compiled =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(compiled.unwrap().success());
    library
}

/// A run with commits to all tables, checkpoints, compaction and a rebuild.
fn record() -> Trace {
    let project = Project::new("crash-states", "interval = \"20ms\"\nrows_max = 120");
    let data = project.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (library, record) = (recorder(), project.folder.path().join("record"));
    let inode = std::fs::metadata(&data).unwrap().ino();
    let silverd = |args: &[&str]| {
        let output = project
            .command(args)
            .env("LD_PRELOAD", &library)
            .env("RECORD_ROOT", &data)
            .env("RECORD_FILE", &record)
            .env("SILVERD_LOG", "error,silverd::delta::commit=debug")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for seed in ["1", "2"] {
        project.generate(&["--count", "3000", "--seed", seed]);
        project.send_odd_events();
        silverd(&["run", "--drain"]);
    }
    silverd(&["maintain"]);
    silverd(&["rebuild", "page_view"]);
    let trace = Trace::read(&std::fs::read(&record).unwrap(), inode);
    std::fs::remove_file(library).unwrap();
    trace
}

/// The table and the version that a line of the log reports as committed.
fn committed(line: &str) -> Option<(&str, u64)> {
    let rest = line.split_once("committed ")?.1;
    let field = |name: &str| rest.split_whitespace().find_map(|part| part.strip_prefix(name));
    Some((field("table=")?.trim_matches('"'), field("version=")?.parse().ok()?))
}

/// What a synchronization is for.
fn kind_of(trace: &Trace, operation: &Operation) -> &'static str {
    let Operation::Sync(object) = operation else { return "several data files" };
    kind_of_object(trace, *object)
}

fn kind_of_object(trace: &Trace, object: Object) -> &'static str {
    let name = trace.names[object].as_str();
    match (trace.is_folder[object], name) {
        (true, "_delta_log") => "the folder of a log",
        (true, name) if name.starts_with("event_date=") => "the folder of a data file",
        (true, _) => "another folder",
        (false, name) if name.contains("checkpoint") => "a checkpoint",
        (false, name) if name.contains(".json") && name.starts_with("000") => "an entry of a log",
        (false, name) if name.contains(".parquet") => "a data file",
        (false, _) => "another file",
    }
}

struct Search<'t> {
    trace: &'t Trace,
    recovery: &'t mut Recovery,
    /// The states that were opened.
    states: HashSet<u64>,
    moments: usize,
    violations: Vec<String>,
}

/// A recovery that takes the tables at the end of a run for right.
fn recovery_of(trace: &Trace) -> Recovery {
    let (mut recovery, mut moment) = (Recovery::new(), Moment::default());
    (0..trace.operations.len()).for_each(|at| moment.advance(trace, at, true));
    let tree = moment.disk(trace, |_| Kept::Whole).tree(trace);
    for table in &TABLES {
        recovery.expect(table, &files_of(&tree, table.folder));
    }
    recovery
}

impl<'t> Search<'t> {
    fn new(trace: &'t Trace, recovery: &'t mut Recovery) -> Self {
        Self { trace, recovery, states: HashSet::new(), moments: 0, violations: Vec::new() }
    }

    /// Opens states after each operation, `states_max` at most. Synchronizations for which `counts` is false have no effect.
    fn run(&mut self, states_max: usize, random: &mut StdRng, counts: impl Fn(&Operation) -> bool) {
        let (mut moment, mut acknowledged) = (Moment::default(), BTreeMap::new());
        // Later operations are as likely as early ones.
        let per_moment = (states_max / self.trace.operations.len()).max(2);
        let share = states_max as f64 / (per_moment * self.trace.operations.len()) as f64;
        for (at, operation) in self.trace.operations.iter().enumerate() {
            moment.advance(self.trace, at, counts(operation));
            if let Operation::Report(text) = operation {
                acknowledged
                    .extend(text.lines().filter_map(committed).map(|(table, version)| (table.to_owned(), version)));
            }
            if !random.random_bool(share.min(1.0)) {
                continue;
            }
            self.moments += 1;
            for _ in 0..per_moment {
                let kept = some_of(&moment.pending, random);
                self.check(&moment, &kept, &acknowledged, at);
            }
            if self.violations.len() > 20 {
                return;
            }
        }
    }

    fn check(
        &mut self,
        moment: &Moment,
        kept: &BTreeMap<usize, Kept>,
        acknowledged: &BTreeMap<String, u64>,
        at: usize,
    ) {
        let tree = moment.disk(self.trace, |operation| kept[&operation]).tree(self.trace);
        if !self.states.insert(hash_of(&tree)) {
            return;
        }
        for table in &TABLES {
            let found = self.recovery.find(table, &files_of(&tree, table.folder));
            let least = acknowledged.get(table.name).copied();
            let fault = match (&found, least) {
                (Found::Failed(failure), _) => Some(failure.clone()),
                (Found::Nothing, Some(least)) => Some(format!("the table is gone, version {least} was committed")),
                (Found::Table { version }, Some(least)) if *version < least => {
                    Some(format!("version {version} is the newest, version {least} was committed"))
                }
                _ => None,
            };
            if let Some(fault) = fault {
                let lost: Vec<_> = kept.iter().filter(|(_, kept)| **kept != Kept::Whole).collect();
                let lost = lost.iter().map(|(at, kept)| format!("{at} {kept:?}: {}", self.describe(**at)));
                let lost = lost.collect::<Vec<_>>().join("\n    ");
                let text = format!("{}, after operation {at}: {fault}\n  of the pending ones:\n    {lost}", table.name);
                self.violations.push(text);
            }
        }
    }

    fn describe(&self, at: usize) -> String {
        let name = |object: &Object| format!("{} {}", kind_of_object(self.trace, *object), self.trace.names[*object]);
        match &self.trace.operations[at] {
            Operation::Names(changes) => changes
                .iter()
                .map(|(folder, entry, object)| match object {
                    Some(_) => format!("{entry} in {}", self.trace.names[*folder]),
                    None => format!("{entry} removed from {}", self.trace.names[*folder]),
                })
                .collect::<Vec<_>>()
                .join(", "),
            Operation::Write { file, bytes, .. } => format!("{} bytes of {}", bytes.len(), name(file)),
            other => format!("{other:?}"),
        }
    }
}

/// The part of a tree below a folder.
fn files_of(tree: &Files, folder: &str) -> Files {
    let prefix = format!("{folder}/");
    let below = tree.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
    below.map(|(path, content)| (path[prefix.len()..].to_owned(), content.clone())).collect()
}

/// What of the pending operations is on the disk: all, none, all but one, only one, or any of them; torn or not.
fn some_of(pending: &[usize], random: &mut StdRng) -> BTreeMap<usize, Kept> {
    let one = if pending.is_empty() { 0 } else { pending[random.random_range(0..pending.len())] };
    let form = random.random_range(0..6);
    let mut kept = |operation: usize| match form {
        0 => Kept::Nothing,
        1 => Kept::Whole,
        2 if operation == one => [Kept::Nothing, Kept::Half, Kept::Zeros][random.random_range(0..3)],
        2 => Kept::Whole,
        3 if operation == one => Kept::Whole,
        3 => Kept::Nothing,
        4 => [Kept::Nothing, Kept::Whole][random.random_range(0..2)],
        _ => [Kept::Nothing, Kept::Whole, Kept::Whole, Kept::Half, Kept::Zeros][random.random_range(0..5)],
    };
    pending.iter().map(|operation| (*operation, kept(*operation))).collect()
}

/// All states, and then those without each kind of synchronization: each kind is needed.
#[test]
fn no_power_cut_loses_or_doubles_a_commit() {
    let seed = seed();
    let states = std::env::var("SILVERD_TEST_STATES").map_or(STATES, |states| states.parse().unwrap());
    let trace = record();
    let syncs =
        trace.operations.iter().filter(|operation| matches!(operation, Operation::Sync(_) | Operation::SyncAll));
    let kinds: BTreeMap<&str, usize> = syncs.fold(BTreeMap::new(), |mut kinds, sync| {
        *kinds.entry(kind_of(&trace, sync)).or_default() += 1;
        kinds
    });
    println!("{} operations; synchronizations: {kinds:?}", trace.operations.len());
    let mut recovery = recovery_of(&trace);
    let mut search = Search::new(&trace, &mut recovery);
    search.run(states, &mut StdRng::seed_from_u64(seed), |_| true);
    println!(
        "{} states after {} operations, {} tables opened, {} violations",
        search.states.len(),
        search.moments,
        search.recovery.opened,
        search.violations.len()
    );
    assert!(search.violations.is_empty(), "{}", search.violations.join("\n"));
    // What is synchronized besides is no part of a table.
    let of_tables = kinds.into_iter().filter(|(kind, _)| !matches!(*kind, "another file" | "another folder"));
    for (kind, count) in of_tables {
        let mut search = Search::new(&trace, &mut recovery);
        search.run(states, &mut StdRng::seed_from_u64(seed), |sync| kind_of(&trace, sync) != kind);
        println!("without the {count} synchronizations of {kind}: {} violations", search.violations.len());
        assert!(!search.violations.is_empty(), "no state is worse without the synchronization of {kind}");
    }
}
