//! What is in a topic: looks at events, and says for each kind of event which fields it has, of which types, and what they
//! look like. `silverd infer` prints it, and proposes a table's `input` from it.
//!
//! ```text
//!   events ──▶ KindFinder      which field splits them into kinds (kinds.rs)
//!   events ──▶ Look::add       a tree of counts for each kind (node.rs), bounded
//!                  │
//!                  ▼ finish    what each path looks like (meaning.rs), its type in `input` (input.rs), masks (personal.rs)
//!               Report ──▶ text.rs, wit.rs, toml.rs, or JSON; plugin.rs for a new plugin
//! ```
//!
//! Values are read with `silverd-values`: what is said to look like a time is read as one.

mod distinct;
mod input;
mod kinds;
mod look;
mod meaning;
mod newest;
mod node;
mod personal;
mod plugin;
mod proposal;
mod report;
mod scalar;
mod text;
mod toml;
mod unread;
mod wit;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use input::{InputField, InputType, Slot};
pub use kinds::{By, FieldPath, field_named};
pub use look::Look;
pub use newest::Newest;
pub use plugin::PluginParts;
pub use report::{Field, KindOfEvent, Report};
pub use text::text;
pub use toml::toml;
pub use unread::{NotAnObject, Unread};
pub use wit::wit;

/// An event to look at.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub place: Place,
    pub has_key: bool,
    pub value: Option<Vec<u8>>,
    /// The names of its headers.
    pub headers: Vec<String>,
}

/// Where an event is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// `None` for the line of a file.
    pub topic: Option<String>,
    pub partition: Option<i32>,
    /// The offset in the partition, or the number of the line, from 1.
    pub offset: i64,
}

/// Whether examples show what looks like a person's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    Masked,
    Shown,
}

/// Looks at events.
pub fn look(events: &[Event], by: &By, values: Values) -> Report {
    let mut look = Look::new(by, events);
    for event in events {
        look.add(event);
    }
    look.finish(values)
}
