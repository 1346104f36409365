//! Links between the pages: their files and headings must exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::harness::root;
use super::blocks::{pages, text_of};

/// The pages whose links are checked.
pub fn pages_with_links() -> impl Iterator<Item = PathBuf> {
    let others = ["CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md", ".github/pull_request_template.md"];
    pages().into_iter().chain(others.map(PathBuf::from))
}

/// The links of a page that lead nowhere.
pub fn broken_in(page: &Path) -> Vec<String> {
    let mut errors = Vec::new();
    for (number, target) in links_of(&text_of(page)) {
        let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
        let place = format!("{}:{number}", page.display());
        let path = match file {
            "" => page.to_path_buf(),
            file => resolved(page, file),
        };
        if !root().join(&path).exists() {
            errors.push(format!("{place}: {target}: there is no {}", path.display()));
        } else if !heading.is_empty() && path.extension().is_some_and(|extension| extension == "md") {
            let anchors = anchors_of(&text_of(&path));
            if !anchors.iter().any(|anchor| anchor == heading) {
                errors.push(format!("{place}: {target}: {} has no such heading", path.display()));
            }
        }
    }
    errors
}

/// A path relative to a page, as one in the repository.
fn resolved(page: &Path, file: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

/// The targets of links and images, with the number of the line. Those that begin with a scheme are not ours.
fn links_of(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split(' ').next().unwrap_or_default();
            if !target.contains(':') {
                links.push((number, target.to_owned()));
            }
        }
    }
    links
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let is_fence = line.trim_start().starts_with("```");
        inside ^= is_fence;
        (!inside && !is_fence).then_some((number + 1, line))
    })
}

/// The anchors of the headings: letters, digits and `-` for each space.
fn anchors_of(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let anchors = headings.map(|(_, line)| {
        let title = line.trim_start_matches('#').trim().replace("&lt;", "<").replace("&gt;", ">");
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        let anchor: String =
            kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect();
        let times = seen.entry(anchor.clone()).or_default();
        *times += 1;
        if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
    });
    anchors.collect()
}

#[test]
fn headings_have_the_anchors_of_github() {
    let text = "# A `pipeline.toml`, and more\n```sh\n# no heading\n```\n## Same\n## Same\n";
    assert_eq!(anchors_of(text), ["a-pipelinetoml-and-more", "same", "same-1"]);
    let links = links_of("[a](b.md#c) and ![p](x.png \"title\") `[no](one)`\n[far](https://x.y/z)\n");
    assert_eq!(links, [(1, "b.md#c".to_owned()), (1, "x.png".to_owned()), (1, "one".to_owned())]);
}
