//! Reads what a table's `transform` takes from its WIT, and where each value is in a guest's memory by the component
//! model's canonical ABI.

use wit_parser::{Field as WitField, InterfaceId, Resolve, Type as WitType, TypeDefKind, TypeId, WorldId};

use super::names::{NAME_LINE, Names};
use super::{ContractVersion, Enum, EventType, Field, HeaderType, Input, Item, Layout, MetaType, OptionalBytes};
use super::{Slot, Type};
use crate::schema::wit::{ContractAlias, contract_alias, describe, list_item, option_item, record_of, resolve_alias};
use crate::schema::{COLUMNS_MAX, CONTRACT_TEXT as TEXT, ContractError, Mismatch};
use crate::schema::{compare_to_contract, count_columns, discriminant_bytes, find_transform, version_of};

/// The fields of the record `event`, and the records that they have.
const INPUT: &str = "input";
const META: &str = "meta";

/// A string or a list: a pointer and a length.
const PAIR: Layout = Layout { size: 8, align: 4 };

impl Input {
    /// Reads it from a component's own type, `world` of `resolve`. `docs` is the WIT text of the table, if there is one: the
    /// names of fields come from there.
    pub fn of_world(resolve: &Resolve, world: WorldId, docs: Option<&str>) -> Result<Self, ContractError> {
        let (interface, transform) = find_transform(resolve, world)?;
        let name = resolve.id_of(interface).unwrap_or_default();
        let signature = |mismatch: Mismatch| mismatch.of(&name);
        let version = version_of(resolve).map_err(signature)?;
        let [param] = &transform.params[..] else {
            let found = format!("{} parameters", transform.params.len());
            let expected = "one parameter, `events: list<input>` or `events: batch`";
            return Err(signature(Mismatch::new("transform", expected, found)));
        };
        match list_item(resolve, param.ty) {
            None => {
                compare_to_contract(version, "batch", resolve, param.ty, "events").map_err(signature)?;
                Ok(Input::Raw(version))
            }
            Some(_) if version == ContractVersion::V0_1 => {
                let expected = "`events: batch`; typed events need silverd:pipeline@0.2.0";
                Err(signature(Mismatch::new("events", expected, describe(resolve, param.ty))))
            }
            Some(item) => {
                let names = Names::of(docs, resolve, interface)?;
                Reader { resolve, names, interface }.event(item, signature).map(Input::Typed)
            }
        }
    }
}

impl EventType {
    /// Reads it from WIT text with a record `input` in an interface, for a table without a plugin; and the comments of its
    /// fields.
    pub fn of_text(text: &str) -> Result<(Self, Vec<Option<String>>), ContractError> {
        let mut resolve = Resolve::default();
        let parse_error = |error: String| ContractError::Wit(error);
        resolve.push_str("types.wit", TEXT).map_err(|error| parse_error(format!("{error:#}")))?;
        let package = resolve.push_str("input.wit", text).map_err(|error| parse_error(format!("{error:#}")))?;
        let found = resolve.packages[package].interfaces.values().filter_map(|id| {
            let input = resolve.interfaces[*id].types.get(INPUT)?;
            Some((*id, *input))
        });
        let found: Vec<_> = found.collect();
        let [(interface, input)] = found[..] else { return Err(ContractError::Inputs(found.len())) };
        let names = Names::of(Some(text), &resolve, interface)?;
        let fields = record_of(&resolve, WitType::Id(input)).map_or(&[][..], |record| &record.fields);
        let comments = fields.iter().map(|field| comment(field.docs.contents.as_deref()?)).collect();
        let ty = Reader { resolve: &resolve, names, interface }.input(WitType::Id(input))?;
        Ok((ty, comments))
    }
}

struct Reader<'r> {
    resolve: &'r Resolve,
    names: Names,
    interface: InterfaceId,
}

impl Reader<'_> {
    fn event(&self, item: WitType, signature: impl Fn(Mismatch) -> ContractError) -> Result<EventType, ContractError> {
        let Some(record) = record_of(self.resolve, item) else {
            let expected = "a list of records: `list<input>`, or a list of records of `input` and `meta`";
            return Err(signature(Mismatch::new("events", expected, describe(self.resolve, item))));
        };
        let of = |name: &str| record.fields.iter().find(|field| field.name == name).map(|field| field.ty);
        let is_event = of(INPUT).is_some() && record.fields.iter().all(|field| [INPUT, META].contains(&&*field.name));
        if !is_event {
            return self.input(item);
        }
        self.check_size(item)?;
        let (offsets, layout) = self.offsets(&record.fields)?;
        let at = |name: &str| record.fields.iter().position(|field| field.name == name).map(|at| offsets[at]);
        let (input, _) = self.slot(of(INPUT).unwrap_or(item), "")?;
        if !matches!(input.ty, Type::Record(_)) {
            let found = of(INPUT).map_or_else(String::new, |ty| describe(self.resolve, ty));
            return Err(signature(Mismatch::new("events[].input", "a record", found)));
        }
        let meta = match (of(META), at(META)) {
            (Some(ty), Some(at)) => {
                compare_to_contract(ContractVersion::V0_2, META, self.resolve, ty, "events[].meta")
                    .map_err(&signature)?;
                Some(self.meta(ty, at)?)
            }
            _ => None,
        };
        Ok(EventType { layout, input: Slot { at: at(INPUT).unwrap_or(0), ..input }, meta })
    }

    /// An event that is the record `input` alone.
    fn input(&self, record: WitType) -> Result<EventType, ContractError> {
        self.check_size(record)?;
        let (slot, layout) = self.slot(record, "")?;
        Ok(EventType { layout, input: slot, meta: None })
    }

    fn check_size(&self, ty: WitType) -> Result<(), ContractError> {
        match count_columns(self.resolve, ty, COLUMNS_MAX) > COLUMNS_MAX {
            true => Err(ContractError::TooManyFields),
            false => Ok(()),
        }
    }

    /// The offsets of the contract's `meta`, which the type has been compared with.
    fn meta(&self, ty: WitType, at: u32) -> Result<MetaType, ContractError> {
        let place = |ty: WitType, name: &str| -> Result<(u32, WitType), ContractError> {
            let fields = record_of(self.resolve, ty).map_or(&[][..], |record| &record.fields);
            let (offsets, _) = self.offsets(fields)?;
            let found = fields.iter().position(|field| field.name == name);
            Ok(found.map_or((0, ty), |found| (offsets[found], fields[found].ty)))
        };
        let bytes = |(at, _)| OptionalBytes { at, payload: PAIR.align };
        let (headers, list) = place(ty, "headers")?;
        let header = list_item(self.resolve, list).unwrap_or(list);
        let fields = record_of(self.resolve, header).map_or(&[][..], |record| &record.fields);
        let (_, layout) = self.offsets(fields)?;
        Ok(MetaType {
            at,
            topic: place(ty, "topic")?.0,
            partition: place(ty, "partition")?.0,
            offset: place(ty, "offset")?.0,
            timestamp: place(ty, "timestamp")?.0,
            key: bytes(place(ty, "key")?),
            headers,
            header: HeaderType { layout, name: place(header, "name")?.0, value: bytes(place(header, "value")?) },
        })
    }

    /// The offsets of the fields of a record, and its layout.
    fn offsets(&self, fields: &[WitField]) -> Result<(Vec<u32>, Layout), ContractError> {
        let mut laid_out = Fields::default();
        let offsets = fields.iter().map(|field| Ok(laid_out.add(self.layout(field.ty)?))).collect::<Result<_, _>>()?;
        Ok((offsets, laid_out.layout()))
    }

    /// The layout of a type that may have no JSON form, such as `list<u8>`.
    fn layout(&self, ty: WitType) -> Result<Layout, ContractError> {
        if list_item(self.resolve, ty).is_some() {
            return Ok(PAIR);
        }
        match option_item(self.resolve, ty) {
            Some(item) => Ok(option_layout(self.layout(item)?).1),
            None => match record_of(self.resolve, ty) {
                Some(record) => Ok(self.offsets(&record.fields)?.1),
                None => Ok(self.ty(ty, "")?.1),
            },
        }
    }

    fn slot(&self, ty: WitType, path: &str) -> Result<(Slot, Layout), ContractError> {
        let Some(item) = option_item(self.resolve, ty) else {
            let (ty, layout) = self.ty(ty, path)?;
            return Ok((Slot { at: 0, optional: None, ty }, layout));
        };
        if option_item(self.resolve, item).is_some() {
            return Err(no_mapping(path, "option<option<…>>", "a value is there or not: use one option"));
        }
        let (ty, layout) = self.ty(item, path)?;
        let (payload, layout) = option_layout(layout);
        Ok((Slot { at: 0, optional: Some(payload), ty }, layout))
    }

    fn ty(&self, ty: WitType, path: &str) -> Result<(Type, Layout), ContractError> {
        let own = |bytes: u8| Layout { size: bytes.into(), align: bytes.into() };
        let signed = |bytes| (Type::Signed { bytes }, own(bytes));
        let unsigned = |bytes| (Type::Unsigned { bytes }, own(bytes));
        match contract_alias(self.resolve, ty) {
            Some(ContractAlias::Timestamp) => return Ok((Type::Timestamp, own(8))),
            Some(ContractAlias::Date) => return Ok((Type::Date, own(4))),
            Some(ContractAlias::Money) => return Ok((Type::Money, own(8))),
            Some(ContractAlias::Json) => return Ok((Type::Json, PAIR)),
            None => {}
        }
        Ok(match resolve_alias(self.resolve, ty) {
            WitType::Bool => (Type::Bool, own(1)),
            WitType::S8 => signed(1),
            WitType::S16 => signed(2),
            WitType::S32 => signed(4),
            WitType::S64 => signed(8),
            WitType::U8 => unsigned(1),
            WitType::U16 => unsigned(2),
            WitType::U32 => unsigned(4),
            WitType::U64 => unsigned(8),
            WitType::F32 => (Type::Float32, own(4)),
            WitType::F64 => (Type::Float64, own(8)),
            WitType::Char => (Type::Char, own(4)),
            WitType::String => (Type::Text, PAIR),
            WitType::ErrorContext => return Err(no_mapping(path, "error-context", "use a string")),
            WitType::Id(id) => return self.defined(id, path),
        })
    }

    fn defined(&self, id: TypeId, path: &str) -> Result<(Type, Layout), ContractError> {
        let found = &self.resolve.types[id].kind;
        Ok(match found {
            TypeDefKind::Record(_) => {
                let (fields, layout) = self.record(id, path)?;
                (Type::Record(fields), layout)
            }
            TypeDefKind::Enum(cases) => {
                let bytes = discriminant_bytes(cases.cases.len());
                let record = self.resolve.types[id].name.as_deref().unwrap_or_default();
                let text = |case: &str| self.names.of_field(record, case).unwrap_or(case).to_owned();
                let fallback = cases.cases.iter().position(|case| matches!(case.name.as_str(), "other" | "unknown"));
                let cases = Enum {
                    cases: cases.cases.iter().map(|case| text(&case.name)).collect(),
                    fallback: fallback.map(|at| at as u32),
                    bytes,
                };
                (Type::Enum(cases), Layout { size: bytes.into(), align: bytes.into() })
            }
            TypeDefKind::List(item) if resolve_alias(self.resolve, *item) == WitType::U8 => {
                let help = "JSON has no bytes: use a string, or `json` from silverd:pipeline/types";
                return Err(no_mapping(path, "list<u8>", help));
            }
            TypeDefKind::List(item) => match self.map_value(*item) {
                Some(value) => {
                    let (slot, layout) = self.slot(value, path)?;
                    let mut fields = Fields::default();
                    fields.add(PAIR);
                    let at = fields.add(layout);
                    (Type::Map(Box::new(Item { layout: fields.layout(), slot: Slot { at, ..slot } })), PAIR)
                }
                None => {
                    let (slot, layout) = self.slot(*item, path)?;
                    (Type::List(Box::new(Item { layout, slot })), PAIR)
                }
            },
            TypeDefKind::Tuple(_) => {
                let help = "use a record; `list<tuple<string, T>>` takes an object with any keys";
                return Err(no_mapping(path, "tuple", help));
            }
            TypeDefKind::Variant(_) => {
                return Err(no_mapping(path, "variant", "use `json`, or an option for each form"));
            }
            TypeDefKind::Result(_) => return Err(no_mapping(path, "result", "use an option")),
            TypeDefKind::Flags(_) => {
                return Err(no_mapping(path, "flags", "use a list of an enum, or a bool for each"));
            }
            other => {
                return Err(no_mapping(path, other.as_str(), "see the types of an input in docs/plugins/contract.md"));
            }
        })
    }

    /// The type of the values, if a list's items are pairs of a string and a value.
    fn map_value(&self, item: WitType) -> Option<WitType> {
        let WitType::Id(id) = resolve_alias(self.resolve, item) else { return None };
        let TypeDefKind::Tuple(tuple) = &self.resolve.types[id].kind else { return None };
        let [key, value] = tuple.types[..] else { return None };
        (resolve_alias(self.resolve, key) == WitType::String).then_some(value)
    }

    fn record(&self, id: TypeId, path: &str) -> Result<(Vec<Field>, Layout), ContractError> {
        let ty = &self.resolve.types[id];
        let TypeDefKind::Record(record) = &ty.kind else { return Ok((Vec::new(), Layout { size: 0, align: 1 })) };
        let (mut fields, mut read) = (Fields::default(), Vec::with_capacity(record.fields.len()));
        for field in &record.fields {
            let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            let (slot, layout) = self.slot(field.ty, &path)?;
            let record = ty.name.as_deref().unwrap_or_default();
            let key =
                self.names.of_field(record, &field.name).map_or_else(|| field.name.replace('-', "_"), str::to_owned);
            if read.iter().any(|earlier: &Field| earlier.key == key) {
                let interface = self.resolve.id_of(self.interface).unwrap_or_default();
                return Err(ContractError::TwoFields { interface, field: path, key });
            }
            read.push(Field { key, slot: Slot { at: fields.add(layout), ..slot } });
        }
        Ok((read, fields.layout()))
    }
}

/// The comment of a field, without the line that names it.
fn comment(docs: &str) -> Option<String> {
    let lines: Vec<_> = docs.lines().map(str::trim).filter(|line| !line.starts_with(NAME_LINE)).collect();
    Some(lines.join("\n").trim().to_owned()).filter(|text| !text.is_empty())
}

/// Where the payload of an option is, and the layout of the option: a discriminant of one byte comes first.
fn option_layout(payload: Layout) -> (u32, Layout) {
    let mut fields = Fields::default();
    fields.add(Layout { size: 1, align: 1 });
    let at = fields.add(payload);
    (at, fields.layout())
}

/// Values one after the other, each at the next address that its alignment allows.
struct Fields {
    end: u32,
    align: u32,
}

impl Default for Fields {
    fn default() -> Self {
        Self { end: 0, align: 1 }
    }
}

impl Fields {
    fn add(&mut self, value: Layout) -> u32 {
        let at = self.end.next_multiple_of(value.align);
        self.end = at + value.size;
        self.align = self.align.max(value.align);
        at
    }

    fn layout(&self) -> Layout {
        Layout { size: self.end.next_multiple_of(self.align), align: self.align }
    }
}

fn no_mapping(path: &str, found: &str, help: &'static str) -> ContractError {
    ContractError::NoInput { field: path.to_owned(), found: found.to_owned(), help }
}
