//! An item of a cart or an order: a product, a quantity and a price.

use silverd_plugin::{Money, Reject, quoted};

use crate::{Products, Sku};

/// A larger quantity is an error in the event, not a purchase.
const QTY_MAX: u32 = 100_000;

/// A higher price is an error in the event. Together with [`QTY_MAX`] it keeps a line total far below `i64::MAX`.
const PRICE_MAX: Money = Money::from_cents(100_000_000);

/// A checked item.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Stock keeping unit in its normal form.
    pub sku: String,
    /// The product's category, if the product is known.
    pub category: Option<String>,
    /// Number of pieces, at least 1.
    pub qty: u32,
    /// Price of one piece, in cents.
    pub price: i64,
    /// Price of all pieces, in cents.
    pub line_total: i64,
}

impl Item {
    /// Checks an item, and looks up its category. `sku` is in any form that [`Sku`] parses, `price` in cents.
    ///
    /// # Errors
    /// The field that is invalid.
    pub fn check(sku: &str, qty: u32, price: i64, products: &Products) -> Result<Item, Reject> {
        let number: Sku = sku.parse().map_err(|()| {
            Reject::malformed(format!("sku: {} is not SKU- and a number of up to five digits", quoted(sku.trim())))
        })?;
        if !(1..=QTY_MAX).contains(&qty) {
            return Err(Reject::out_of_range(format!("qty: {qty} is not between 1 and {QTY_MAX}")));
        }
        if !(0..=PRICE_MAX.cents()).contains(&price) {
            let price = Money::from_cents(price);
            return Err(Reject::out_of_range(format!("price: {price} is not between 0 and {PRICE_MAX}")));
        }
        let category = products.category(number).map(str::to_owned);
        Ok(Item { sku: number.to_string(), category, qty, price, line_total: price * i64::from(qty) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use silverd_plugin::Config;

    #[test]
    fn valid_items_pass_and_invalid_items_are_rejected() {
        let csv = b"sku,category\nSKU-00012,books\n";
        let products = Products::from_config(&Config::new().with_reference("products", csv)).expect("products");
        let check = |sku: &str, qty, cents, expected: Result<Item, &str>| {
            let found = Item::check(sku, qty, cents, &products).map_err(|reject| reject.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        let item = |sku: &str, category: Option<&str>, qty, price, line_total| {
            Ok(Item { sku: sku.to_owned(), category: category.map(str::to_owned), qty, price, line_total })
        };
        check("sku-12", 3, 1999, item("SKU-00012", Some("books"), 3, 1999, 5997));
        check("SKU-00013", 1, 0, item("SKU-00013", None, 1, 0, 0));
        let highest = item("SKU-00013", None, 100_000, 100_000_000, 10_000_000_000_000);
        check("SKU-00013", 100_000, 100_000_000, highest);
        let not_a_sku = "malformed: sku: \"EAN-1\" is not SKU- and a number of up to five digits";
        check("EAN-1", 1, 1, Err(not_a_sku));
        check("SKU-1", 0, 1, Err("out-of-range: qty: 0 is not between 1 and 100000"));
        check("SKU-1", 100_001, 1, Err("out-of-range: qty: 100001 is not between 1 and 100000"));
        check("SKU-1", 1, -1, Err("out-of-range: price: -0.01 is not between 0 and 1000000.00"));
        let too_high = "out-of-range: price: 1000000.01 is not between 0 and 1000000.00";
        check("SKU-1", 1, 100_000_001, Err(too_high));
    }
}
