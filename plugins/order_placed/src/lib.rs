//! Fills the Silver table `order_placed`: one row per order with its items; checks the total against the items.

#[cfg(test)]
mod tests;

use serde::Deserialize;
use shop::{Item, Products, RawItem};
use silverd_plugin::{Config, Event, Money, Reject, Text, Transform, required};

silverd_plugin::export! {
    plugin: OrderPlaced,
    types: "../../wit/types.wit",
    table: "../../wit/silver/order-placed.wit",
    world: "shop:silver/order-placed-plugin",
    interface: shop::silver::order_placed::{Row, LineItem},
}

/// An event with more items is an error, not an order. The total of this many items of the highest price still fits a
/// `decimal(18,2)`.
const ITEMS_MAX: usize = 10_000;

/// Carts add rounded prices in floating point, so a total may differ from the sum by this many cents.
const TOTAL_SLACK_CENTS: u64 = 1;

/// The fields of the raw event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Input<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    #[serde(borrow)]
    order_id: Text<'a>,
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow)]
    ts: Text<'a>,
    total: Option<Money>,
    #[serde(borrow)]
    line_items: Option<Vec<RawItem<'a>>>,
}

/// The plugin. Its reference file `products` has the categories of the products.
pub struct OrderPlaced {
    products: Products,
}

impl Transform for OrderPlaced {
    type Rows = Option<Row>;

    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { products: Products::from_config(config)? })
    }

    fn transform(&self, event: &Event<'_>) -> Result<Option<Row>, Reject> {
        let input: Input<'_> = event.json()?;
        let event_id = input.event_id.required("event_id")?;
        let order_id = input.order_id.required("order_id")?;
        let user_id = input.user_id.required("user_id")?;
        let ts = input.ts.timestamp("ts")?;
        let total = required("total", input.total)?;
        let line_items = self.line_items(&input.line_items.unwrap_or_default())?;
        check_total(total, &line_items)?;
        Ok(Some(Row {
            event_id: event_id.to_owned(),
            order_id: order_id.to_owned(),
            user_id: user_id.to_owned(),
            ts,
            total: total.cents(),
            item_count: line_items.iter().map(|item| item.qty).sum(),
            line_items,
        }))
    }
}

impl OrderPlaced {
    fn line_items(&self, raw_items: &[RawItem<'_>]) -> Result<Vec<LineItem>, Reject> {
        if raw_items.is_empty() {
            return Err(Reject::missing_field("line_items"));
        }
        if raw_items.len() > ITEMS_MAX {
            let count = raw_items.len();
            return Err(Reject::out_of_range(format!("line_items: {count} items are more than {ITEMS_MAX}")));
        }
        let mut items = Vec::with_capacity(raw_items.len());
        for (index, raw_item) in raw_items.iter().enumerate() {
            let item =
                raw_item.check(&self.products).map_err(|reject| reject.within(format_args!("line_items[{index}]")))?;
            let Item { sku, category, qty, price, line_total } = item;
            items.push(LineItem { sku, category, qty, price, line_total });
        }
        Ok(items)
    }
}

fn check_total(total: Money, line_items: &[LineItem]) -> Result<(), Reject> {
    let sum = Money::from_cents(line_items.iter().map(|item| item.line_total).sum());
    if total.cents().abs_diff(sum.cents()) > TOTAL_SLACK_CENTS {
        return Err(Reject::out_of_range(format!("total: {total} is not the sum of the items, {sum}")));
    }
    Ok(())
}
