//! Native tests of a plugin: the same function, without WebAssembly.
//!
//! ```ignore
//! let plugin: PageView = testing::configured(&Config::new());
//! let rows = testing::rows(&plugin, r#"{"event_id": "e1"}"#);
//! assert_eq!(rows.map_err(|reject| reject.to_string()), Err("missing-field: user_id: absent or empty".to_owned()));
//! ```

use crate::{Config, Event, Reject, Transform};

/// The plugin, configured.
///
/// # Panics
/// If the plugin refuses the config.
pub fn configured<T: Transform>(config: &Config) -> T {
    match T::configure(config) {
        Ok(plugin) => plugin,
        Err(error) => panic!("the plugin refuses its config: {error}"),
    }
}

/// An event with that value, and nothing else in it.
pub fn event(json: &str) -> Event<'_> {
    Event { value: json.as_bytes(), ..Event::default() }
}

/// The rows that the plugin makes of an event with that value.
///
/// # Errors
/// The plugin's [`Reject`].
pub fn rows<T: Transform>(plugin: &T, json: &str) -> Result<Vec<<T::Rows as IntoIterator>::Item>, Reject> {
    plugin.transform(&event(json)).map(|rows| rows.into_iter().collect())
}
