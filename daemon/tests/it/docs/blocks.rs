//! The code blocks of a page, and what their info strings ask for: `sh`, `sh background`, `text output`, `toml title="…"`.

use std::path::{Path, PathBuf};

use super::super::harness::{root, source_files};

/// A fenced code block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The page and the line, for messages.
    pub place: String,
    pub form: Form,
    pub text: String,
}

/// What is done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A shell script that ends with this exit code.
    Shell {
        exit_code: i32,
    },
    /// A shell script that goes on until the page ends.
    Background,
    Python,
    /// What the shell script before it prints.
    Output,
    /// A whole file.
    File(PathBuf),
    /// Sections of pipeline.toml.
    Toml,
    /// One JSON value, or one in each line.
    Json,
    /// Lines that stand in this page, in this order.
    ExcerptOf(PathBuf),
    /// A part of something that cannot be checked alone.
    Excerpt,
    /// A command that needs what a test has not: Docker, root, a network.
    NoRun,
}

impl Form {
    /// The name under which blocks are counted.
    pub fn name(&self) -> &'static str {
        match self {
            Form::Shell { .. } => "run",
            Form::Background => "run in the background",
            Form::Python => "run by Python",
            Form::Output => "compared with the output",
            Form::File(_) => "written to a file",
            Form::Toml => "checked as pipeline.toml",
            Form::Json => "parsed as JSON",
            Form::ExcerptOf(_) => "compared with another page",
            Form::Excerpt => "not checked: a part",
            Form::NoRun => "not run",
        }
    }

    pub fn needs_page(&self) -> bool {
        matches!(self, Form::Shell { .. } | Form::Background | Form::Python)
    }

    fn parse(info: &str) -> Result<Self, String> {
        let (language, tags) = info.split_once(' ').unwrap_or((info, ""));
        if let Some(path) = quoted(tags, "title") {
            return Ok(Form::File(path.into()));
        }
        if let Some(page) = quoted(tags, "excerpt") {
            return Ok(Form::ExcerptOf(page.into()));
        }
        match (language, tags) {
            ("", _) => Err("the block names no language".to_owned()),
            (_, "no-run") => Ok(Form::NoRun),
            (_, "excerpt") => Ok(Form::Excerpt),
            ("sh", "") => Ok(Form::Shell { exit_code: 0 }),
            ("sh", "background") => Ok(Form::Background),
            ("sh", tag) if tag.starts_with("fails=") => {
                let exit_code = tag["fails=".len()..].parse().map_err(|_| format!("no exit code: {tag}"))?;
                Ok(Form::Shell { exit_code })
            }
            ("python", "") => Ok(Form::Python),
            ("text", "output") => Ok(Form::Output),
            ("toml", "") => Ok(Form::Toml),
            ("json" | "jsonl", "") => Ok(Form::Json),
            _ => Err(format!(
                "`{info}` is none of the forms of CONTRIBUTING.md; a part of something is `{language} excerpt`"
            )),
        }
    }
}

/// The value of `key="value"`.
fn quoted<'t>(tags: &'t str, key: &str) -> Option<&'t str> {
    let rest = tags.strip_prefix(key)?.strip_prefix("=\"")?;
    rest.strip_suffix('"')
}

/// All pages of the repository, as paths in it.
pub fn pages() -> Vec<PathBuf> {
    let files = ["docs", "examples"].iter().flat_map(|folder| source_files(&root().join(folder)));
    let in_repository = files.map(|file| file.strip_prefix(root()).unwrap().to_path_buf());
    let below = in_repository.filter(|page| page.extension().is_some_and(|extension| extension == "md"));
    let mut pages: Vec<_> = ["README.md", "CONTRIBUTING.md"].map(PathBuf::from).into_iter().chain(below).collect();
    pages.sort();
    pages
}

pub fn text_of(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|failure| panic!("{}: {failure}", page.display()))
}

/// The blocks of a page, and the errors in their info strings.
pub fn blocks_of(page: &Path) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut errors) = (Vec::new(), Vec::new());
    let text = text_of(page);
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(rest) = line.trim_start().strip_prefix("```") else { continue };
        let fence = "`".repeat(3 + rest.len() - rest.trim_start_matches('`').len());
        let place = format!("{}:{}", page.display(), number + 1);
        let mut inside = String::new();
        for (_, line) in lines.by_ref() {
            if line.trim() == fence {
                break;
            }
            inside += line.get(indent..).unwrap_or(line.trim_start());
            inside.push('\n');
        }
        match Form::parse(rest.trim_start_matches('`').trim()) {
            Ok(form) => blocks.push(Block { place, form, text: inside }),
            Err(fault) => errors.push(format!("{place}: {fault}")),
        }
    }
    (blocks, errors)
}
