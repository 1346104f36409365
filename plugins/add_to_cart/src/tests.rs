//! Events and the expected rows.

use silverd_plugin::{Config, Transform, testing};

use crate::{AddToCart, Row};

const PRODUCTS: &[u8] = b"sku,category,name\nSKU-00412,garden,Watering can\n";

fn check(json: &str, expected: Result<Row, &str>) {
    let plugin: AddToCart = testing::configured(&Config::new().with_reference("products", PRODUCTS));
    let found = testing::rows(&plugin, json).map_err(|reject| reject.to_string());
    assert_eq!(found, expected.map(|row| vec![row]).map_err(str::to_owned), "{json}");
}

/// An event with these fields and the fields that every event has.
fn event(fields: &str) -> String {
    format!(r#"{{"event_id": "e1", "user_id": "user-1", "ts": "2025-08-16T14:50:49.401333", {fields}}}"#)
}

fn row(sku: &str, category: Option<&str>, qty: u32, price: i64, line_total: i64) -> Row {
    Row {
        event_id: "e1".to_owned(),
        user_id: "user-1".to_owned(),
        ts: 1_755_355_849_401_333,
        sku: sku.to_owned(),
        category: category.map(str::to_owned),
        qty,
        price,
        line_total,
    }
}

#[test]
fn cart_event_is_cleaned_and_enriched() {
    let known = row("SKU-00412", Some("garden"), 2, 17_859, 35_718);
    check(&event(r#""sku": "SKU-00412", "qty": 2, "price": 178.59"#), Ok(known.clone()));
    check(&event(r#""sku": " sku-412 ", "qty": 2, "price": 178.59, "coupon": {"x": []}"#), Ok(known));
    check(&event(r#""sku": "SKU-00413", "qty": 1, "price": 5"#), Ok(row("SKU-00413", None, 1, 500, 500)));
    check(&event(r#""sku": "SKU-00413", "qty": 1, "price": "19.99""#), Ok(row("SKU-00413", None, 1, 1_999, 1_999)));
}

#[test]
fn invalid_events_are_rejected() {
    let rejects = [
        (r#""qty": 1, "price": 5.0"#, "missing-field: sku: absent or empty"),
        (r#""sku": "SKU-1", "qty": null, "price": 5.0"#, "missing-field: qty: absent or empty"),
        (r#""sku": "SKU-1", "qty": 1"#, "missing-field: price: absent or empty"),
        (r#""sku": "SKU-1", "qty": 0, "price": 5.0"#, "out-of-range: qty: 0 is not between 1 and 100000"),
        (
            r#""sku": "SKU-1", "qty": -1, "price": 5.0"#,
            "out-of-range: qty: invalid value: integer `-1`, expected u32 at line 1 column 101",
        ),
        (
            r#""sku": "SKU-1", "qty": 1, "price": 1e300"#,
            "out-of-range: price: invalid value: floating point `1e+300`, expected an amount of money up to 10^13 at line 1 \
             column 116",
        ),
        (r#""sku": "SKU-1", "qty": 1, "price": -0.01"#, "out-of-range: price: -0.01 is not between 0 and 1000000.00"),
        (
            r#""sku": "12345", "qty": 1, "price": 5.0"#,
            "malformed: sku: \"12345\" is not SKU- and a number of up to five digits",
        ),
    ];
    for (fields, reason) in rejects {
        check(&event(fields), Err(reason));
    }
    check(r#"{"event_id": "e1", "ts": "x"}"#, Err("missing-field: user_id: absent or empty"));
}

#[test]
fn configure_requires_the_products_file() {
    let error = AddToCart::configure(&Config::new()).map(|_| ()).expect_err("no products");
    assert!(error.contains("add `reference = { products = \"data/reference/products.csv\" }`"), "{error}");
}
