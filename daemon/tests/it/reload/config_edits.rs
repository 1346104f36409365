//! Random edits of pipeline.toml under load: a valid one is applied, and an invalid one is reported and changes
//! nothing.

use std::collections::BTreeSet;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{hits_section, install, verify_ok, version};
use crate::harness::{Daemon, Generator, Project, expected, rounds, seed};

const APPLIED: &str = "and is applied: ";
const REJECTED: &str = "nothing was changed: the previous pipeline keeps running";

#[test]
fn random_edits_of_the_pipeline_lose_no_event() {
    let mut rng = StdRng::seed_from_u64(seed());
    let project = Project::new("edited", "interval = \"100ms\"");
    install(&project, &version("one"));
    let eps = if project.broker.is_kafka() { 20_000 } else { 2_000 };
    let edits = rounds(&project, 20);
    let text = project.pipeline();
    let mut daemon = Daemon::start(&project);
    let generator = Generator::start(&project, eps);
    daemon.until("the first rows", |_| project.has_table("page_view"));
    let mut kinds = BTreeSet::new();
    let mut current = text.clone();
    for number in 0..edits {
        let Edit { kind, edited, is_valid } = random_edit(&text, &mut rng, number);
        kinds.insert(kind);
        if edited == current {
            continue;
        }
        let message = if is_valid { APPLIED } else { REJECTED };
        let before = daemon.count_logged(message);
        save(&project.pipeline_file(), &edited, rng.random());
        daemon.until(&format!("{kind}: {message}"), |daemon| daemon.count_logged(message) > before);
        if is_valid {
            current = edited;
        }
    }
    save(&project.pipeline_file(), &text, true);
    drop(generator);
    println!("{edits} edits of {} kinds at {eps} events/s", kinds.len());
    let log = daemon.stop();
    let messages = log.iter().filter_map(|line| line["fields"]["message"].as_str());
    for message in messages.filter(|message| message.contains("unknown key")) {
        assert!(message.contains("pipeline.toml:") && message.contains("did you mean"), "{message}");
    }
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    verify_ok(&project, &[]);
}

/// Saves a file as editors do: by a rename, or by writing into it.
fn save(path: &Path, text: &str, rename: bool) {
    if rename {
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    } else {
        std::fs::write(path, text).unwrap();
    }
}

struct Edit {
    kind: &'static str,
    edited: String,
    is_valid: bool,
}

fn random_edit(text: &str, rng: &mut StdRng, number: usize) -> Edit {
    let valid = |kind, edited| Edit { kind, edited, is_valid: true };
    let invalid = |kind, edited| Edit { kind, edited, is_valid: false };
    let with = |section: &str| format!("{text}\n{section}\n");
    let some = number + rng.random_range(1..4);
    match rng.random_range(0..12) {
        0 => valid("interval", text.replace("interval = \"100ms\"", &format!("interval = \"{}ms\"", 50 + some))),
        1 => valid("a table removed", without_table(text, ["page_view", "add_to_cart", "order_placed"][some % 3])),
        2 => valid("a table added", with(&hits_section(&format!("settings = {{ given = \"{some}\" }}")))),
        3 => valid("limits", with(&format!("[limits]\nbatch_rows_max = {}", 1_000 + some))),
        4 => valid(
            "gold",
            with(&format!(
                "[gold.views]\nsql = \"SELECT event_date, count(*) AS n, {some} AS x FROM page_view GROUP BY event_date\""
            )),
        ),
        5 => valid(
            "the consumer",
            text.replace("[source]\n", &format!("[source]\nkafka = {{ \"fetch.wait.max.ms\" = {} }}\n", 100 + some)),
        ),
        6 => valid(
            "compression",
            text.replace(
                "[silver.page_view]\n",
                &format!("[silver.page_view]\ncompression = \"zstd({})\"\n", 1 + some % 5),
            ),
        ),
        7 => invalid("no TOML", with("[silver.page_view")),
        8 => invalid("an unknown key", text.replace("interval = \"100ms\"", "intervall = \"100ms\"")),
        // A new table: the plugin of one that runs is checked by its reloader.
        9 => invalid("a missing plugin", with(&hits_section("").replace("hits", "misses"))),
        10 => invalid("invalid SQL", with("[gold.views]\nsql = \"SELEKT\"")),
        _ => invalid("a file that ends early", text[..text.find("[silver.add_to_cart]").unwrap() + 40].to_owned()),
    }
}

fn without_table(text: &str, name: &str) -> String {
    let from = text.find(&format!("[silver.{name}]")).unwrap();
    let to = text[from + 1..].find("\n[").map_or(text.len(), |to| from + 2 + to);
    let mut text = text.to_owned();
    text.replace_range(from..to, "");
    text
}
