//! Where the records come from: a Kafka topic, read by a thread of its own, chunk by chunk.

mod embedded;
mod kafka;
mod record;

pub use embedded::EmbeddedBroker;
pub use kafka::{Arrival, Broker, Cadence, High, Resume, Source, Task};
