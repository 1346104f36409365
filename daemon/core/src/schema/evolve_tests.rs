//! The truth table, line by line, and what must hold for any two rows.

use proptest::prelude::*;

use super::*;

const TYPES: &str = include_str!("../../../../wit/types.wit");

/// The columns of a row of these fields.
fn columns(fields: &str) -> Vec<TableColumn> {
    let text = format!(
        "package test:silver@0.1.0;
         interface hits {{
           use silverd:pipeline/types@0.1.0.{{batch, reject, timestamp, date, money}};
           enum ab {{ a, b }} enum abc {{ a, b, c }} enum ac {{ a, c }} enum just-a {{ a }}
           record item {{ sku: string }} record more {{ sku: string, note: option<string> }}
           record row {{ {fields} }}
           record output {{ rows: list<row>, row-events: list<u32>, rejects: list<reject> }}
           transform: func(events: batch) -> output;
         }}
         world hits-plugin {{ export hits; }}"
    );
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_str("types.wit", TYPES).expect("the contract");
    let package = resolve.push_str("table.wit", &text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let world = resolve.select_world(&[package], None).expect("one world");
    TableSchema::of_world(&resolve, world, Some(&text)).expect("a table").table_columns()
}

/// The table's columns and what is said of them once a plugin of these fields fills a table of those.
#[track_caller]
fn check(table: &str, plugin: &str, expected: &[&str]) {
    let told = match evolve(&columns(table), &columns(plugin)) {
        Ok(Fit { changes, notices, .. }) => {
            let changes = changes.iter().map(|change| format!("change: {change}"));
            changes.chain(notices.iter().map(|notice| format!("notice: {notice}"))).collect::<Vec<_>>()
        }
        Err(Refused(differences)) => differences.iter().map(|difference| format!("refused: {difference}")).collect(),
    };
    assert_eq!(told, expected, "{table} → {plugin}");
}

#[test]
fn fields_that_come_and_go() {
    check("a: s32", "a: s32", &[]);
    check("a: s32", "a: s32, b: option<string>", &["change: field `b`: added, string or null"]);
    check(
        "a: s32",
        "a: s32, b: string",
        &[
            "refused: field `b`: the table has nothing, the plugin declares string; the rows that stand there have no value \
           for it: declare it as `option<…>`",
        ],
    );
    check(
        "a: s32, b: option<string>",
        "a: s32",
        &["notice: field `b`: the plugin no longer gives it; it stays in the table, null in new rows"],
    );
    check(
        "a: s32, b: string",
        "a: s32",
        &[
            "refused: field `b`: the table has string, the plugin declares nothing; a column that is never null cannot be \
           left out: keep the field",
        ],
    );
    check("a: s32, b: s32", "b: s32, a: s32", &[]);
}

#[test]
fn nulls() {
    check(
        "a: s32",
        "a: option<s32>",
        &[
            "refused: field `a`: the table has integer, the plugin declares integer or null; who reads the table relies on \
           its never being null: declare it without `option`",
        ],
    );
    check(
        "a: option<s32>",
        "a: s32",
        &["refused: field `a`: the table has integer or null, the plugin declares integer; there may be nulls in it \
           already: declare it as `option<…>`"],
    );
    check(
        "a: list<option<s32>>",
        "a: list<s32>",
        &[
            "refused: field `a[]`: the table has integer or null, the plugin declares integer; there may be nulls in it \
           already: declare it as `option<…>`",
        ],
    );
}

#[test]
fn comments() {
    check("/// one\n a: s32", "/// two\n a: s32", &["change: field `a`: another comment"]);
    check("a: s32", "/// two\n a: s32", &["change: field `a`: another comment"]);
    check("/// one\n a: s32", "a: s32", &[]);
}

#[test]
fn types() {
    check("a: s64", "a: s32", &["notice: field `a`: the plugin's integer is written as the table's long"]);
    check("a: s32", "a: s64", &["change: field `a`: widened from integer to long; the table's files are written anew"]);
    check(
        "a: money",
        "a: f64",
        &[
            "refused: field `a`: the table has decimal(18,2), the plugin declares double; a column keeps its type: declare \
           it as `money`, or name the new field otherwise",
        ],
    );
    check("a: u64", "a: u32", &["notice: field `a`: the plugin's long is written as the table's decimal(20,0)"]);
    check("a: char", "a: string", &[]);
    check("a: timestamp", "a: timestamp", &[]);
    check(
        "a: timestamp",
        "a: s64",
        &[
            "refused: field `a`: the table has timestamp, the plugin declares long; a column keeps its type: declare it as \
           `timestamp`, or name the new field otherwise",
        ],
    );
}

#[test]
fn records_and_lists() {
    check("a: list<item>", "a: list<more>", &["change: field `a[].note`: added, string or null"]);
    check(
        "a: more",
        "a: item",
        &["notice: field `a.note`: the plugin no longer gives it; it stays in the table, null in new rows"],
    );
    check(
        "a: item",
        "a: list<item>",
        &["refused: field `a`: the table has struct<sku: string>, the plugin declares array<struct<sku: string>>; a \
           column keeps its type: declare it as `record`, or name the new field otherwise"],
    );
}

#[test]
fn cases_of_enums() {
    check("a: ab", "a: abc", &["change: field `a`: takes the cases c"]);
    check("a: string", "a: ab", &["change: field `a`: takes the cases a, b"]);
    check("a: ab", "a: string", &[]);
    check("a: ab", "a: just-a", &["notice: field `a`: no new row has the case b; rows that stand there keep it"]);
    check(
        "a: ab",
        "a: ac",
        &[
            "refused: field `a`: the table has enum a, b, the plugin declares enum a, c; a renamed case would part its rows \
           in two: keep the old cases beside the new ones",
        ],
    );
}

#[test]
fn a_refusal_tells_every_field_and_the_ways_out() {
    let refused = evolve(&columns("a: s32, b: string, c: option<s8>"), &columns("a: string, c: option<bool>"));
    assert_eq!(
        refused.expect_err("refused").to_string(),
        "the plugin's row does not fit the table that stands there:\n  \
         field `a`: the table has integer, the plugin declares string; a column keeps its type: declare it as `s32`, or name \
         the new field otherwise\n  \
         field `b`: the table has string, the plugin declares nothing; a column that is never null cannot be left out: \
         keep the field\n  \
         field `c`: the table has byte or null, the plugin declares boolean or null; a column keeps its type: declare it \
         as `s8`, or name the new field otherwise\n\
         Change the plugin as said, or let the table be made anew from Bronze: under another `path` in pipeline.toml, \
         beside the old one, or in its place, by removing its folder while silverd is stopped"
    );
}

fn types_of_columns() -> impl Strategy<Value = (DeltaType, Option<Vec<String>>)> {
    use DeltaType::*;
    let cases = proptest::sample::subsequence(vec!["x", "y", "z"], 1..=3);
    let cases = cases.prop_map(|cases| (String, Some(cases.into_iter().map(str::to_owned).collect())));
    let plain = proptest::sample::select(vec![
        Boolean,
        Byte,
        Short,
        Integer,
        Long,
        Float,
        Double,
        Decimal(20, 0),
        Decimal(18, 2),
        String,
        Binary,
        Date,
        Timestamp,
    ]);
    prop_oneof![4 => plain.prop_map(|ty| (ty, None)), 1 => cases]
}

fn any_columns(depth: u32) -> BoxedStrategy<Vec<TableColumn>> {
    let leaf = types_of_columns().boxed();
    let ty = if depth == 0 {
        leaf
    } else {
        let nested = any_columns(depth - 1).prop_map(|fields| (DeltaType::Struct(fields), None));
        let lists = (types_of_columns(), any::<bool>()).prop_map(|((ty, _), nullable)| {
            let item = TableColumn { name: "element".to_owned(), ty, nullable, comment: None, cases: None };
            (DeltaType::Array(Box::new(item)), None)
        });
        prop_oneof![4 => leaf, 1 => nested, 1 => lists].boxed()
    };
    let comment = proptest::option::of(proptest::sample::select(vec!["one".to_owned(), "two".to_owned()]));
    let column = (ty, any::<bool>(), comment);
    let named = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 1..=4).prop_shuffle();
    (named, proptest::collection::vec(column, 4))
        .prop_map(|(names, columns)| {
            let of = |(name, ((ty, cases), nullable, comment)): (&str, _)| TableColumn {
                name: name.to_owned(),
                ty,
                nullable,
                comment,
                cases,
            };
            names.into_iter().zip(columns).map(of).collect()
        })
        .boxed()
}

/// One of the two with some of its columns changed, so that the two often fit.
fn related() -> impl Strategy<Value = (Vec<TableColumn>, Vec<TableColumn>)> {
    (any_columns(2), any_columns(2), proptest::collection::vec(0..4u8, 4)).prop_map(|(table, other, picks)| {
        let mut plugin: Vec<_> =
            table.iter().zip(&picks).filter(|(_, pick)| **pick > 0).map(|(c, _)| c.clone()).collect();
        for column in other {
            if !plugin.iter().any(|has| has.name == column.name) {
                plugin.push(TableColumn { nullable: true, ..column });
            }
        }
        (table, plugin)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn a_table_fits_itself(table in any_columns(2)) {
        let fit = evolve(&table, &table).expect("the same");
        prop_assert_eq!(&fit.columns, &table);
        prop_assert!(fit.changes.is_empty() && fit.notices.is_empty());
    }

    #[test]
    fn whatever_a_table_becomes((table, plugin) in related()) {
        let Ok(fit) = evolve(&table, &plugin) else { return Ok(()) };
        // What readers rely on stays: names, order, types, and whether a column may be null.
        for (before, after) in table.iter().zip(&fit.columns) {
            prop_assert_eq!((&before.name, before.nullable), (&after.name, after.nullable));
            prop_assert!(evolve(std::slice::from_ref(after), std::slice::from_ref(before)).is_ok());
        }
        prop_assert!(fit.columns[table.len()..].iter().all(|added| added.nullable));
        // Without a change it is the same table; with one, the change is made once.
        prop_assert_eq!(fit.changes.is_empty(), fit.columns == table);
        let again = evolve(&fit.columns, &plugin).expect("it fits once it has grown");
        prop_assert!(again.changes.is_empty());
        // The plugin that filled it before still fits.
        prop_assert!(evolve(&fit.columns, &table).is_ok());
    }

    #[test]
    fn a_refusal_says_why((table, plugin) in (any_columns(1), any_columns(1))) {
        if let Err(Refused(differences)) = evolve(&table, &plugin) {
            prop_assert!(!differences.is_empty());
            for Difference { field, has, declares, help } in differences {
                prop_assert!(!field.is_empty() && has != declares && !help.is_empty());
            }
        }
    }
}
