//! A plugin's cases: events, and what must become of each. A file of `cases/` holds one, or a list of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
pub use silverd_core::shadow::{Fate, Row};

/// An event and its fate.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    /// As the file has it.
    event: Box<RawValue>,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    /// `None` where nothing is said yet.
    pub expected: Option<Fate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    event: Box<RawValue>,
    key: Option<String>,
    rows: Option<Vec<Row>>,
    dropped: Option<bool>,
    reject: Option<Reject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reject {
    code: String,
    reason: String,
}

/// A file of cases.
pub struct CaseFile {
    pub path: PathBuf,
    list: bool,
    pub cases: Vec<Case>,
}

impl CaseFile {
    /// All files of a plugin's `cases/`, by name.
    pub fn all(plugin: &Path) -> anyhow::Result<Vec<Self>> {
        let folder = plugin.join("cases");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let list = text.trim_start().starts_with('[');
        let parsed = match list {
            true => serde_json::from_str::<Vec<Written>>(&text),
            false => serde_json::from_str::<Written>(&text).map(|one| vec![one]),
        };
        let written = parsed.map_err(|error| {
            anyhow::anyhow!(
                "{}:{}:{}: {error}\nExpected {{ \"event\": …, \"rows\": [{{ … }}] }}, or \"dropped\": true, or \
                 \"reject\": {{ \"code\": …, \"reason\": … }} in the place of \"rows\"",
                path.display(),
                error.line(),
                error.column()
            )
        })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut cases = Vec::with_capacity(written.len());
        for (at, written) in written.into_iter().enumerate() {
            let unnamed = || if list { format!("{stem} #{}", at + 1) } else { stem.clone() };
            let name = written.name.clone().unwrap_or_else(unnamed);
            cases.push(Case::of(name, written).with_context(|| path.display().to_string())?);
        }
        Ok(Self { path, list, cases })
    }

    /// Writes the file with these fates.
    pub fn write(&self, fates: &[Fate], columns: &[String]) -> anyhow::Result<()> {
        let cases: Vec<_> =
            self.cases.iter().zip(fates).map(|(case, fate)| case.text(fate, columns, self.list)).collect();
        let text = if self.list { format!("[\n{}\n]\n", cases.join(",\n")) } else { format!("{}\n", cases.concat()) };
        std::fs::write(&self.path, text).with_context(|| format!("write {}", self.path.display()))
    }
}

impl Case {
    fn of(name: String, written: Written) -> anyhow::Result<Self> {
        let mut said: Vec<Fate> = written.rows.map(Fate::Rows).into_iter().collect();
        said.extend(written.dropped.and_then(|dropped| dropped.then_some(Fate::Dropped)));
        said.extend(written.reject.map(|Reject { code, reason }| Fate::Rejected { code, reason }));
        if said.len() > 1 {
            bail!("case {name}: an event has one fate: give one of \"rows\", \"dropped\" and \"reject\"");
        }
        // A string is the event's text itself; anything else is JSON, sent as it is written here.
        let value = match written.event.get() {
            "null" => None,
            text if text.starts_with('"') => Some(serde_json::from_str::<String>(text)?.into_bytes()),
            json => Some(json.as_bytes().to_vec()),
        };
        Ok(Self { name, event: written.event, key: written.key, value, expected: said.pop() })
    }

    fn text(&self, fate: &Fate, columns: &[String], named: bool) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let mut lines = Vec::new();
        if named {
            lines.push(format!("  \"name\": {}", quoted(&self.name)));
        }
        lines.push(format!("  \"event\": {}", self.event.get()));
        if let Some(key) = &self.key {
            lines.push(format!("  \"key\": {}", quoted(key)));
        }
        lines.push(match fate {
            Fate::Dropped => "  \"dropped\": true".to_owned(),
            Fate::Rejected { code, reason } => {
                format!("  \"reject\": {{ \"code\": {}, \"reason\": {} }}", quoted(code), quoted(reason))
            }
            Fate::Rows(rows) => {
                let rows: Vec<_> = rows.iter().map(|row| row_text(row, columns)).collect();
                format!("  \"rows\": [{}]", rows.join(", "))
            }
        });
        format!("{{\n{}\n}}", lines.join(",\n"))
    }
}

/// A row, a line for each column, in the order of the table.
fn row_text(row: &Row, columns: &[String]) -> String {
    let line = |column: &String| Some(format!("    {}: {}", Value::from(column.as_str()), row.get(column)?));
    format!("{{\n{}\n  }}", columns.iter().filter_map(line).collect::<Vec<_>>().join(",\n"))
}
