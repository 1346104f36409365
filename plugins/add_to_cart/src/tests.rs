//! Events and the expected rows.

use silverd_plugin::{Config, Transform, testing};

use crate::{AddToCart, Input, Row};

const PRODUCTS: &[u8] = b"sku,category,name\nSKU-00412,garden,Watering can\n";

#[track_caller]
fn check(sku: &str, qty: u32, price: i64, expected: Result<Row, &str>) {
    let plugin: AddToCart = testing::configured(&Config::new().with_reference("products", PRODUCTS));
    let (event_id, user_id) = ("e1 ".to_owned(), "user-1".to_owned());
    let input = Input { event_id, user_id, ts: 1_755_355_849_401_333, sku: sku.to_owned(), qty, price };
    let found = testing::rows(&plugin, input).map_err(|reject| reject.to_string());
    assert_eq!(found, expected.map(|row| vec![row]).map_err(str::to_owned));
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
    check("SKU-00412", 2, 17_859, Ok(known.clone()));
    check(" sku-412 ", 2, 17_859, Ok(known));
    check("SKU-00413", 1, 500, Ok(row("SKU-00413", None, 1, 500, 500)));
}

#[test]
fn invalid_events_are_rejected() {
    check("SKU-1", 0, 500, Err("out-of-range: qty: 0 is not between 1 and 100000"));
    check("SKU-1", 1, -1, Err("out-of-range: price: -0.01 is not between 0 and 1000000.00"));
    check("12345", 1, 500, Err("malformed: sku: \"12345\" is not SKU- and a number of up to five digits"));
}

#[test]
fn configure_requires_the_products_file() {
    let error = AddToCart::configure(&Config::new()).map(|_| ()).expect_err("no products");
    assert!(error.contains("add `reference = { products = \"data/reference/products.csv\" }`"), "{error}");
}
