//! Shared code of the shop's plugins: products, quantities, prices.

mod item;
mod products;

pub use item::Item;
pub use products::{Products, Sku};
