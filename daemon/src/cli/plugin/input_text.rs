//! What a plugin reads from an event, as a table.

use silverd_core::input::{ContractVersion, EventType, Field, Input, Slot, Type};

use super::{counted, text_table};

/// The input of a plugin as text.
pub(super) fn input_text(input: &Input) -> anyhow::Result<String> {
    let ty = match input {
        Input::Raw(version) => {
            let version = if *version == ContractVersion::V0_1 { "0.1" } else { "0.2" };
            return Ok(format!("\ninput: the raw records, by version {version} of the contract"));
        }
        Input::Typed(ty) => ty,
    };
    let mut rows = Vec::new();
    if let Type::Record(fields) = &ty.input.ty {
        add_fields("", fields, &mut rows);
    }
    let table = text_table(&["field of the event", "read as", ""], &rows)?;
    let count = counted(rows.len() as u64, "field");
    Ok(format!("\ninput: {count}{}\n{table}", also(ty)))
}

/// What it reads besides the value.
fn also(ty: &EventType) -> &'static str {
    match (ty.meta.is_some(), ty.input.optional.is_some()) {
        (true, true) => ", where the event comes from, and tombstones",
        (true, false) => ", and where the event comes from",
        (false, true) => ", and tombstones",
        (false, false) => "",
    }
}

/// Nested fields as `line_items[].qty`.
fn add_fields(prefix: &str, fields: &[Field], rows: &mut Vec<Vec<String>>) {
    for field in fields {
        add_slot(&format!("{prefix}{}", field.key), &field.slot, rows);
    }
}

fn add_slot(path: &str, slot: &Slot, rows: &mut Vec<Vec<String>>) {
    let optional = if slot.optional.is_some() { "or none" } else { "" };
    rows.push(vec![path.to_owned(), words(&slot.ty), optional.to_owned()]);
    match &slot.ty {
        Type::Record(fields) => add_fields(&format!("{path}."), fields, rows),
        Type::List(item) => add_items(&format!("{path}[]"), &item.slot, rows),
        Type::Map(item) => add_items(&format!("{path}.*"), &item.slot, rows),
        _ => {}
    }
}

/// Items that are no records are described by their list.
fn add_items(path: &str, item: &Slot, rows: &mut Vec<Vec<String>>) {
    match &item.ty {
        Type::Record(fields) => add_fields(&format!("{path}."), fields, rows),
        Type::List(_) | Type::Map(_) => add_slot(path, item, rows),
        _ => {}
    }
}

fn words(ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".to_owned(),
        Type::Signed { bytes } => format!("integer of {} bits", bytes * 8),
        Type::Unsigned { bytes } => format!("integer of {} bits, not negative", u32::from(*bytes) * 8),
        Type::Float32 => "float".to_owned(),
        Type::Float64 => "double".to_owned(),
        Type::Char => "one character".to_owned(),
        Type::Text => "text".to_owned(),
        Type::Json => "any JSON, as text".to_owned(),
        Type::Timestamp => "timestamp".to_owned(),
        Type::Date => "date".to_owned(),
        Type::Money => "amount of money".to_owned(),
        Type::Enum(cases) => {
            let other = cases.fallback.and_then(|at| cases.cases.get(at as usize));
            let other = other.map(|case| format!("; other texts are {case}")).unwrap_or_default();
            format!("one of {}{other}", cases.cases.join(", "))
        }
        Type::Record(_) => "object".to_owned(),
        Type::List(item) => format!("array of {}", plural(&item.slot)),
        Type::Map(item) => format!("object with any keys, of {}", plural(&item.slot)),
    }
}

fn plural(item: &Slot) -> String {
    match &item.ty {
        Type::Record(_) => "objects".to_owned(),
        ty => words(ty),
    }
}
