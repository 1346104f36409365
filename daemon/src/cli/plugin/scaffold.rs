//! The files of a new plugin.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

/// A file to be made, by its path from the folder of pipeline.toml.
pub struct NewFile {
    pub path: PathBuf,
    pub text: String,
}

/// The names that go into the templates.
pub struct Names<'n> {
    pub table: &'n str,
    /// The JSON field by which events find their table, and its value.
    pub field: &'n str,
    pub event_type: &'n str,
    /// The WIT package of the tables, such as `shop:silver@0.1.0`.
    pub package: String,
}

/// Words that WIT or Rust keep for themselves, and names that cargo keeps.
const RESERVED: &[&str] = &[
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "bool",
    "borrow",
    "box",
    "break",
    "char",
    "const",
    "constructor",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "export",
    "extern",
    "f32",
    "f64",
    "false",
    "final",
    "flags",
    "fn",
    "for",
    "from",
    "func",
    "future",
    "gen",
    "if",
    "impl",
    "import",
    "in",
    "include",
    "interface",
    "let",
    "list",
    "loop",
    "macro",
    "map",
    "match",
    "mod",
    "move",
    "mut",
    "option",
    "output",
    "override",
    "own",
    "package",
    "plugin",
    "priv",
    "proc_macro",
    "pub",
    "record",
    "ref",
    "resource",
    "result",
    "return",
    "row",
    "s16",
    "s32",
    "s64",
    "s8",
    "self",
    "silverd_plugin",
    "static",
    "std",
    "stream",
    "string",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "tuple",
    "type",
    "types",
    "typeof",
    "u16",
    "u32",
    "u64",
    "u8",
    "union",
    "unsafe",
    "unsized",
    "use",
    "variant",
    "virtual",
    "where",
    "while",
    "with",
    "world",
    "yield",
];

impl Names<'_> {
    /// A table's name that WIT and Rust can do something with.
    pub fn check(&self) -> anyhow::Result<()> {
        let table = self.table;
        let words = table.split('_').all(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
        ensure!(words, "`{table}` makes no WIT name: each word between the `_` must begin with a letter");
        ensure!(
            !RESERVED.contains(&table),
            "`{table}` is a word of WIT, Rust or cargo: take another, such as `{table}s`"
        );
        Ok(())
    }

    pub fn files(&self) -> Vec<NewFile> {
        let plugin = Path::new("plugins").join(self.table);
        let file = |path: PathBuf, template: &str| NewFile { path, text: self.fill(template) };
        vec![
            file(plugin.join("Cargo.toml"), include_str!("template/Cargo.toml.txt")),
            file(plugin.join("src/lib.rs"), include_str!("template/lib.rs.txt")),
            file(plugin.join("cases/first.json"), include_str!("template/cases.json.txt")),
            file(Path::new("wit/silver").join(format!("{}.wit", self.kebab())), include_str!("template/table.wit.txt")),
        ]
    }

    /// The section of pipeline.toml.
    pub fn section(&self) -> String {
        let Names { table, field, event_type, .. } = self;
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            "[silver.{table}]\nplugin = \"plugins/{table}\"\nmatch = {{ field = {}, equals = {} }}\nevent_date = \"ts\"\n",
            quoted(field),
            quoted(event_type)
        )
    }

    fn kebab(&self) -> String {
        self.table.replace('_', "-")
    }

    fn fill(&self, template: &str) -> String {
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

/// The WIT package of the tables that are there already.
pub fn package_of(wit: &Path) -> String {
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

/// The manifest of the plugins' workspace, with one more member; `None` if it has that already.
pub fn with_member(manifest: &str, member: &str) -> anyhow::Result<Option<String>> {
    let workspace = manifest.find("[workspace]").context("it has no [workspace]")?;
    let members = manifest[workspace..].find("\nmembers").context("its [workspace] has no `members`")? + workspace;
    let (open, close) = match (manifest[members..].find('['), manifest[members..].find(']')) {
        (Some(open), Some(close)) if open < close => (members + open, members + close),
        _ => bail!("its `members` are no list"),
    };
    let list = &manifest[open + 1..close];
    if [member, "*"].iter().any(|known| list.contains(&format!("\"{known}\""))) {
        return Ok(None);
    }
    let (kept, end) = (list.trim_end(), &list[list.trim_end().len()..]);
    let comma = if kept.is_empty() || kept.ends_with(',') { "" } else { "," };
    let space = if kept.is_empty() { "" } else { " " };
    Ok(Some(format!("{}{kept}{comma}{space}\"{member}\"{end}{}", &manifest[..=open], &manifest[close..])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_member_more() {
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
        assert_eq!(with_member("[package]\n", "b").unwrap_err().to_string(), "it has no [workspace]");
        assert!(with_member("[workspace]\nmembers = 3\n", "b").is_err());
    }

    #[test]
    fn names_that_cannot_be() {
        let check = |table: &str| {
            let names = Names { table, field: "event_type", event_type: table, package: String::new() };
            names.check().map_err(|error| error.to_string())
        };
        assert_eq!(check("page_view"), Ok(()));
        assert_eq!(
            check("page_2"),
            Err("`page_2` makes no WIT name: each word between the `_` must begin with a letter".to_owned())
        );
        assert!(check("a__b").is_err() && check("a_").is_err());
        assert!(check("record").unwrap_err().contains("take another, such as `records`"));
    }
}
