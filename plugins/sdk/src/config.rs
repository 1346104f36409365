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
