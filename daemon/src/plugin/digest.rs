//! The digest that identifies a version of a plugin.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// A SHA-256, of a plugin's file or of its configuration. Commits and the quarantine name a plugin version by it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Digest(Arc<str>);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        let hex = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(hex.into())
    }

    /// Parses 64 lower-case hexadecimal digits.
    pub fn parse(digits: &str) -> Option<Self> {
        let is_hex = digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| Self(digits.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, the form for people.
    pub fn short(digits: &str) -> &str {
        digits.get(..12).unwrap_or(digits)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::short(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
