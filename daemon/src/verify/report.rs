//! What was proven, for people and for machines.

use std::fmt::Write;

use serde_json::{Value, json};
use silverd_core::offsets::Offsets;
use silverd_core::verify::{Finding, Findings, Problem, Proof, Severity};

use super::{Proven, Table};

/// Rows of the table, and the findings below it.
pub struct Report {
    rows: Vec<Row>,
    findings: Vec<Findings>,
    /// What is told below the table.
    notes: Vec<String>,
    compared: Value,
}

/// A line of the table.
struct Row {
    table: String,
    /// Empty where the table has no log yet.
    version: Option<u64>,
    proven_from: u64,
    errors: usize,
    notices: usize,
    numbers: Vec<(&'static str, Option<i64>)>,
}

const COLUMNS: [&str; 9] =
    ["offsets", "events", "with rows", "rows", "dropped", "duplicates", "quarantined", "late", "lag"];

impl Report {
    pub fn of(proven: &Proven) -> Self {
        let bronze = &proven.bronze.proof;
        let number = |number: u64| i64::try_from(number).ok();
        let mut rows = vec![Row::of(
            &proven.bronze,
            vec![
                ("offsets", Some(covered(bronze.first(), bronze.next()))),
                ("events", number(bronze.events())),
                ("rows", number(bronze.rows())),
            ],
        )];
        let mut notes = Vec::new();
        for table in &proven.silver {
            let (proof, counts) = (&table.proof, table.proof.counts());
            let corrected = proof.corrections();
            rows.push(Row::of(
                table,
                vec![
                    ("offsets", Some(covered(proof.first(), proof.next()))),
                    ("events", number(counts.events)),
                    ("with rows", number(counts.with_rows)),
                    ("rows", number(proof.rows())),
                    ("dropped", number(counts.dropped)),
                    ("duplicates", number(counts.duplicates)),
                    ("quarantined", number(counts.rejected + corrected.quarantined)),
                    ("late", number(counts.late + corrected.counts.late)),
                    ("lag", Some(proof.lag(bronze))),
                ],
            ));
            if corrected.commits > 0 {
                notes.push(format!(
                    "{}: {} corrections judged {} events anew: {} rows added, {} removed; the fates above are those at \
                     first, the rows those of now",
                    table.name, corrected.commits, corrected.counts.events, corrected.added, corrected.removed
                ));
            }
        }
        for table in &proven.sides {
            if table.log.is_some() {
                rows.push(Row::of(table, vec![("rows", number(table.proof.rows()))]));
            }
        }
        let findings = std::iter::once(proven.bronze.proof.findings())
            .chain(proven.silver.iter().map(|table| table.proof.findings()))
            .chain(proven.sides.iter().map(|table| table.proof.findings()));
        for (table, compared) in &proven.compared {
            notes.push(format!(
                "{table}: {} events of Bronze judged again: {} rows and {} rejects compared",
                compared.events, compared.rows, compared.rejects
            ));
        }
        let compared = proven.compared.iter().map(|(table, compared)| {
            let counts = json!({ "events": compared.events, "rows": compared.rows, "rejects": compared.rejects });
            (table.clone(), counts)
        });
        Self { rows, findings: findings.cloned().collect(), notes, compared: compared.collect() }
    }

    pub fn errors(&self) -> usize {
        self.findings.iter().map(|findings| findings.errors).sum()
    }

    /// How many plugins' events could not be compared.
    pub fn not_compared(&self) -> usize {
        let findings = self.findings.iter().flat_map(|findings| &findings.list);
        findings.filter(|finding| matches!(finding.problem, Problem::NotCompared { .. })).count()
    }

    /// The table, then each finding on lines of its own.
    pub fn text(&self) -> String {
        let header = ["table", "versions"].into_iter().chain(COLUMNS).chain(["verdict"]);
        let mut lines = vec![header.map(str::to_owned).collect::<Vec<_>>()];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: Vec<usize> = (0..COLUMNS.len() + 2)
            .map(|column| lines.iter().map(|cells| cells[column].len()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for cells in &lines {
            for (at, cell) in cells.iter().enumerate() {
                let width = widths.get(at).copied().unwrap_or(0);
                let _ = match at {
                    0 => write!(text, "{cell:<width$}"),
                    _ if at < widths.len() => write!(text, "  {cell:>width$}"),
                    _ => writeln!(text, "  {cell}"),
                };
            }
        }
        for line in &self.notes {
            let _ = writeln!(text, "{line}");
        }
        for findings in &self.findings {
            findings.list.iter().for_each(|finding| text += &told(finding));
            if findings.left_out() > 0 {
                let _ = writeln!(text, "\n{}: and {} more findings", findings.table, findings.left_out());
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        let tables = self.rows.iter().map(Row::json);
        let findings = self.findings.iter().flat_map(|findings| &findings.list).map(of_finding);
        let left_out: usize = self.findings.iter().map(Findings::left_out).sum();
        json!({
            "holds": self.errors() == 0,
            "tables": tables.collect::<Vec<_>>(),
            "compared": self.compared,
            "findings": findings.collect::<Vec<_>>(),
            "findings_left_out": left_out,
        })
    }
}

impl Row {
    fn of<P: Proof>(table: &Table<P>, numbers: Vec<(&'static str, Option<i64>)>) -> Self {
        let findings = table.proof.findings();
        Self {
            table: table.name.clone(),
            version: table.log.as_ref().map(|_| table.proof.version()),
            proven_from: table.proof.proven_from().unwrap_or(0),
            errors: findings.errors,
            notices: findings.notices,
            numbers,
        }
    }

    fn number(&self, column: &str) -> Option<i64> {
        self.numbers.iter().find(|(name, _)| *name == column).and_then(|(_, number)| *number)
    }

    fn versions(&self) -> String {
        self.version.map_or_else(|| "-".to_owned(), |version| format!("{}..{version}", self.proven_from))
    }

    fn verdict(&self) -> String {
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        match (self.errors, self.notices) {
            (0, _) if self.version.is_none() => "nothing written yet".to_owned(),
            (0, 0) => "holds".to_owned(),
            (0, notices) => format!("holds, {}", plural(notices, "notice")),
            (errors, _) => plural(errors, "error"),
        }
    }

    fn cells(&self) -> Vec<String> {
        let numbers = COLUMNS.map(|column| self.number(column).map_or_else(|| "-".to_owned(), |n| n.to_string()));
        [self.table.clone(), self.versions()].into_iter().chain(numbers).chain([self.verdict()]).collect()
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "table": self.table,
            "version": self.version,
            "proven_from": self.proven_from,
            "holds": self.errors == 0,
            "verdict": self.verdict(),
        });
        for (name, number) in &self.numbers {
            row[name.replace(' ', "_")] = json!(number);
        }
        row
    }
}

/// Offsets from the first one that is proven to the last.
fn covered(first: &Offsets, next: &Offsets) -> i64 {
    next.iter().map(|(log, next)| next - first.get(log).copied().unwrap_or(0)).sum()
}

fn told(finding: &Finding) -> String {
    let told = finding.problem.tell();
    let severity = match finding.problem.severity() {
        Severity::Error => "error",
        Severity::Notice => "notice",
    };
    let mut text = format!(
        "\n{severity}: {}{}\n  found     {}\n  expected  {}\n  help      {}\n",
        finding.table, finding.place, told.found, told.expected, told.help
    );
    for example in told.examples {
        let _ = writeln!(text, "            {example}");
    }
    text
}

fn of_finding(finding: &Finding) -> Value {
    let (told, place) = (finding.problem.tell(), &finding.place);
    json!({
        "severity": finding.problem.severity(),
        "table": finding.table,
        "version": place.version,
        "log": place.log.as_ref().map(ToString::to_string),
        "offsets": place.offsets.map(|range| [range.start, range.end]),
        "problem": finding.problem,
        "found": told.found,
        "expected": told.expected,
        "help": told.help,
    })
}
