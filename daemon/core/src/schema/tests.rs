//! Schemas that are read from WIT, and the errors for those that cannot be.

use wit_parser::Resolve;

use super::*;

const TYPES: &str = include_str!("../../../../wit/types.wit");

/// The WIT of a table whose interface has these types, and the usual `output` and `transform` unless they are given.
fn table(types: &str) -> String {
    let unless = |has: &str, text: &'static str| if types.contains(has) { "" } else { text };
    let output = "record output { rows: list<row>, row-events: list<u32>, rejects: list<reject> }";
    format!(
        "package test:silver@0.1.0;
         /// Hits.
         interface hits {{
           use silverd:pipeline/types@0.2.0.{{batch, reject, timestamp, date, money}};
           {types}
           {}
           {}
         }}
         world hits-plugin {{ export hits; }}",
        unless("record output", output),
        unless(": func(", "transform: func(events: batch) -> output;"),
    )
}

fn read(text: &str, docs: Option<&str>) -> Result<TableSchema, ContractError> {
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", TYPES).expect("the contract");
    let package = resolve.push_str("table.wit", text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let world = resolve.select_world(&[package], None).expect("one world");
    TableSchema::of_world(&resolve, world, docs)
}

/// The columns of a row with these fields: their Arrow types, with `?` after nullable ones.
#[track_caller]
fn check(fields: &str, expected: &[&str]) {
    let schema = read(&table(fields), None).expect("a table");
    let columns = schema.arrow();
    let shown = columns
        .fields()
        .iter()
        .map(|field| format!("{}: {}{}", field.name(), field.data_type(), if field.is_nullable() { "?" } else { "" }));
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[track_caller]
fn check_refused(types: &str, expected: &str) {
    let error = read(&table(types), None).expect_err("no table");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn numbers_and_text_are_mapped() {
    check(
        "record row { yes: bool, a: s8, b: s16, c: s32, d: s64, e: f32, f: f64, text: string, letter: char }",
        &[
            "yes: Boolean",
            "a: Int8",
            "b: Int16",
            "c: Int32",
            "d: Int64",
            "e: Float32",
            "f: Float64",
            "text: Utf8",
            "letter: Utf8",
        ],
    );
}

#[test]
fn unsigned_numbers_are_widened() {
    check(
        "record row { a: u8, b: u16, c: u32, d: u64 }",
        &["a: Int16", "b: Int32", "c: Int64", "d: Decimal128(20, 0)"],
    );
}

#[test]
fn aliases_of_the_contract_are_mapped() {
    check(
        "type cents = money; type timestamps = list<timestamp>; type plain = s64;
         record row { at: timestamp, on: option<date>, price: money, cost: cents, all: timestamps, n: plain }",
        &[
            "at: Timestamp(µs, \"UTC\")",
            "on: Date32?",
            "price: Decimal128(18, 2)",
            "cost: Decimal128(18, 2)",
            "all: List(non-null Timestamp(µs, \"UTC\"), field: 'element')",
            "n: Int64",
        ],
    );
}

/// A type named `timestamp` that is not the contract's is mapped by its own definition.
#[test]
fn only_the_names_of_the_contract_count() {
    let wit = table("record row { at: timestamp }").replace("timestamp, date, money", "date, money");
    let own = wit.replace("record row", "type timestamp = string; record row");
    assert_eq!(read(&own, None).expect("a table").columns[0].kind, Kind::Utf8);
}

#[test]
fn options_lists_and_records_are_mapped() {
    check(
        "type maybe = option<string>; record item { sku-code: string, qty: option<u8> }
         record row { a: maybe, bytes: list<u8>, tags: list<option<string>>, items: option<list<item>>, one: item }",
        &[
            "a: Utf8?",
            "bytes: Binary",
            "tags: List(Utf8, field: 'element')",
            "items: List(non-null Struct(\"sku_code\": non-null Utf8, \"qty\": Int16), field: 'element')?",
            "one: Struct(\"sku_code\": non-null Utf8, \"qty\": Int16)",
        ],
    );
}

#[test]
fn enums_of_every_size_are_mapped() {
    let cases = |n: usize| (0..n).map(|case| format!("c{case}")).collect::<Vec<_>>().join(", ");
    check(
        &format!("enum few {{ {} }} enum many {{ {} }} record row {{ a: few, b: many }}", cases(256), cases(257)),
        &["a: Dictionary(UInt8, Utf8)", "b: Dictionary(UInt16, Utf8)"],
    );
    let schema = read(&table("enum kind { add-to-cart, view } record row { kind: kind }"), None).expect("a table");
    assert_eq!(schema.columns[0].kind, Kind::Enum(vec!["add-to-cart".to_owned(), "view".to_owned()]));
}

#[test]
fn fields_without_a_column_type_are_refused() {
    let refused = |field: &str, found: &str, help: &str| {
        format!("field `{field}` of the row has type `{found}`, which has no column type; {help}")
    };
    let check_field = |types: &str, field: &str, found: &str, help: &str| {
        check_refused(types, &refused(field, found, help));
    };
    let variant = "use an enum for the case and an option for each payload";
    let twice = "a column is either nullable or not: use one option";
    check_field("variant v { a(u32), b } record row { n: u32, x: v }", "x", "variant", variant);
    check_field("record row { x: tuple<u8> }", "x", "tuple", "use a record, whose fields have names");
    check_field("flags f { a } record row { x: option<f> }", "x", "flags", "use one bool for each flag");
    check_field("record row { x: result<u8> }", "x", "result", "use an option, and a reject for the error");
    check_field("record row { x: option<option<u8>> }", "x", "option<option<…>>", twice);
    check_field("type m = option<u8>; record row { x: list<option<m>> }", "x.element", "option<option<…>>", twice);
    check_field(
        "variant v { a } record item { deep: v } record row { the-items: option<list<item>> }",
        "the-items.element.deep",
        "variant",
        variant,
    );
    let readme = "see the column types in docs/plugins/contract.md";
    check_field("resource r; record row { x: r }", "x", "own", readme);
}

#[test]
fn reserved_names_are_refused() {
    check_refused(
        "record row { ingested-at: timestamp }",
        "the row has a field `ingested_at`, a name that silverd reserves for its own columns",
    );
    check_refused(
        "record row { event-date: date }",
        "the row has a field `event_date`, a name that silverd reserves for its own columns",
    );
    // Inside a record the name is allowed.
    check(
        "record item { event-date: date } record row { item: item }",
        &["item: Struct(\"event_date\": non-null Date32)"],
    );
}

#[test]
fn comments_come_from_the_wit_text() {
    let types = "
        /// An item.
        record item {
          /// Its code.
          sku: string }
        /// One
        /// hit.
        record row {
          /// How   many.
          n: u32,
          /// All of them.
          items: option<list<item>>,
          bare: bool }";
    let text = table(types);
    let schema = read(&text, Some(&text)).expect("a table");
    assert_eq!(schema.doc.as_deref(), Some("One hit."));
    let docs: Vec<_> = schema.columns.iter().map(|column| column.doc.as_deref()).collect();
    assert_eq!(docs, [Some("How many."), Some("All of them."), None]);
    let Kind::List(items) = &schema.columns[1].kind else { panic!("{schema:?}") };
    let Kind::Struct(fields) = &items.kind else { panic!("{schema:?}") };
    assert_eq!(fields[0].doc.as_deref(), Some("Its code."));
    assert_eq!(schema.arrow().field(0).metadata()[COMMENT], "How many.");
}

#[test]
fn comments_of_another_table_are_ignored() {
    let text = table("/// A row.\nrecord row { n: u32 }");
    for other in ["no WIT", &text.replace("interface hits", "interface others").replace("export hits", "export others")]
    {
        let schema = read(&text, Some(other)).expect("a table");
        assert_eq!((schema.doc, schema.columns[0].doc.clone()), (None, None));
    }
    let renamed = text.replace("n: u32", "/// Another.\nm: u32");
    assert_eq!(read(&text, Some(&renamed)).expect("a table").columns[0].doc, None);
}

#[test]
fn a_row_with_too_many_columns_is_refused_before_they_are_built() {
    let nested = |levels: usize| {
        let record = |level: usize| {
            let field = if level == 1 { "u8".to_owned() } else { format!("r{}", level - 1) };
            format!("record r{level} {{ a: {field}, b: {field}, c: option<{field}>, d: list<{field}> }} ")
        };
        (1..=levels).map(record).collect::<String>() + &format!("record row {{ all: r{levels} }}")
    };
    assert!(read(&table(&nested(6)), None).is_ok(), "4,096 columns are allowed");
    let expected = "the row has more than 10000 columns, counting those inside of records. Leave some out, or put a part of \
                    them into one string as JSON";
    check_refused(&nested(7), expected);
    // Nobody could build these.
    check_refused(&nested(40), expected);
}
