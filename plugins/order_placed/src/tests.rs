//! Events and the expected rows.

use silverd_plugin::{Config, Transform, testing};

use crate::{Input, InputItem, LineItem, OrderPlaced, Row};

const PRODUCTS: &[u8] = b"sku,category,name\nSKU-00454,garden,Watering can\n";

#[track_caller]
fn check(total: i64, items: &[(&str, u32, i64)], expected: Result<Row, &str>) {
    let plugin: OrderPlaced = testing::configured(&Config::new().with_reference("products", PRODUCTS));
    let item = |(sku, qty, price): &(&str, u32, i64)| InputItem { sku: (*sku).to_owned(), qty: *qty, price: *price };
    let input = Input {
        event_id: "e1".to_owned(),
        order_id: " o1".to_owned(),
        user_id: "user-1".to_owned(),
        ts: 1_755_355_849_401_333,
        total,
        line_items: items.iter().map(item).collect(),
    };
    let found = testing::rows(&plugin, input).map_err(|reject| reject.to_string());
    assert_eq!(found, expected.map(|row| vec![row]).map_err(str::to_owned));
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

const ITEMS: [(&str, u32, i64); 2] = [("sku-454", 2, 14_073), ("SKU-00059", 1, 3_706)];

#[test]
fn order_is_cleaned_and_enriched() {
    check(31_852, &ITEMS, Ok(row(31_852)));
}

#[test]
fn total_may_differ_from_the_sum_by_one_cent() {
    check(31_853, &ITEMS, Ok(row(31_853)));
    check(31_851, &ITEMS, Ok(row(31_851)));
    check(31_854, &ITEMS, Err("out-of-range: total: 318.54 is not the sum of the items, 318.52"));
    check(-31_852, &ITEMS, Err("out-of-range: total: -318.52 is not the sum of the items, 318.52"));
}

#[test]
fn invalid_events_are_rejected() {
    check(0, &[], Err("missing-field: line_items: absent or empty"));
    let second = "out-of-range: line_items[1]: qty: 0 is not between 1 and 100000";
    check(500, &[("SKU-1", 1, 500), ("SKU-2", 0, 500)], Err(second));
    let many = vec![("SKU-1", 1, 100); 10_001];
    check(1_000_100, &many, Err("out-of-range: line_items: 10001 items are more than 10000"));
}

#[test]
fn configure_requires_the_products_file() {
    let error = OrderPlaced::configure(&Config::new()).map(|_| ()).expect_err("no products");
    assert!(error.contains("add `reference = { products = \"data/reference/products.csv\" }`"), "{error}");
}
