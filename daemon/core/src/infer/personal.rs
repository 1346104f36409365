//! Values that look like a person's data: found by the names of keys and by their forms, and masked.

use serde_json::Value;
use silverd_values::Scalar;

use super::FieldPath;
use super::node::quoted;
use super::scalar::{self, TextForm, TimeForm};
use crate::json::{Json, Kind};
use crate::names::words;

/// A key is a person's if one of its words is one of these.
const WORDS: [&str; 33] = [
    "address",
    "birthday",
    "birthdate",
    "dob",
    "email",
    "fax",
    "firstname",
    "fullname",
    "iban",
    "ip",
    "lastname",
    "mail",
    "mobile",
    "nickname",
    "passport",
    "passwd",
    "password",
    "phone",
    "postcode",
    "secret",
    "ssn",
    "street",
    "surname",
    "telephone",
    "token",
    "ua",
    "useragent",
    "username",
    "zip",
    "zipcode",
    "msisdn",
    "cookie",
    "authorization",
];

/// Words before `name` that make it a person's; `name` alone is one, too.
const NAMED: [&str; 19] = [
    "account",
    "author",
    "billing",
    "buyer",
    "contact",
    "customer",
    "display",
    "family",
    "first",
    "full",
    "given",
    "last",
    "middle",
    "owner",
    "recipient",
    "sender",
    "shipping",
    "user",
    "person",
];

/// Pairs of words.
const PAIRS: [[&str; 2]; 7] = [
    ["user", "agent"],
    ["remote", "addr"],
    ["e", "mail"],
    ["birth", "date"],
    ["card", "number"],
    ["api", "key"],
    ["postal", "code"],
];

/// Whether the name of a key says that its values are a person's data.
pub(super) fn is_personal_key(key: &str) -> bool {
    let words = words(key);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // `email_id`, `ip_count` and `token_type` are about the data, and are not it.
    let is_about = words.len() > 1 && words.last().is_some_and(|last| matches!(*last, "id" | "count" | "type" | "at"));
    let is_name = match words[..] {
        ["name"] => true,
        [.., before, "name"] => NAMED.contains(&before),
        _ => false,
    };
    is_name
        || (!is_about && words.iter().any(|word| WORDS.contains(word)))
        || PAIRS.iter().any(|pair| words.windows(2).any(|window| window == pair))
}

/// A value without what it says of a person: `a***@e***.com`.
pub(super) fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(masked_text(text)),
        Value::Number(_) => Value::String("***".to_owned()),
        other => other.clone(),
    }
}

/// The JSON of an event, with a person's data masked. Numbers and times stay such, so that the event still fits its table;
/// the field that splits events into kinds stays as it is.
pub(super) fn masked_event(json: Json<'_>, kind_field: Option<&FieldPath>) -> String {
    let mut masks = Masks { json, kind_field, found: Vec::new() };
    masks.find(0, &mut Vec::new(), false);
    let mut text = String::new();
    let mut end = 0;
    for (node, mask) in masks.found {
        let node = json.tape.nodes()[node];
        text.push_str(&String::from_utf8_lossy(&json.text[end..node.start as usize]));
        text.push_str(&mask);
        end = node.end as usize;
    }
    text + &String::from_utf8_lossy(&json.text[end..])
}

/// Finds the scalars of an event to mask.
struct Masks<'e> {
    json: Json<'e>,
    kind_field: Option<&'e FieldPath>,
    /// Nodes, in their order, and what stands there instead.
    found: Vec<(usize, String)>,
}

impl Masks<'_> {
    fn find(&mut self, node: usize, path: &mut FieldPath, is_personal: bool) {
        let Json { tape, .. } = self.json;
        match tape.nodes()[node].kind {
            Kind::Object => {
                for (key, value) in tape.members(node) {
                    let key = self.json.content(key).into_owned();
                    let is_personal = is_personal || is_personal_key(&key);
                    path.push(key);
                    self.find(value, path, is_personal);
                    path.pop();
                }
            }
            Kind::Array => tape.items(node).for_each(|item| self.find(item, path, is_personal)),
            Kind::Number if is_personal => self.found.push((node, "0".to_owned())),
            Kind::Text | Kind::Escaped if self.kind_field != Some(path) => {
                let text = self.json.content(node);
                if is_personal || is_personal_text(&text) {
                    let mask = quoted(&mask_like(&text));
                    self.found.push((node, mask[1..mask.len() - 1].to_owned()));
                }
            }
            _ => {}
        }
    }
}

/// Whether the form of a text is that of a person's data.
fn is_personal_text(text: &str) -> bool {
    matches!(scalar::text_form_of(text), TextForm::Email | TextForm::Phone | TextForm::Ip)
}

/// A mask that is read as the same type.
fn mask_like(text: &str) -> String {
    match scalar::time(Scalar::Text(text)) {
        Some((TimeForm::Day, _)) => "1970-01-01".to_owned(),
        Some((form, _)) if form.is_epoch() => "0".to_owned(),
        Some(_) => "1970-01-01T00:00:00Z".to_owned(),
        None => masked_text(text),
    }
}

fn masked_text(text: &str) -> String {
    match text.split_once('@') {
        Some((local, domain)) if !domain.contains('@') => {
            let end = domain.rsplit_once('.').map_or("", |(_, end)| end);
            let end = if end.is_empty() { String::new() } else { format!(".{end}") };
            format!("{}@{}{end}", first_letter(local), first_letter(domain))
        }
        _ => first_letter(text),
    }
}

/// The first letter alone; nothing of a single one.
fn first_letter(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(first), Some(_)) => format!("{first}***"),
        _ => "***".to_owned(),
    }
}
