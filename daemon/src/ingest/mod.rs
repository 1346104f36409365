//! Where the records come from: a Kafka topic, read by a thread of its own, chunk by chunk.

mod assign;
mod embedded;
mod poller;
mod record;
mod session;
mod source;

pub use embedded::EmbeddedBroker;
pub use source::{Arrival, Broker, Cadence, Gathered, High, Resume, Source, Task};
