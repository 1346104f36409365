//! The truth table, line by line, and properties of any two rows.

use proptest::prelude::*;

use super::*;

const TYPES: &str = include_str!("../../../../../wit/types.wit");

/// The columns of a row of these fields.
fn columns(fields: &str) -> Vec<TableColumn> {
    let text = format!(
        "package test:silver@0.1.0;
         interface hits {{
           use silverd:pipeline/types@0.2.0.{{batch, reject, timestamp, date, money}};
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

/// Checks the changes, notices and differences if a plugin with these fields fills a table with those.
#[track_caller]
fn check(table: &str, plugin: &str, expected: &[&str]) {
    let texts = match evolve(&columns(table), &columns(plugin)) {
        Ok(Fit { changes, notices, .. }) => {
            let changes = changes.iter().map(|change| format!("change: {change}"));
            changes.chain(notices.iter().map(|notice| format!("notice: {notice}"))).collect::<Vec<_>>()
        }
        Err(IncompatibleSchema(differences)) => {
            differences.iter().map(|difference| format!("refused: {difference}")).collect()
        }
    };
    assert_eq!(texts, expected, "{table} → {plugin}");
}

#[test]
fn fields_can_be_added_and_omitted_if_nullable() {
    check("a: s32", "a: s32", &[]);
    check("a: s32", "a: s32, b: option<string>", &["change: field `b`: added, string or null"]);
    check(
        "a: s32",
        "a: s32, b: string",
        &["refused: field `b`: the table has nothing, the plugin declares string; existing rows have no value for \
             it: declare it as `option<…>`"],
    );
    check(
        "a: s32, b: option<string>",
        "a: s32",
        &["notice: field `b`: the plugin no longer returns it; the column stays, and is null in new rows"],
    );
    check(
        "a: s32, b: string",
        "a: s32",
        &["refused: field `b`: the table has string, the plugin declares nothing; a non-null column cannot be \
             omitted: keep the field"],
    );
    check("a: s32, b: s32", "b: s32, a: s32", &[]);
}

#[test]
fn a_column_can_be_null_only_if_it_could_before() {
    check(
        "a: s32",
        "a: option<s32>",
        &["refused: field `a`: the table has integer, the plugin declares integer or null; readers of the table \
             rely on it being non-null: declare it without `option`"],
    );
    check("a: option<s32>", "a: s32", &["notice: field `a`: the plugin always returns it; the column stays nullable"]);
    check(
        "a: list<option<s32>>",
        "a: list<s32>",
        &["notice: field `a[]`: the plugin always returns it; the column stays nullable"],
    );
}

#[test]
fn comments_are_updated() {
    check("/// one\n a: s32", "/// two\n a: s32", &["change: field `a`: comment changed"]);
    check("a: s32", "/// two\n a: s32", &["change: field `a`: comment changed"]);
    check("/// one\n a: s32", "a: s32", &[]);
}

#[test]
fn types_can_only_be_widened() {
    check("a: s64", "a: s32", &["notice: field `a`: the plugin's integer is written as the table's long"]);
    check("a: s32", "a: s64", &["change: field `a`: widened from integer to long; the table's files are rewritten"]);
    check(
        "a: money",
        "a: f64",
        &["refused: field `a`: the table has decimal(18,2), the plugin declares double; the type of a column cannot \
             change: declare it as `money`, or give the new field another name"],
    );
    check("a: u64", "a: u32", &["notice: field `a`: the plugin's long is written as the table's decimal(20,0)"]);
    check("a: char", "a: string", &[]);
    check("a: timestamp", "a: timestamp", &[]);
    check(
        "a: timestamp",
        "a: s64",
        &["refused: field `a`: the table has timestamp, the plugin declares long; the type of a column cannot \
             change: declare it as `timestamp`, or give the new field another name"],
    );
}

#[test]
fn records_and_lists_follow_the_same_rules() {
    check("a: list<item>", "a: list<more>", &["change: field `a[].note`: added, string or null"]);
    check(
        "a: more",
        "a: item",
        &["notice: field `a.note`: the plugin no longer returns it; the column stays, and is null in new rows"],
    );
    check(
        "a: item",
        "a: list<item>",
        &[
            "refused: field `a`: the table has struct<sku: string>, the plugin declares array<struct<sku: string>>; the \
         type of a column cannot change: declare it as `record`, or give the new field another name",
        ],
    );
}

#[test]
fn enum_cases_can_be_added_but_not_renamed() {
    check("a: ab", "a: abc", &["change: field `a`: cases added: c"]);
    check("a: string", "a: ab", &["change: field `a`: cases added: a, b"]);
    check("a: ab", "a: string", &[]);
    check("a: ab", "a: just-a", &["notice: field `a`: the plugin no longer has the case b; existing rows keep it"]);
    check(
        "a: ab",
        "a: ac",
        &["refused: field `a`: the table has enum a, b, the plugin declares enum a, c; renaming a case would split \
             the rows in two: keep the old cases and add the new ones"],
    );
}

#[test]
fn an_incompatible_schema_names_every_field_and_what_helps() {
    let refused = evolve(&columns("a: s32, b: string, c: option<s8>"), &columns("a: string, c: option<bool>"));
    assert_eq!(
        refused.expect_err("refused").to_string(),
        "the plugin's row does not fit the existing table:\n  \
         field `a`: the table has integer, the plugin declares string; the type of a column cannot change: \
         declare it as `s32`, or give the new field another name\n  \
         field `b`: the table has string, the plugin declares nothing; a non-null column cannot be omitted: \
         keep the field\n  \
         field `c`: the table has byte or null, the plugin declares boolean or null; the type of a column cannot change: \
         declare it as `s8`, or give the new field another name\n\
         Change the plugin as described, or let silverd rebuild the table from Bronze: set another `path` in \
         pipeline.toml, or remove the table's folder while silverd is stopped"
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

/// A table, and a plugin that shares some of its columns, so that the two often fit.
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
        let fit = evolve(&table, &table).expect("equal columns");
        prop_assert_eq!(&fit.columns, &table);
        prop_assert!(fit.changes.is_empty() && fit.notices.is_empty());
    }

    #[test]
    fn a_changed_table_keeps_what_readers_and_plugins_rely_on((table, plugin) in related()) {
        let Ok(fit) = evolve(&table, &plugin) else { return Ok(()) };
        // Readers can rely on names, order, types, and whether a column may be null.
        for (before, after) in table.iter().zip(&fit.columns) {
            prop_assert_eq!((&before.name, before.nullable), (&after.name, after.nullable));
            prop_assert!(evolve(std::slice::from_ref(after), std::slice::from_ref(before)).is_ok());
        }
        prop_assert!(fit.columns[table.len()..].iter().all(|added| added.nullable));
        // A change is applied once.
        prop_assert_eq!(fit.changes.is_empty(), fit.columns == table);
        let again = evolve(&fit.columns, &plugin).expect("it fits the changed table");
        prop_assert!(again.changes.is_empty());
        // The previous plugin still fits.
        prop_assert!(evolve(&fit.columns, &table).is_ok());
    }

    #[test]
    fn a_difference_has_help((table, plugin) in (any_columns(1), any_columns(1))) {
        if let Err(IncompatibleSchema(differences)) = evolve(&table, &plugin) {
            prop_assert!(!differences.is_empty());
            for Difference { field, has, declares, help } in differences {
                prop_assert!(!field.is_empty() && has != declares && !help.is_empty());
            }
        }
    }
}
