//! The report of a verification, as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};
use silverd_core::offsets::Offsets;
use silverd_core::verify::{Corrections, Finding, Findings, Problem, Severity, Verifier};

use super::verified::{Verified, VerifiedTable};

pub struct Report {
    rows: Vec<Row>,
    findings: Vec<Findings>,
    /// Lines below the table.
    notes: Vec<String>,
    compared: Value,
}

/// A row of the table.
struct Row {
    table: String,
    /// `None` if the table has no log yet.
    version: Option<u64>,
    checked_from: u64,
    errors: usize,
    notices: usize,
    numbers: Vec<(&'static str, Option<i64>)>,
}

const COLUMNS: [&str; 9] =
    ["offsets", "events", "with rows", "rows", "dropped", "duplicates", "quarantined", "late", "lag"];

impl Report {
    pub fn new(verified: &Verified) -> Self {
        let bronze = &verified.bronze.verifier;
        let number = |number: u64| i64::try_from(number).ok();
        let mut rows = vec![Row::new(
            &verified.bronze,
            vec![
                ("offsets", (!bronze.has_lost_progress()).then(|| covered(bronze.first(), bronze.next()))),
                ("events", number(bronze.events())),
                ("rows", number(bronze.rows())),
            ],
        )];
        let mut notes = Vec::new();
        for table in &verified.silver {
            let (verifier, counts) = (&table.verifier, table.verifier.counts());
            let corrections = verifier.corrections();
            let (is_known, is_bronze_known) = (!verifier.has_lost_progress(), !bronze.has_lost_progress());
            let lag = || verifier.lag(bronze, |topic| verified.takes(&table.name, topic));
            rows.push(Row::new(
                table,
                vec![
                    ("offsets", is_known.then(|| covered(verifier.first(), verifier.next()))),
                    ("events", number(counts.events)),
                    ("with rows", number(counts.with_rows)),
                    ("rows", number(verifier.rows())),
                    ("dropped", number(counts.dropped)),
                    ("duplicates", number(counts.duplicates)),
                    ("quarantined", number(counts.rejected)),
                    ("late", number(counts.late)),
                    ("lag", (is_known && is_bronze_known).then(lag)),
                    // Not in the line, whose outcomes add up to the events.
                    ("quarantined by corrections", number(corrections.quarantined)),
                    ("late by corrections", number(corrections.counts.late)),
                ],
            ));
            if corrections.commits > 0 {
                notes.push(corrections_note(&table.name, &corrections));
            }
        }
        for table in &verified.side_outputs {
            if table.log.is_some() {
                let (all, unrouted) = (table.verifier.rows(), table.verifier.unrouted_events());
                let mut numbers = vec![("rows", number(all))];
                if unrouted > 0 {
                    numbers.push(("unrouted", number(unrouted)));
                    notes.push(format!("{}: {unrouted} of the rows are events that no table takes", table.name));
                }
                rows.push(Row::new(table, numbers));
            }
        }
        let findings = std::iter::once(verified.bronze.verifier.findings())
            .chain(verified.silver.iter().map(|table| table.verifier.findings()))
            .chain(verified.side_outputs.iter().map(|table| table.verifier.findings()));
        for (table, compared) in &verified.compared {
            notes.push(format!(
                "{table}: transformed {} events of Bronze again, and compared {} rows and {} rejects",
                compared.events, compared.rows, compared.rejects
            ));
        }
        let compared = verified.compared.iter().map(|(table, compared)| {
            let counts = json!({ "events": compared.events, "rows": compared.rows, "rejects": compared.rejects });
            (table.clone(), counts)
        });
        Self { rows, findings: findings.cloned().collect(), notes, compared: compared.collect() }
    }

    pub fn errors(&self) -> usize {
        self.findings.iter().map(|findings| findings.errors).sum()
    }

    /// How many plugins have events that could not be compared.
    pub fn not_compared(&self) -> usize {
        let findings = self.findings.iter().flat_map(|findings| &findings.list);
        findings.filter(|finding| matches!(finding.problem, Problem::NotCompared { .. })).count()
    }

    /// A table, followed by the findings.
    pub fn text(&self) -> String {
        let header = ["table", "versions"].into_iter().chain(COLUMNS).chain(["result"]);
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
            findings.list.iter().for_each(|finding| text += &finding_text(finding));
            if findings.left_out() > 0 {
                let _ = writeln!(text, "\n{}: and {} more findings", findings.table, findings.left_out());
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        let tables = self.rows.iter().map(Row::json);
        let findings = self.findings.iter().flat_map(|findings| &findings.list).map(finding_json);
        let left_out: usize = self.findings.iter().map(Findings::left_out).sum();
        json!({
            "ok": self.errors() == 0,
            "tables": tables.collect::<Vec<_>>(),
            "compared": self.compared,
            "findings": findings.collect::<Vec<_>>(),
            "findings_left_out": left_out,
        })
    }
}

impl Row {
    fn new<V: Verifier>(table: &VerifiedTable<V>, numbers: Vec<(&'static str, Option<i64>)>) -> Self {
        let findings = table.verifier.findings();
        Self {
            table: table.name.clone(),
            version: table.log.as_ref().map(|_| table.verifier.version()),
            checked_from: table.verifier.checked_from().unwrap_or(0),
            errors: findings.errors,
            notices: findings.notices,
            numbers,
        }
    }

    fn number(&self, column: &str) -> Option<i64> {
        self.numbers.iter().find(|(name, _)| *name == column).and_then(|(_, number)| *number)
    }

    fn versions(&self) -> String {
        self.version.map_or_else(|| "-".to_owned(), |version| format!("{}..{version}", self.checked_from))
    }

    fn result(&self) -> String {
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        match (self.errors, self.notices) {
            (0, _) if self.version.is_none() => "nothing written yet".to_owned(),
            (0, 0) => "ok".to_owned(),
            (0, notices) => format!("ok, {}", plural(notices, "notice")),
            (errors, _) => plural(errors, "error"),
        }
    }

    fn cells(&self) -> Vec<String> {
        let numbers = COLUMNS.map(|column| self.number(column).map_or_else(|| "-".to_owned(), |n| n.to_string()));
        [self.table.clone(), self.versions()].into_iter().chain(numbers).chain([self.result()]).collect()
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "table": self.table,
            "version": self.version,
            "checked_from": self.checked_from,
            "ok": self.errors == 0,
            "result": self.result(),
        });
        for (name, number) in &self.numbers {
            row[name.replace(' ', "_")] = json!(number);
        }
        row
    }
}

fn corrections_note(table: &str, corrections: &Corrections) -> String {
    let Corrections { commits, counts, quarantined, added, removed, .. } = corrections;
    format!(
        "{table}: {commits} corrections processed {} events again, added {added} rows and removed {removed}, and sent \
         {quarantined} events to the quarantine and {} to the late table; above are the outcomes when the events arrived, and \
         the current rows",
        counts.events, counts.late
    )
}

/// The number of offsets from the first checked one to the last.
fn covered(first: &Offsets, next: &Offsets) -> i64 {
    next.iter().map(|(log, next)| next - first.get(log).copied().unwrap_or(0)).sum()
}

fn finding_text(finding: &Finding) -> String {
    let explanation = finding.problem.explain();
    let severity = match finding.problem.severity() {
        Severity::Error => "error",
        Severity::Notice => "notice",
    };
    let mut text = format!(
        "\n{severity}: {}{}\n  found     {}\n  expected  {}\n",
        finding.table, finding.position, explanation.found, explanation.expected
    );
    for (at, example) in explanation.examples.iter().enumerate() {
        let _ = writeln!(text, "  {:<8}  {example}", if at == 0 { "rows" } else { "" });
    }
    let _ = writeln!(text, "  help      {}", explanation.help);
    text
}

fn finding_json(finding: &Finding) -> Value {
    let (explanation, position) = (finding.problem.explain(), &finding.position);
    json!({
        "severity": finding.problem.severity(),
        "table": finding.table,
        "version": position.version,
        "partition": position.partition.as_ref().map(ToString::to_string),
        "offsets": position.offsets.map(|range| [range.start, range.end]),
        "problem": finding.problem,
        "found": explanation.found,
        "expected": explanation.expected,
        "help": explanation.help,
    })
}
