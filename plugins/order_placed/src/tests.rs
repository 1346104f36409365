//! Events and the expected rows.

use silverd_plugin::{Config, Transform, testing};

use crate::{LineItem, OrderPlaced, Row};

const PRODUCTS: &[u8] = b"sku,category,name\nSKU-00454,garden,Watering can\n";

fn check(json: &str, expected: Result<Row, &str>) {
    let plugin: OrderPlaced = testing::configured(&Config::new().with_reference("products", PRODUCTS));
    let found = testing::rows(&plugin, json).map_err(|reject| reject.to_string());
    assert_eq!(found, expected.map(|row| vec![row]).map_err(str::to_owned), "{json}");
}

/// An order with this total and these items.
fn event(total: &str, line_items: &str) -> String {
    format!(
        r#"{{"event_id": "e1", "user_id": "user-1", "order_id": "o1", "ts": "2025-08-16T14:50:49.401333",
            "total": {total}, "line_items": {line_items}}}"#
    )
}

fn row(total: i64) -> Row {
    let item = |sku: &str, category: Option<&str>, qty, price, line_total| LineItem {
        sku: sku.to_owned(),
        category: category.map(str::to_owned),
        qty,
        price,
        line_total,
    };
    Row {
        event_id: "e1".to_owned(),
        order_id: "o1".to_owned(),
        user_id: "user-1".to_owned(),
        ts: 1_755_355_849_401_333,
        total,
        item_count: 3,
        line_items: vec![
            item("SKU-00454", Some("garden"), 2, 14_073, 28_146),
            item("SKU-00059", None, 1, 3_706, 3_706),
        ],
    }
}

const ITEMS: &str =
    r#"[{"sku": "sku-454", "qty": 2, "price": 140.73}, {"sku": "SKU-00059", "qty": 1, "price": 37.06}]"#;

#[test]
fn order_is_cleaned_and_enriched() {
    check(&event("318.52", ITEMS), Ok(row(31_852)));
}

#[test]
fn total_may_differ_from_the_sum_by_one_cent() {
    check(&event("318.53", ITEMS), Ok(row(31_853)));
    check(&event("318.51", ITEMS), Ok(row(31_851)));
    check(&event("318.54", ITEMS), Err("out-of-range: total: 318.54 is not the sum of the items, 318.52"));
    check(&event("-318.52", ITEMS), Err("out-of-range: total: -318.52 is not the sum of the items, 318.52"));
}

#[test]
fn invalid_events_are_rejected() {
    let rejects = [
        ("null", ITEMS, "missing-field: total: absent or empty"),
        ("0", "[]", "missing-field: line_items: absent or empty"),
        ("0", "null", "missing-field: line_items: absent or empty"),
        ("5", r#"[{"qty": 1, "price": 5}]"#, "missing-field: line_items[0]: sku: absent or empty"),
        (
            "5",
            r#"[{"sku": "SKU-1", "qty": 1, "price": 5}, {"sku": "SKU-2", "qty": 0, "price": 5}]"#,
            "out-of-range: line_items[1]: qty: 0 is not between 1 and 100000",
        ),
        (
            "5",
            r#"[{"sku": "SKU-1", "qty": "1", "price": 5}]"#,
            "malformed: line_items[0].qty: invalid type: string \"1\", expected u32 at line 2 column 66",
        ),
        ("5", "{}", "malformed: line_items: invalid type: map, expected a sequence at line 2 column 38"),
    ];
    for (total, line_items, reason) in rejects {
        check(&event(total, line_items), Err(reason));
    }
    let no_order = r#"{"event_id": "e1", "user_id": "user-1", "ts": "2025-08-16T14:50:49Z"}"#;
    check(no_order, Err("missing-field: order_id: absent or empty"));
}

#[test]
fn order_with_too_many_items_is_rejected() {
    let items = format!("[{}]", vec![r#"{"sku": "SKU-1", "qty": 1, "price": 1}"#; 10_001].join(","));
    check(&event("10001", &items), Err("out-of-range: line_items: 10001 items are more than 10000"));
}

#[test]
fn configure_requires_the_products_file() {
    let error = OrderPlaced::configure(&Config::new()).map(|_| ()).expect_err("no products");
    assert!(error.contains("add `reference = { products = \"data/reference/products.csv\" }`"), "{error}");
}
