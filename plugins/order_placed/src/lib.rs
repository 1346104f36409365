//! Fills the Silver table `order_placed`: one row per order with its items; checks the total against the items.

#[cfg(test)]
mod tests;

use shop::{Item, Products};
use silverd_plugin::{Config, Money, Reject, Transform, trimmed};

silverd_plugin::export! {
    plugin: OrderPlaced,
    types: "../../wit/types.wit",
    table: "../../wit/silver/order-placed.wit",
    world: "shop:silver/order-placed-plugin",
    interface: shop::silver::order_placed::{Input, InputItem, Row, LineItem},
}

/// An event with more items is an error, not an order. The total of this many items of the highest price still fits a
/// `decimal(18,2)`.
const ITEMS_MAX: usize = 10_000;

/// Carts add rounded prices in floating point, so a total may differ from the sum by this many cents.
const TOTAL_SLACK_CENTS: u64 = 1;

/// The plugin. Its reference file `products` has the categories of the products.
pub struct OrderPlaced {
    products: Products,
}

impl Transform for OrderPlaced {
    type Input = Input;
    type Rows = Option<Row>;

    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { products: Products::from_config(config)? })
    }

    fn transform(&self, input: Input) -> Result<Option<Row>, Reject> {
        let line_items = self.line_items(&input.line_items)?;
        check_total(input.total, &line_items)?;
        Ok(Some(Row {
            event_id: trimmed(input.event_id),
            order_id: trimmed(input.order_id),
            user_id: trimmed(input.user_id),
            ts: input.ts,
            total: input.total,
            item_count: line_items.iter().map(|item| item.qty).sum(),
            line_items,
        }))
    }
}

impl OrderPlaced {
    fn line_items(&self, input_items: &[InputItem]) -> Result<Vec<LineItem>, Reject> {
        if input_items.is_empty() {
            return Err(Reject::missing_field("line_items"));
        }
        if input_items.len() > ITEMS_MAX {
            let count = input_items.len();
            return Err(Reject::out_of_range(format!("line_items: {count} items are more than {ITEMS_MAX}")));
        }
        let mut items = Vec::with_capacity(input_items.len());
        for (index, InputItem { sku, qty, price }) in input_items.iter().enumerate() {
            let item = Item::check(sku, *qty, *price, &self.products);
            let item = item.map_err(|reject| reject.within(format_args!("line_items[{index}]")))?;
            let Item { sku, category, qty, price, line_total } = item;
            items.push(LineItem { sku, category, qty, price, line_total });
        }
        Ok(items)
    }
}

fn check_total(total: i64, line_items: &[LineItem]) -> Result<(), Reject> {
    let sum = line_items.iter().map(|item| item.line_total).sum();
    if total.abs_diff(sum) > TOTAL_SLACK_CENTS {
        let (total, sum) = (Money::from_cents(total), Money::from_cents(sum));
        return Err(Reject::out_of_range(format!("total: {total} is not the sum of the items, {sum}")));
    }
    Ok(())
}
