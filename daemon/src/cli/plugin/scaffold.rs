//! The files of a new plugin.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use silverd_core::schema::is_wit_keyword;

use super::content::{Content, RUST_KEYWORDS};

/// A file to create.
pub(super) struct NewFile {
    /// Relative to the folder of pipeline.toml.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The names in the templates.
pub(super) struct Names<'n> {
    pub(super) table: &'n str,
    /// The JSON field by which events are routed, and its value.
    pub(super) field: &'n str,
    pub(super) event_type: &'n str,
    /// The WIT package of the tables, such as `shop:silver@0.1.0`.
    pub(super) package: String,
}

/// Names that cargo or the templates use; also reserved are the keywords of WIT and Rust.
const RESERVED: [&str; 11] =
    ["core", "gen", "output", "plugin", "proc_macro", "row", "silverd_plugin", "std", "test", "types", "union"];

impl Names<'_> {
    /// Checks that the table's name is a valid name in WIT and Rust.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let table = self.table;
        let words = table.split('_').all(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
        ensure!(words, "`{table}` is not a valid name in WIT: each word between the `_` must begin with a letter");
        ensure!(
            !RESERVED.contains(&table) && !is_wit_keyword(table) && !RUST_KEYWORDS.contains(&table),
            "`{table}` is a reserved word of WIT, Rust or cargo: choose another, such as `{table}s`"
        );
        Ok(())
    }

    pub(super) fn files(&self, content: &Content) -> Vec<NewFile> {
        let plugin = Path::new("plugins").join(self.table);
        let file = |path: PathBuf, template: &str| NewFile { path, text: content.fill(&self.fill(template)) };
        vec![
            file(plugin.join("Cargo.toml"), include_str!("template/Cargo.toml.txt")),
            file(plugin.join("src/lib.rs"), include_str!("template/lib.rs.txt")),
            NewFile { path: plugin.join("cases/first.json"), text: content.cases.clone() },
            file(Path::new("wit/silver").join(format!("{}.wit", self.kebab())), include_str!("template/table.wit.txt")),
        ]
    }

    /// The section of pipeline.toml.
    pub(super) fn section(&self, content: &Content) -> String {
        let (table, Content { matching, event_time, .. }) = (self.table, content);
        format!("[silver.{table}]\nplugin = \"plugins/{table}\"\nmatch = {matching}\nevent_time = {event_time}\n")
    }

    fn kebab(&self) -> String {
        self.table.replace('_', "-")
    }

    /// The template with these names.
    pub(super) fn fill(&self, template: &str) -> String {
        let (package, version) = self.package.split_once('@').unwrap_or((&self.package, ""));
        let version = if version.is_empty() { String::new() } else { format!("@{version}") };
        let namespace = package.split(':').next().unwrap_or_default();
        let camel = |word: &str| word[..1].to_uppercase() + &word[1..];
        let json = |text: &str| serde_json::Value::from(text).to_string().trim_matches('"').to_owned();
        template
            .replace("{type}", &self.table.split('_').map(camel).collect::<String>())
            .replace("{module}", &package.replace(':', "::").replace('-', "_"))
            .replace("{namespace}", namespace)
            .replace("{package}", package)
            .replace("{version}", &version)
            .replace("{kebab}", &self.kebab())
            .replace("{table}", self.table)
            .replace("{field}", &json(self.field))
            .replace("{event_type}", &json(self.event_type))
    }
}

/// The WIT package of the existing tables.
pub(super) fn package_of(wit: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(wit).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let texts = files.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let package = |text: String| {
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix("package ")?.strip_suffix(';').map(str::trim))?;
        Some(line.to_owned())
    };
    texts.filter_map(package).next().unwrap_or_else(|| "shop:silver@0.1.0".to_owned())
}

/// The manifest of the plugins' workspace with one more member; `None` if it already has that member.
pub(super) fn with_member(manifest: &str, member: &str) -> anyhow::Result<Option<String>> {
    ensure!(manifest.contains("[workspace]"), "it has no [workspace]");
    let changed = with_item(manifest, "members", member)?.context("its [workspace] has no list `members`")?;
    let changed = with_item(&changed, "default-members", member)?.unwrap_or(changed);
    Ok((changed != manifest).then_some(changed))
}

/// The text with one more item in the list `key`; `None` if there is no such list.
fn with_item(manifest: &str, key: &str, item: &str) -> anyhow::Result<Option<String>> {
    let Some(line) = manifest.find(&format!("\n{key} ")).or_else(|| manifest.find(&format!("\n{key}="))) else {
        return Ok(None);
    };
    let (open, close) = match (manifest[line..].find('['), manifest[line..].find(']')) {
        (Some(open), Some(close)) if open < close => (line + open, line + close),
        _ => bail!("its `{key}` is not a list"),
    };
    let list = &manifest[open + 1..close];
    if [item, "*"].iter().any(|known| list.contains(&format!("\"{known}\""))) {
        return Ok(Some(manifest.to_owned()));
    }
    let (kept, end) = (list.trim_end(), &list[list.trim_end().len()..]);
    let comma = if kept.is_empty() || kept.ends_with(',') { "" } else { "," };
    let space = if kept.is_empty() { "" } else { " " };
    Ok(Some(format!("{}{kept}{comma}{space}\"{item}\"{end}{}", &manifest[..=open], &manifest[close..])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn with_member_adds_to_both_lists() {
        let check = |before: &str, after: Option<&str>| {
            let of =
                |list: &str| format!("# [x]\n[workspace]\nresolver = \"3\"\nmembers = {list}\n\n[profile.release]\n");
            assert_eq!(with_member(&of(before), "b").unwrap(), after.map(of));
        };
        check("[\"sdk\", \"a\"]", Some("[\"sdk\", \"a\", \"b\"]"));
        check("[]", Some("[\"b\"]"));
        check("[\n  \"a\",\n]", Some("[\n  \"a\", \"b\"\n]"));
        check("[\"b\", \"a\"]", None);
        check("[\"*\"]", None);
        let both = |list: &str| format!("[workspace]\nmembers = [\"a\", {list}]\ndefault-members=[{list}]\n");
        let with = both("\"c\", \"b\"");
        assert_eq!(with_member(&both("\"c\""), "b").unwrap(), Some(with.clone()));
        assert_eq!(with_member(&with, "b").unwrap(), None);
        assert_eq!(with_member("[package]\n", "b").unwrap_err().to_string(), "it has no [workspace]");
        assert!(with_member("[workspace]\nmembers = 3\n", "b").is_err());
    }

    #[test]
    fn invalid_names_are_refused() {
        let check = |table: &str| {
            let names = Names { table, field: "event_type", event_type: table, package: String::new() };
            names.check().map_err(|error| error.to_string())
        };
        assert_eq!(check("page_view"), Ok(()));
        assert_eq!(
            check("page_2"),
            Err("`page_2` is not a valid name in WIT: each word between the `_` must begin with a letter".to_owned())
        );
        assert!(check("a__b").is_err() && check("a_").is_err());
        assert!(check("record").unwrap_err().contains("choose another, such as `records`"));
    }
}
