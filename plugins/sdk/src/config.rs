//! Settings and reference files, which `pipeline.toml` passes to a plugin.

use crate::wit::types;

/// The settings and the reference files of one Silver table.
///
/// silverd builds it from `settings` and `reference` in `[silver.<name>]` of `pipeline.toml`. Tests build it by hand:
///
/// ```
/// use silverd_plugin::Config;
///
/// let config = Config::new().with_setting("currency", "EUR").with_reference("products", b"sku,category\n");
/// assert_eq!(config.setting("currency"), Some("EUR"));
/// assert_eq!(config.setting("rate"), None);
/// ```
///
/// A plugin reads both in `configure`. What it says in an error is for the engineer who edits `pipeline.toml`:
///
/// ```
/// use std::collections::HashMap;
///
/// use silverd_plugin::Config;
///
/// /// The category of each product, from a CSV file without quotes.
/// fn categories(config: &Config) -> Result<HashMap<String, String>, String> {
///     let file = config.reference("products").ok_or("the reference file `products` is not set")?;
///     let text = std::str::from_utf8(file).map_err(|error| format!("products: {error}; write it as UTF-8"))?;
///     let lines = text.lines().skip(1).filter_map(|line| line.split_once(','));
///     Ok(lines.map(|(sku, category)| (sku.to_owned(), category.to_owned())).collect())
/// }
///
/// let config = Config::new().with_reference("products", b"sku,category\nTEA-1,tea\n");
/// assert_eq!(categories(&config).unwrap()["TEA-1"], "tea");
/// assert!(categories(&Config::new()).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    inner: types::Config,
}

impl Config {
    /// An empty config. Tests fill it with [`with_setting`](Self::with_setting) and
    /// [`with_reference`](Self::with_reference).
    pub fn new() -> Self {
        Self { inner: types::Config { settings: Vec::new(), reference: Vec::new() } }
    }

    /// Adds a setting.
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.inner.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a reference file.
    pub fn with_reference(mut self, name: &str, contents: &[u8]) -> Self {
        self.inner.reference.push(types::ReferenceFile { name: name.to_owned(), contents: contents.to_vec() });
        self
    }

    /// The value of `settings = { name = "value" }`; `None` if `pipeline.toml` does not set it.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.inner.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The bytes of the file of `reference = { name = "path" }`; `None` if `pipeline.toml` does not name it.
    pub fn reference(&self, name: &str) -> Option<&[u8]> {
        self.inner.reference.iter().find(|file| file.name == name).map(|file| file.contents.as_slice())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl From<types::Config> for Config {
    fn from(inner: types::Config) -> Self {
        Self { inner }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_reference_files_are_found_by_name() {
        let config = Config::new().with_setting("currency", "EUR").with_reference("products", b"sku\n");
        assert_eq!(config.setting("currency"), Some("EUR"));
        assert_eq!(config.setting("products"), None);
        assert_eq!(config.reference("products"), Some(b"sku\n".as_slice()));
        assert_eq!(config.reference("currency"), None);
    }
}
