//! Fills the Silver table `add_to_cart`: normalizes the SKU, adds the category and the line total.

#[cfg(test)]
mod tests;

use serde::Deserialize;
use shop::{Item, Products, RawItem};
use silverd_plugin::{Config, Event, Money, Reject, Text, Transform};

silverd_plugin::export! {
    plugin: AddToCart,
    types: "../../wit/types.wit",
    table: "../../wit/silver/add-to-cart.wit",
    world: "shop:silver/add-to-cart-plugin",
    interface: shop::silver::add_to_cart::{Row},
}

/// The fields of the raw event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Input<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow)]
    ts: Text<'a>,
    // The fields of a `RawItem`. serde's `flatten` would buffer the whole event first.
    #[serde(borrow)]
    sku: Text<'a>,
    qty: Option<u32>,
    price: Option<Money>,
}

/// The plugin. Its reference file `products` has the categories of the products.
pub struct AddToCart {
    products: Products,
}

impl Transform for AddToCart {
    type Rows = Option<Row>;

    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { products: Products::from_config(config)? })
    }

    fn transform(&self, event: &Event<'_>) -> Result<Option<Row>, Reject> {
        let Input { event_id, user_id, ts, sku, qty, price } = event.json()?;
        let event_id = event_id.required("event_id")?;
        let user_id = user_id.required("user_id")?;
        let ts = ts.timestamp("ts")?;
        let Item { sku, category, qty, price, line_total } = RawItem { sku, qty, price }.check(&self.products)?;
        Ok(Some(Row {
            event_id: event_id.to_owned(),
            user_id: user_id.to_owned(),
            ts,
            sku,
            category,
            qty,
            price,
            line_total,
        }))
    }
}
