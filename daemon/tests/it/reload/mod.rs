//! Plugin versions and configurations that change while silverd runs: no event is lost or transformed twice.

mod config_edits;
mod deploy;
mod first_versions;
mod random_builds;
mod restarts;
mod rollback;
mod stuck_bronze;
mod swaps;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::harness::{self, Project, root, verify};

const MARKER: &[u8] = b"label:one";
const LABEL_LEN: usize = 32;

/// The plugin of `plugins/fixtures/versions` with another label.
pub(super) fn version(label: &str) -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let mut wasm = BUILT
        .get_or_init(|| {
            let wasm = silverd::plugin::build::wasm_of(&root().join("plugins/fixtures/versions")).unwrap();
            std::fs::read(wasm).unwrap()
        })
        .clone();
    let at = wasm.windows(MARKER.len()).position(|bytes| bytes == MARKER).unwrap();
    let text = format!("{:<LABEL_LEN$}", format!("label:{label}"));
    wasm[at..at + LABEL_LEN].copy_from_slice(text.as_bytes());
    wasm
}

fn digest(wasm: &[u8]) -> String {
    silverd::plugin::Digest::of(wasm).as_str().to_owned()
}

/// A project with a table `hits` of page views, whose plugin is the file hits.wasm.
pub(super) fn project(name: &str, sections: &str) -> Project {
    let project = Project::with_sections(name, &format!("{sections}\n{}", hits_section("")));
    install(&project, &version("one"));
    project
}

fn hits_section(keys: &str) -> String {
    format!(
        "[silver.hits]\nplugin = \"hits.wasm\"\nmatch = {{ field = \"event_type\", equals = \"page_view\" }}\n\
         event_time = \"ts\"\n{keys}"
    )
}

/// Replaces the plugin's file as cargo does, in one step.
pub(super) fn install(project: &Project, wasm: &[u8]) {
    let folder = project.folder.path();
    std::fs::write(folder.join("hits.new"), wasm).unwrap();
    std::fs::rename(folder.join("hits.new"), folder.join("hits.wasm")).unwrap();
}

/// Sends page views with these ids.
pub(super) fn send(project: &Project, ids: impl IntoIterator<Item = String>) {
    let line =
        |id: String| format!(r#"{{"event_type": "page_view", "event_id": "{id}", "ts": "2025-08-16T14:50:49Z"}}"#);
    project.send_lines(ids.into_iter().map(line));
}

/// The number of rows of `hits`.
pub(super) fn hits(project: &Project) -> usize {
    if project.has_table("hits") { harness::rows(&project.path("hits")).len() } else { 0 }
}

/// The number of rows that each version produced.
fn rows_by_version(project: &Project) -> BTreeMap<String, u64> {
    let rows = project.query("select version, count(*) as n from hits group by version");
    rows.iter().map(|row| (row["version"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap())).collect()
}

#[track_caller]
fn verify_ok(project: &Project, args: &[&str]) {
    let (report, code) = verify(project.folder.path(), args);
    assert_eq!(code, Some(0), "{report:#}");
}
