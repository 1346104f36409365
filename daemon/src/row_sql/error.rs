//! Why the SQL of a table is refused.

use std::fmt;
use std::ops::Range;

use datafusion::common::{DataFusionError, Location, SchemaError, Span};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion::sql::sqlparser::{dialect::GenericDialect, tokenizer};

/// The SQL of a table is refused.
#[derive(Debug)]
pub(crate) struct SqlError {
    message: String,
    /// The bytes of the SQL that are wrong; `None` if that is not known.
    pub(crate) place: Option<Range<usize>>,
}

impl SqlError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None }
    }

    /// The first place of a word or a function in the SQL.
    pub(super) fn at_word(self, sql: &str, word: &str) -> Self {
        let tokens = tokens(sql);
        let is_word = |token: &tokenizer::TokenWithSpan| matches!(&token.token, Token::Word(found) if found.value.eq_ignore_ascii_case(word));
        let place = tokens.iter().find(|token| is_word(token)).and_then(|token| {
            let start = offset(sql, token.span.start.line, token.span.start.column)?;
            Some(start..start + word.len())
        });
        Self { place: place.or(self.place), ..self }
    }

    /// An error of the planner or the parser.
    pub(super) fn of(sql: &str, error: &DataFusionError) -> Self {
        let diagnostic = error.diagnostic();
        let root = error.find_root();
        let (text, place) = match root {
            DataFusionError::SQL(error, _) => {
                let text = error.to_string();
                let place = place_of_parser(sql, &text);
                let text = text.strip_prefix("sql parser error: ").unwrap_or(&text).to_owned();
                (without_place(&text).to_owned(), place)
            }
            DataFusionError::SchemaError(schema, _)
                if matches!(
                    **schema,
                    SchemaError::AmbiguousReference { .. } | SchemaError::DuplicateUnqualifiedField { .. }
                ) =>
            {
                let help = "give the column another name; next to unnest, a column that is changed needs another name than the \
                            field has, or is changed in a query around the one with unnest";
                (format!("{schema}: {help}"), None)
            }
            other => (other.strip_backtrace(), None),
        };
        let text = text.strip_prefix("Error during planning: ").unwrap_or(&text);
        let text = text.strip_prefix("Schema error: ").unwrap_or(text);
        let spans = diagnostic.and_then(|diagnostic| place_of_span(sql, diagnostic.span.as_ref()?));
        Self { message: text.to_owned(), place: spans.or(place) }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

/// The tokens of a text that may not be valid.
pub(super) fn tokens(sql: &str) -> Vec<tokenizer::TokenWithSpan> {
    Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap_or_default()
}

/// The byte at a line and a column, both counted from 1; a column is a character.
pub(super) fn offset(sql: &str, line: u64, column: u64) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?.checked_sub(1)?, usize::try_from(column).ok()?.checked_sub(1)?);
    let start = match line {
        0 => 0,
        _ => sql.match_indices('\n').nth(line - 1)?.0 + 1,
    };
    let text = &sql[start..];
    Some(start + text.char_indices().nth(column).map_or(text.len(), |(at, _)| at))
}

fn place_of_span(sql: &str, span: &Span) -> Option<Range<usize>> {
    let at = |location: &Location| offset(sql, location.line, location.column);
    let (start, end) = (at(&span.start)?, at(&span.end)?);
    Some(start..end.max(start))
}

/// The parser says only in its text where an error is: ` at Line: 1, Column: 8`.
fn place_of_parser(sql: &str, text: &str) -> Option<Range<usize>> {
    let (_, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let start = offset(sql, line.parse().ok()?, column.trim_end_matches('"').parse().ok()?)?;
    let word = sql[start..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(sql.len() - start);
    Some(start..start + word.max(1).min(sql.len() - start))
}

fn without_place(text: &str) -> &str {
    text.rsplit_once(" at Line: ").map_or(text, |(before, _)| before)
}
