//! What the shop's plugins share: products, quantities, prices.

mod item;
mod products;

pub use item::{Item, RawItem};
pub use products::{Products, Sku};
