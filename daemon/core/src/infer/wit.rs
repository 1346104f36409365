//! A report as WIT: an interface per kind of event, with the record `input` that a table of it would have.

use std::collections::BTreeSet;

use super::input::{InputField, InputType, Slot};
use super::report::{KindOfEvent, Report};
use crate::names::{Unique, in_wit};
use crate::wit_text::{self, can_be_named, contract_type, use_line};

/// The interfaces of all kinds.
pub fn wit(report: &Report) -> String {
    let mut interfaces = Unique::default();
    let interface = |kind: &KindOfEvent| {
        let records = InputRecords::of(&kind.input);
        let name = interfaces.wit(&kind.table);
        let (title, uses, records) = (kind.title(), use_line(&records.contract_types), records.text);
        format!("/// {title}.\ninterface {} {{\n{uses}{records}}}\n", in_wit(&name))
    };
    report.kinds.iter().map(interface).collect::<Vec<_>>().join("\n")
}

/// The record `input` of a table, with the records that it needs.
#[derive(Default)]
pub(super) struct InputRecords {
    /// `input` comes last.
    pub(super) text: String,
    /// The types that they use from silverd:pipeline/types.
    pub(super) contract_types: BTreeSet<&'static str>,
    /// The fields of `input`.
    pub(super) fields: Vec<WitField>,
    names: Unique,
}

/// A field of a record.
pub(super) struct WitField {
    pub(super) key: String,
    /// In kebab case, without `%`.
    pub(super) name: String,
    pub(super) ty: String,
    looks_like: Option<String>,
}

impl InputRecords {
    pub(super) fn of(fields: &[InputField]) -> Self {
        let mut records = Self::default();
        // Nothing else is called so.
        let name = records.names.wit("input");
        records.fields = records.record(&name, fields);
        records
    }

    /// Writes a record after those that it has, and returns its fields.
    fn record(&mut self, name: &str, fields: &[InputField]) -> Vec<WitField> {
        let mut names = Unique::default();
        let (mut lines, mut written) = (String::new(), Vec::new());
        for field in fields {
            if !can_be_named(&field.key) {
                lines.push_str(&format!("    // The key {} cannot be named in WIT.\n", field.key.escape_default()));
                continue;
            }
            let field_name = names.wit(&field.key);
            let ty = self.ty(&field.slot, &format!("{name}-{field_name}"));
            let field = WitField { key: field.key.clone(), name: field_name, ty, looks_like: field.looks_like.clone() };
            lines.push_str(&field.in_input());
            written.push(field);
        }
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{gap}  record {} {{\n{lines}  }}\n", in_wit(name)));
        written
    }

    /// The text of a type. `path` names the record that it may need.
    fn ty(&mut self, slot: &Slot, path: &str) -> String {
        let ty = match &slot.ty {
            InputType::List(item) => format!("list<{}>", self.ty(item, path)),
            InputType::Record(fields) => {
                let name = self.names.wit(path);
                self.record(&name, fields);
                in_wit(&name)
            }
            scalar => {
                let name = scalar.scalar_name().unwrap_or_default();
                self.contract_types.extend(contract_type(name));
                name.to_owned()
            }
        };
        if slot.optional { format!("option<{ty}>") } else { ty }
    }
}

impl WitField {
    /// The field with its comment, and with its key if the name does not say it.
    fn in_input(&self) -> String {
        let comment = self.looks_like.as_ref().map(|looks_like| format!("{looks_like}."));
        wit_text::field(&self.name, &self.key, &self.ty, comment.as_deref())
    }

    /// The field of a row under this name, with its comment.
    pub(super) fn in_row(&self, name: &str) -> String {
        let looks_like = self.looks_like.as_ref().map(|looks_like| format!(", {looks_like}")).unwrap_or_default();
        format!("    /// `{}` of the event{looks_like}.\n    {}: {},\n", self.key, in_wit(name), self.ty)
    }
}
