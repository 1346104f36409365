//! The text of `summary`: a line with the values of columns in it.

use std::ops::Range;

/// A line in which `{column}` stands for the value of a column. `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

/// What is wrong with a template, and at which bytes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    pub message: String,
    pub place: Range<usize>,
}

impl SummaryTemplate {
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let fault = |message: &str, place| Err(TemplateFault { message: message.to_owned(), place });
        let (mut parts, mut plain, mut at) = (Vec::new(), String::new(), 0);
        while let Some(next) = text[at..].chars().next() {
            let rest = &text[at..];
            let end = at + next.len_utf8();
            match next {
                '{' | '}' if rest[1..].starts_with(next) => {
                    plain.push(next);
                    at = end + 1;
                }
                '}' => return fault("this `}` has no `{` before it", at..end),
                '{' => {
                    let Some(length) = rest.find('}') else { return fault("this `{` has no `}` after it", at..end) };
                    let name = rest[1..length].trim();
                    if name.is_empty() || name.contains('{') {
                        return fault("there is no name of a column between these braces", at..at + length + 1);
                    }
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Column(name.to_owned()));
                    at += length + 1;
                }
                other => {
                    plain.push(other);
                    at = end;
                }
            }
        }
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// The columns that it names.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The line; a column without a value stays as it is written.
    pub fn render(&self, value: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Column(name) => match value(name) {
                    Some(value) => text.push_str(&value),
                    None => text.extend(["{", name.as_str(), "}"]),
                },
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_replaced_by_their_values() {
        let check = |template: &str, expected: &str| {
            let template = SummaryTemplate::parse(template).expect(template);
            let value = |name: &str| (name == "orders").then(|| "3".to_owned());
            assert_eq!(template.render(value), expected);
        };
        check("no orders", "no orders");
        check("", "");
        check("{orders} orders, { orders }", "3 orders, 3");
        check("ü{orders}é{other}", "ü3é{other}");
        check("{{orders}} is {orders}", "{orders} is 3");
    }

    #[test]
    fn faults_have_a_place() {
        let check = |template: &str, place: Range<usize>| {
            assert_eq!(SummaryTemplate::parse(template).expect_err(template).place, place, "{template}");
        };
        check("é {orders", 3..4);
        check("orders}", 6..7);
        check("a {} b", 2..4);
        check("a {b{c} d", 2..7);
    }

    #[test]
    fn the_columns_are_known() {
        let template = SummaryTemplate::parse("{a} of {b}, {{c}}").expect("a template");
        assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b"]);
    }
}
