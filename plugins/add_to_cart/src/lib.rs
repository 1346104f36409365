//! Fills the Silver table `add_to_cart`: normalizes the SKU, adds the category and the line total.

#[cfg(test)]
mod tests;

use shop::{Item, Products};
use silverd_plugin::{Config, Reject, Transform, trimmed};

silverd_plugin::export! {
    plugin: AddToCart,
    types: "../../wit/types.wit",
    table: "../../wit/silver/add-to-cart.wit",
    world: "shop:silver/add-to-cart-plugin",
    interface: shop::silver::add_to_cart::{Input, Row},
}

/// The plugin. Its reference file `products` has the categories of the products.
pub struct AddToCart {
    products: Products,
}

impl Transform for AddToCart {
    type Input = Input;
    type Rows = Option<Row>;

    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { products: Products::from_config(config)? })
    }

    fn transform(&self, input: Input) -> Result<Option<Row>, Reject> {
        let Item { sku, category, qty, price, line_total } =
            Item::check(&input.sku, input.qty, input.price, &self.products)?;
        Ok(Some(Row {
            event_id: trimmed(input.event_id),
            user_id: trimmed(input.user_id),
            ts: input.ts,
            sku,
            category,
            qty,
            price,
            line_total,
        }))
    }
}
