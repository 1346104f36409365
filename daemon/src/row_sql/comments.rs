//! Comments in SQL: `-- …` behind a column is the comment of the column, and those before SELECT are the table's.

use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr, Spanned};
use datafusion::sql::sqlparser::tokenizer::{Token, Whitespace};

use super::error::tokens;

/// The comments of the columns of a query, in their order; none if a `*` hides where a column is.
pub(super) fn column_comments(sql: &str, query: &Query) -> Vec<Option<String>> {
    let SetExpr::Select(select) = &*query.body else { return Vec::new() };
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    if select.projection.iter().any(is_wildcard) {
        return Vec::new();
    }
    let ends: Vec<_> = select.projection.iter().map(|item| item.span().end).collect();
    let mut comments = vec![None; ends.len()];
    for token in tokens(sql) {
        let Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) = &token.token else { continue };
        let start = token.span.start;
        let is_before = |end: &&_| **end <= start;
        let last = ends.iter().take_while(is_before).count();
        // A comment on a line of its own is of no column, and neither is one after FROM.
        if last > 0 && ends[last - 1].line == start.line {
            comments[last - 1] = text(comment);
        }
    }
    comments
}

/// The comment before the query.
pub(super) fn table_comment(sql: &str) -> Option<String> {
    let mut lines = Vec::new();
    for token in tokens(sql) {
        match &token.token {
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => lines.extend(text(comment)),
            Token::Whitespace(_) => {}
            _ => break,
        }
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn text(comment: &str) -> Option<String> {
    Some(comment.trim().to_owned()).filter(|text| !text.is_empty())
}
