//! A plugin's cases: events, each with its expected outcome. A file holds one case, or a list.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use silverd_core::outcome::Code;
use silverd_core::shadow::{Outcome, Row};

use crate::plugin::Source;

/// An event and its expected outcome.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The event as it is written in the file.
    event: Box<RawValue>,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<Vec<u8>>,
    /// `None` if the file does not say yet.
    pub(crate) expected: Option<Outcome>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: Option<String>,
    event: Box<RawValue>,
    key: Option<String>,
    rows: Option<Vec<Row>>,
    dropped: Option<bool>,
    reject: Option<RawReject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReject {
    code: String,
    reason: String,
}

/// The folder of a table's cases, whether it exists or not: `cases/` in a plugin's folder, `hits.cases/` next to the plugin
/// `hits.wasm`, and `cases/<table>/` next to pipeline.toml for a table with SQL.
pub(crate) fn cases_folder(source: &Source) -> PathBuf {
    match source {
        Source::Plugin(file) if file.extension().is_some_and(|extension| extension == "wasm") => {
            file.with_extension("cases")
        }
        Source::Plugin(folder) => folder.join("cases"),
        Source::Sql(sql) => sql.base_dir().join("cases").join(&*sql.table().name),
    }
}

/// A file of cases.
pub(crate) struct CaseFile {
    path: PathBuf,
    is_list: bool,
    pub(crate) cases: Vec<Case>,
}

impl CaseFile {
    /// All files in the folder of the cases, sorted by name; see [`cases_folder`].
    pub(crate) fn read_all(source: &Source) -> anyhow::Result<Vec<Self>> {
        let folder = cases_folder(source);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let is_list = text.trim_start().starts_with('[');
        let parsed = match is_list {
            true => serde_json::from_str::<Vec<RawCase>>(&text),
            false => serde_json::from_str::<RawCase>(&text).map(|one| vec![one]),
        };
        let raw_cases = parsed.map_err(|error| {
            anyhow::anyhow!(
                "{}:{}:{}: {error}\nExpected {{ \"event\": …, \"rows\": [{{ … }}] }}, or instead of \"rows\" \
                 \"dropped\": true or \"reject\": {{ \"code\": …, \"reason\": … }}",
                path.display(),
                error.line(),
                error.column()
            )
        })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut cases = Vec::with_capacity(raw_cases.len());
        for (at, raw) in raw_cases.into_iter().enumerate() {
            let unnamed = || if is_list { format!("{stem} #{}", at + 1) } else { stem.clone() };
            let name = raw.name.clone().unwrap_or_else(unnamed);
            cases.push(Case::parse(name, raw).with_context(|| path.display().to_string())?);
        }
        Ok(Self { path, is_list, cases })
    }

    /// Writes the file with these outcomes as the expected ones.
    pub(crate) fn write(&self, outcomes: &[Outcome], columns: &[String]) -> anyhow::Result<()> {
        let cases: Vec<_> = self
            .cases
            .iter()
            .zip(outcomes)
            .map(|(case, outcome)| case.to_text(outcome, columns, self.is_list))
            .collect();
        let text =
            if self.is_list { format!("[\n{}\n]\n", cases.join(",\n")) } else { format!("{}\n", cases.concat()) };
        std::fs::write(&self.path, text).with_context(|| format!("write {}", self.path.display()))
    }
}

impl Case {
    fn parse(name: String, raw: RawCase) -> anyhow::Result<Self> {
        let mut expected: Vec<Outcome> = raw.rows.map(Outcome::Rows).into_iter().collect();
        expected.extend(raw.dropped.and_then(|dropped| dropped.then_some(Outcome::Dropped)));
        if let Some(RawReject { code, reason }) = raw.reject {
            let codes = || Code::ALL.map(Code::as_str).join(", ");
            let code = Code::parse(&code)
                .with_context(|| format!("case {name}: `{code}` is no code of a reject; the codes are {}", codes()))?;
            expected.push(Outcome::Rejected { code, reason });
        }
        if expected.len() > 1 {
            bail!("case {name}: an event has one outcome: give only one of \"rows\", \"dropped\" and \"reject\"");
        }
        // A JSON string holds the event's text. Anything else is the event itself, sent as it is written.
        let value = match raw.event.get() {
            "null" => None,
            text if text.starts_with('"') => Some(serde_json::from_str::<String>(text)?.into_bytes()),
            json => Some(json.as_bytes().to_vec()),
        };
        Ok(Self { name, event: raw.event, key: raw.key, value, expected: expected.pop() })
    }

    fn to_text(&self, outcome: &Outcome, columns: &[String], with_name: bool) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let mut lines = Vec::new();
        if with_name {
            lines.push(format!("  \"name\": {}", quoted(&self.name)));
        }
        lines.push(format!("  \"event\": {}", self.event.get()));
        if let Some(key) = &self.key {
            lines.push(format!("  \"key\": {}", quoted(key)));
        }
        lines.push(match outcome {
            Outcome::Dropped => "  \"dropped\": true".to_owned(),
            Outcome::Rejected { code, reason } => {
                format!("  \"reject\": {{ \"code\": {}, \"reason\": {} }}", quoted(code.as_str()), quoted(reason))
            }
            Outcome::Rows(rows) => {
                let rows: Vec<_> = rows.iter().map(|row| row_text(row, columns)).collect();
                format!("  \"rows\": [{}]", rows.join(", "))
            }
        });
        format!("{{\n{}\n}}", lines.join(",\n"))
    }
}

/// A row with one line per column, in the order of the table's columns.
fn row_text(row: &Row, columns: &[String]) -> String {
    let line = |column: &String| Some(format!("    {}: {}", Value::from(column.as_str()), row.get(column)?));
    format!("{{\n{}\n  }}", columns.iter().filter_map(line).collect::<Vec<_>>().join(",\n"))
}
