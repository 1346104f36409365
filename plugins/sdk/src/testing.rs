//! Helpers for a plugin's host tests, which call the plugin's function without WebAssembly.
//!
//! ```
//! use silverd_plugin::{Config, Reject, Transform, testing};
//!
//! // `export!` generates it from the record `input` in the table's WIT file.
//! struct Input {
//!     user_id: String,
//!     qty: u32,
//! }
//!
//! struct Users;
//!
//! impl Transform for Users {
//!     type Input = Input;
//!     type Rows = Option<String>;
//!
//!     fn configure(_: &Config) -> Result<Self, String> {
//!         Ok(Users)
//!     }
//!
//!     fn transform(&self, input: Input) -> Result<Option<String>, Reject> {
//!         match input.qty {
//!             0 => Err(Reject::out_of_range("qty: 0")),
//!             _ => Ok(Some(input.user_id)),
//!         }
//!     }
//! }
//!
//! let plugin: Users = testing::configured(&Config::new());
//! let rows = testing::rows(&plugin, Input { user_id: "ann".to_owned(), qty: 1 });
//! assert_eq!(rows, Ok(vec!["ann".to_owned()]));
//! let rejected = testing::rows(&plugin, Input { user_id: "ann".to_owned(), qty: 0 }).unwrap_err();
//! assert_eq!(rejected.to_string(), "out-of-range: qty: 0");
//! ```
//!
//! How silverd reads the input from an event's JSON is tested by the plugin's cases: `silverd plugin test`.

use crate::{Config, Event, Reject, Transform, TransformRaw};

/// Configures the plugin.
///
/// # Panics
/// If [`Transform::configure`] returns an error.
pub fn configured<T: Transform>(config: &Config) -> T {
    match T::configure(config) {
        Ok(plugin) => plugin,
        Err(error) => panic!("the plugin rejects its config: {error}"),
    }
}

/// A raw event with this value. It has no key and no headers; partition, offset and timestamp are 0.
pub fn event(json: &str) -> Event<'_> {
    Event { value: Some(json.as_bytes()), ..Event::default() }
}

/// The rows that the plugin returns for this input.
///
/// # Errors
/// The plugin's [`Reject`].
pub fn rows<T: Transform>(plugin: &T, input: T::Input) -> Result<Vec<<T::Rows as IntoIterator>::Item>, Reject> {
    plugin.transform(input).map(|rows| rows.into_iter().collect())
}

/// The rows that a plugin of raw events returns for an event with this value.
///
/// # Errors
/// The plugin's [`Reject`].
pub fn raw_rows<T: TransformRaw>(plugin: &T, json: &str) -> Result<Vec<<T::Rows as IntoIterator>::Item>, Reject> {
    plugin.transform(&event(json)).map(|rows| rows.into_iter().collect())
}
