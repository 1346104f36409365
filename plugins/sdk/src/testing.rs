//! Helpers for a plugin's host tests, which call the plugin's function without WebAssembly.
//!
//! ```
//! use silverd_plugin::{Config, Event, Reject, Text, Transform, testing};
//!
//! #[derive(serde::Deserialize)]
//! struct Input<'a> {
//!     #[serde(borrow, default)]
//!     user_id: Text<'a>,
//! }
//!
//! struct Users;
//!
//! impl Transform for Users {
//!     type Rows = Option<String>;
//!
//!     fn configure(_: &Config) -> Result<Self, String> {
//!         Ok(Users)
//!     }
//!
//!     fn transform(&self, event: &Event<'_>) -> Result<Option<String>, Reject> {
//!         let input: Input<'_> = event.json()?;
//!         Ok(Some(input.user_id.required("user_id")?.to_owned()))
//!     }
//! }
//!
//! let plugin: Users = testing::configured(&Config::new());
//! assert_eq!(testing::rows(&plugin, r#"{"user_id": "ann"}"#), Ok(vec!["ann".to_owned()]));
//! let rejected = testing::rows(&plugin, "{}").unwrap_err();
//! assert_eq!(rejected.to_string(), "missing-field: user_id: absent or empty");
//! ```

use crate::{Config, Event, Reject, Transform};

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

/// An event with this value. Its key is empty; partition, offset and timestamp are 0.
pub fn event(json: &str) -> Event<'_> {
    Event { value: json.as_bytes(), ..Event::default() }
}

/// The rows that the plugin returns for an event with this value.
///
/// # Errors
/// The plugin's [`Reject`].
pub fn rows<T: Transform>(plugin: &T, json: &str) -> Result<Vec<<T::Rows as IntoIterator>::Item>, Reject> {
    plugin.transform(&event(json)).map(|rows| rows.into_iter().collect())
}
